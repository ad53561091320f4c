"""Pools: maximum, average, p-norm, and their inverse."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from autoglm.backends.torch.conv import check_rank
from autoglm.backends.torch.op import Node, Op, Table
from autoglm.backends.torch.window import Window, ceiled, padded, window

_MAX: dict[int, Callable[..., Any]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_MEAN: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def _geometry(node: Node, x: Tensor) -> Window:
    shape = window(node, x, node["kernel_shape"])
    return ceiled(shape, x.shape[2:]) if node["ceil_mode"] else shape


def max_pool(node: Node, x: Tensor) -> Any:
    """Values, and on request the places in the unpadded input."""
    shape = _geometry(node, x)
    floats = x if x.dtype.is_floating_point else x.float()
    wide = padded(floats, shape.begin, shape.end, -math.inf)
    indices = len(node.wanted) > 1 and node.wanted[1]
    run = _MAX[x.ndim - 2]
    result = run(wide, shape.kernel, shape.stride, 0, shape.dilation, False, indices)
    if not indices:
        return result.to(x.dtype)
    values, places = result
    return values.to(x.dtype), _places(node, x, shape, wide.shape[2:], places)


def _places(node: Node, x: Tensor, shape: Window, wide: Sequence[int], places: Tensor) -> Tensor:
    """Places in the padded plane -> places in the whole input tensor."""
    sizes = x.shape[2:]
    coordinates: list[Tensor] = []
    for size, before in zip(reversed(wide), reversed(shape.begin), strict=True):
        coordinates.insert(0, places % size - before)
        places = places // size
    flat = torch.zeros_like(coordinates[0])
    order = range(len(sizes)) if not node["storage_order"] else reversed(range(len(sizes)))
    for axis in order:
        flat = flat * sizes[axis] + coordinates[axis]
    plane = torch.arange(x.shape[0] * x.shape[1], device=x.device) * math.prod(sizes)
    return flat + plane.reshape(*x.shape[:2], *[1] * len(sizes))


def _window_sum(x: Tensor, shape: Window) -> Tensor:
    """Sum over each window of an already padded input."""
    rank = x.ndim - 2
    planes = x.reshape(-1, 1, *x.shape[2:])
    ones = torch.ones(1, 1, *shape.kernel, dtype=x.dtype, device=x.device)
    sums = _CONV[rank](planes, ones, None, shape.stride, 0, shape.dilation)
    return sums.reshape(*x.shape[:2], *sums.shape[2:])


def average_pool(node: Node, x: Tensor) -> Tensor:
    """Padding counts on request; what ceil_mode adds never does."""
    shape = window(node, x, node["kernel_shape"])
    count_pads = bool(node["count_include_pad"])
    if _plain(node, shape):
        run = _MEAN[x.ndim - 2]
        return run(x, shape.kernel, shape.stride, shape.begin, False, count_pads)
    full = ceiled(shape, x.shape[2:]) if node["ceil_mode"] else shape
    sums = _window_sum(padded(x, full.begin, full.end), full)
    ones = torch.ones(1, 1, *x.shape[2:], dtype=x.dtype, device=x.device)
    if count_pads:
        ones = padded(ones, shape.begin, shape.end, 1.0)
        beyond = [f - e for f, e in zip(full.end, shape.end, strict=True)]
        ones = padded(ones, [0] * len(beyond), beyond)
    else:
        ones = padded(ones, full.begin, full.end)
    return sums / _window_sum(ones, full)


def _plain(node: Node, shape: Window) -> bool:
    half = all(2 * p <= k for p, k in zip(shape.begin, shape.kernel, strict=True))
    return shape.symmetric and half and max(shape.dilation) == 1 and not node["ceil_mode"]


def lp_pool(node: Node, x: Tensor) -> Tensor:
    """The p-norm of each window."""
    shape = _geometry(node, x)
    p = node["p"]
    powers = padded(x.abs() ** p, shape.begin, shape.end)
    return _window_sum(powers, shape) ** (1 / p)


def over_plane(run: Callable[..., Tensor], node: Node, x: Tensor) -> Tensor:
    """Reduce all spatial axes."""
    axes = list(range(2, x.ndim))
    return run(x, axes, True) if axes else x


def global_lp(node: Node, x: Tensor) -> Tensor:
    """The p-norm of each plane."""
    p = node["p"]
    return (x.abs() ** p).sum(list(range(2, x.ndim)), True) ** (1 / p)


def max_unpool(node: Node, x: Tensor, places: Tensor, shape: Any = None) -> Tensor:
    """Put each value back to its place, zeros elsewhere."""
    sizes = shape or _unpooled(node, x)
    smaller = _unpooled(node, x)
    if shape is not None and list(shape) != smaller:
        places = _replaced(places, smaller, list(shape))
    flat = torch.zeros(math.prod(sizes), dtype=x.dtype, device=x.device)
    return flat.scatter(0, places.reshape(-1), x.reshape(-1)).reshape(sizes)


def _unpooled(node: Node, x: Tensor) -> list[int]:
    kernel = node["kernel_shape"]
    rank = len(kernel)
    stride = node["strides"] or [1] * rank
    pads = node["pads"] or [0] * (2 * rank)
    sizes = [
        (x.shape[2 + i] - 1) * stride[i] - pads[i] - pads[i + rank] + kernel[i] for i in range(rank)
    ]
    return [*x.shape[:2], *sizes]


def _replaced(places: Tensor, old: list[int], new: list[int]) -> Tensor:
    """Offsets into an array of shape `old` -> offsets of the same coordinates in shape `new`."""
    result = torch.zeros_like(places)
    stride = 1
    for before, after in zip(reversed(old), reversed(new), strict=True):
        result = result + places % before * stride
        places = places // before
        stride *= after
    return result


def local_response(node: Node, x: Tensor) -> Tensor:
    """Each value over its neighbours' squares across channels."""
    size = node["size"]
    before, after = (size - 1) // 2, size // 2
    squares = F.pad((x * x).movedim(1, -1), (before, after))
    sums = squares.unfold(-1, size, 1).sum(-1).movedim(-1, 1)
    return x / (node["bias"] + node["alpha"] / size * sums) ** node["beta"]


TABLE: Table = {
    "MaxPool": Op(max_pool, check=check_rank),
    "AveragePool": Op(average_pool, check=check_rank),
    "LpPool": Op(lp_pool, check=check_rank),
    "GlobalAveragePool": Op(partial(over_plane, torch.mean)),
    "GlobalMaxPool": Op(partial(over_plane, torch.amax)),
    "GlobalLpPool": Op(global_lp),
    "MaxUnpool": Op(max_unpool, host=(2,)),
    "LRN": Op(local_response),
}
