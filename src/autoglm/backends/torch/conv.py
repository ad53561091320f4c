"""Convolutions."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from autoglm.backends.torch.op import Node, Op, Table
from autoglm.backends.torch.window import padded, window
from autoglm.rewrite.program import Call

_CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED: dict[int, Callable[..., Tensor]] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}


def check_rank(call: Call) -> str:
    """torch convolves over one to three axes."""
    rank = call.ranks[0]
    if rank is None or rank - 2 in _CONV:
        return ""
    return f"PyTorch takes 1 to 3 spatial axes, found {rank - 2}"


def conv(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Any padding; what torch cannot say is padded before."""
    shape = window(node, x, weight.shape[2:])
    pads = shape.begin
    if not shape.symmetric or min(pads, default=0) < 0:
        x, pads = padded(x, shape.begin, shape.end), (0,) * len(pads)
    run = _CONV[x.ndim - 2]
    return run(x, weight, bias, shape.stride, pads, shape.dilation, node["group"])


def conv_transpose(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The whole result without padding, then cropped: torch has one padding per axis only."""
    shape = window(node, x, weight.shape[2:]) if node["pads"] else None
    rank = x.ndim - 2
    stride = tuple(node["strides"] or [1] * rank)
    dilation = tuple(node["dilations"] or [1] * rank)
    extra = tuple(node["output_padding"] or [0] * rank)
    run = _TRANSPOSED[rank]
    full = run(x, weight, None, stride, 0, 0, node["group"], dilation)
    if shape is not None and node["auto_pad"] == "NOTSET" and not node["output_shape"]:
        begin, end = shape.begin, shape.end
    else:
        begin, end = _total(node, full.shape[2:], x.shape[2:], stride, extra)
    crops = [o - e for o, e in zip(extra, end, strict=True)]
    result = padded(full, [-b for b in begin], crops)
    return result if bias is None else result + bias.reshape(-1, *[1] * rank)


def _total(
    node: Node,
    full: torch.Size,
    given: torch.Size,
    stride: tuple[int, ...],
    extra: tuple[int, ...],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Begin and end crops that give the output's size asked for."""
    wanted = node["output_shape"]
    if wanted is None and node["auto_pad"] in ("NOTSET", "VALID"):
        return (0,) * len(full), (0,) * len(full)
    sizes = wanted or [size * s for size, s in zip(given, stride, strict=True)]
    totals = [f + e - size for f, e, size in zip(full, extra, sizes, strict=True)]
    less = tuple(total // 2 for total in totals)
    more = tuple(total - total // 2 for total in totals)
    return (less, more) if node["auto_pad"] == "SAME_UPPER" else (more, less)


def check_deform(call: Call) -> str:
    """Two spatial axes."""
    rank = call.ranks[0]
    return "" if rank in (None, 4) else f"DeformConv takes 2 spatial axes, found {rank - 2}"


def deform_conv(
    node: Node,
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Each kernel tap reads at its own shifted place, bilinearly."""
    shape = window(node, x, weight.shape[2:])
    batch, channels = x.shape[:2]
    groups, parts = node["group"], node["offset_group"]
    rows, columns = offset.shape[2:]
    taps = weight.shape[2] * weight.shape[3]
    shifts = offset.reshape(batch, parts, taps, 2, rows, columns)
    tap = torch.arange(taps, device=x.device)
    y0 = _lattice(rows, shape.stride[0], shape.begin[0], x)[None, :, None]
    x0 = _lattice(columns, shape.stride[1], shape.begin[1], x)[None, None, :]
    ys = y0 + (tap // weight.shape[3] * shape.dilation[0])[:, None, None] + shifts[:, :, :, 0]
    xs = x0 + (tap % weight.shape[3] * shape.dilation[1])[:, None, None] + shifts[:, :, :, 1]
    planes = x.reshape(batch, parts, channels // parts, -1)
    values = _bilinear(planes, x.shape[2:], ys, xs)
    if mask is not None:
        values = values * mask.reshape(batch, parts, 1, taps, rows, columns)
    values = values.reshape(batch, groups, channels // groups, taps, rows, columns)
    kernel = weight.reshape(groups, -1, channels // groups, taps)
    result = torch.einsum("bgcthw,gmct->bgmhw", values, kernel)
    result = result.reshape(batch, -1, rows, columns)
    return result if bias is None else result + bias[:, None, None]


def _lattice(count: int, stride: int, pad: int, x: Tensor) -> Tensor:
    return torch.arange(count, device=x.device, dtype=x.dtype) * stride - pad


def _bilinear(planes: Tensor, size: torch.Size, ys: Tensor, xs: Tensor) -> Tensor:
    """planes [b, g, c, h*w] read at ys, xs [b, g, ...]; zero outside."""
    y0, x0 = torch.floor(ys), torch.floor(xs)
    total = torch.zeros((), dtype=planes.dtype, device=planes.device)
    for dy in (0, 1):
        for dx in (0, 1):
            y, x = y0 + dy, x0 + dx
            weight = (1 - (ys - y).abs()) * (1 - (xs - x).abs())
            inside = (y >= 0) & (y < size[0]) & (x >= 0) & (x < size[1])
            flat = y.clamp(0, size[0] - 1).long() * size[1] + x.clamp(0, size[1] - 1).long()
            lead = (*planes.shape[:3],)
            index = flat.reshape(*lead[:2], 1, -1).expand(*lead, -1)
            taken = torch.gather(planes, 3, index).reshape(*lead, *ys.shape[2:])
            total = total + taken * (weight * inside).unsqueeze(2)
    return total


TABLE: Table = {
    "Conv": Op(conv, check=check_rank),
    "ConvTranspose": Op(conv_transpose, check=check_rank),
    "DeformConv": Op(deform_conv, check=check_deform),
}
