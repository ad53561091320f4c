"""Pools: maximum, average, p-norm."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F

from .conv import convolve, spatial
from .op import FLOATS, Node, Op, Refused, Run, Table, Value, constant, name_of, rank, size
from .window import Window, ceiled, padded, window

_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_MEAN = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_LOWEST = -3.4e38


def _geometry(node: Node, x: Value) -> Window:
    shape = window(node, x, node["kernel_shape"])
    return ceiled(shape, x) if node["ceil_mode"] else shape


def max_pool(node: Node, x: Value) -> Any:
    """The values; places are not mapped."""
    if len(node.wanted) > 1 and node.wanted[1]:
        raise Refused("gives the values only; found a use of Indices")
    shape, dims = _geometry(node, x), spatial(x)
    wide = x if name_of(x) in FLOATS else paddle.cast(x, "float32")
    if max(shape.dilation) > 1:
        return paddle.cast(_dilated(wide, shape), x.dtype)
    wide, pads = _fitting(wide, shape)
    y = _MAX[dims](wide, list(shape.kernel), list(shape.stride), pads)
    return y if y.dtype == x.dtype else paddle.cast(y, x.dtype)


def _fitting(x: Value, shape: Window) -> tuple[Value, list[int]]:
    """Paddle pads by up to half a window, equally on both sides; more is padded before."""
    half = all(2 * p <= k for p, k in zip(shape.begin, shape.kernel, strict=True))
    if shape.symmetric and half and min(shape.begin) >= 0:
        return x, list(shape.begin)
    low = _LOWEST if name_of(x) != "float16" else -65504.0
    return padded(x, shape.begin, shape.end, low), [0] * len(shape.begin)


def _dilated(x: Value, shape: Window) -> Value:
    """The maximum over one strided slice per place of the window."""
    x = padded(x, shape.begin, shape.end, _LOWEST)
    counts = [
        (size(x, i + 2) - span) // stride + 1
        for i, (span, stride) in enumerate(zip(shape.spans(), shape.stride, strict=True))
    ]
    result = None
    for place in np.ndindex(*shape.kernel):
        piece = x
        for i, at in enumerate(place):
            start = at * shape.dilation[i]
            stop = start + (counts[i] - 1) * shape.stride[i] + 1
            piece = paddle.strided_slice(piece, [i + 2], [start], [stop], [shape.stride[i]])
        result = piece if result is None else paddle.maximum(result, piece)
    return result


def _window_sum(x: Value, shape: Window, channels: int) -> Value:
    """Sum over each window of an already padded input."""
    ones = constant(np.ones((channels, 1, *shape.kernel), np.float32))
    none = (0,) * len(shape.kernel)
    bare = Window(shape.kernel, shape.stride, shape.dilation, none, none)
    return convolve(x, paddle.cast(ones, x.dtype), bare, channels)


def average_pool(node: Node, x: Value) -> Value:
    """Padding counts on request; what ceil_mode adds never does."""
    shape, dims = window(node, x, node["kernel_shape"]), spatial(x)
    count_pads = bool(node["count_include_pad"])
    half = all(2 * p <= k for p, k in zip(shape.begin, shape.kernel, strict=True))
    if shape.symmetric and half and max(shape.dilation) == 1 and not node["ceil_mode"]:
        return _MEAN[dims](
            x, list(shape.kernel), list(shape.stride), list(shape.begin), exclusive=not count_pads
        )
    full = ceiled(shape, x) if node["ceil_mode"] else shape
    channels = size(x, 1)
    sums = _window_sum(padded(x, full.begin, full.end), full, channels)
    counts = _counts([size(x, i) for i in range(2, 2 + dims)], shape, full, count_pads)
    return sums / paddle.cast(constant(counts), x.dtype)


def _counts(given: list[int], shape: Window, full: Window, pads: bool) -> Any:
    """How many places each window averages over, as an array that broadcasts."""
    total = np.ones((1, 1, *[1] * len(given)), np.float32)
    for i, whole in enumerate(given):
        ones = np.zeros(full.begin[i] + whole + full.end[i], np.float32)
        first = 0 if pads else full.begin[i]
        last = full.begin[i] + whole + (shape.end[i] if pads else 0)
        ones[first:last] = 1
        reach = [k * shape.dilation[i] for k in range(shape.kernel[i])]
        starts = range(0, len(ones) - reach[-1], shape.stride[i])
        column = np.asarray([sum(ones[s + r] for r in reach) for s in starts], np.float32)
        line = [1] * (2 + len(given))
        line[2 + i] = len(column)
        total = total * column.reshape(line)
    return total


def lp_pool(node: Node, x: Value) -> Value:
    """The p-norm of each window."""
    shape, p = _geometry(node, x), float(node["p"])
    powers = padded(paddle.pow(paddle.abs(x), p), shape.begin, shape.end)
    return paddle.pow(_window_sum(powers, shape, size(x, 1)), 1 / p)


def over_plane(run: Run, node: Node, x: Value) -> Value:
    """Reduce all spatial axes."""
    return run(x, list(range(2, rank(x))), True) if rank(x) > 2 else paddle.assign(x)


def global_lp(node: Node, x: Value) -> Value:
    """The p-norm of each plane."""
    p = float(node["p"])
    sums = paddle.sum(paddle.pow(paddle.abs(x), p), list(range(2, rank(x))), keepdim=True)
    return paddle.pow(sums, 1 / p)


def local_response(node: Node, x: Value) -> Value:
    """Each value over its neighbours' squares across channels."""
    extent = node["size"]
    before, after, channels = (extent - 1) // 2, extent // 2, size(x, 1)
    # A band matrix over the channels sums each one's neighbours.
    rows, columns = np.ogrid[:channels, :channels]
    band = ((columns >= rows - before) & (columns <= rows + after)).astype(np.float32)
    flat = paddle.flatten(x * x, 2, -1) if rank(x) > 3 else x * x
    sums = paddle.matmul(paddle.cast(constant(band), x.dtype), flat)
    sums = paddle.reshape(sums, paddle.shape(x)) if rank(x) > 3 else sums
    scale = paddle.scale(sums, node["alpha"] / extent, node["bias"])
    return x / paddle.pow(scale, node["beta"])


TABLE: Table = {
    "MaxPool": Op(max_pool),
    "AveragePool": Op(average_pool),
    "LpPool": Op(lp_pool),
    "GlobalAveragePool": Op(partial(over_plane, paddle.mean)),
    "GlobalMaxPool": Op(partial(over_plane, paddle.max)),
    "GlobalLpPool": Op(global_lp),
    "LRN": Op(local_response),
}
