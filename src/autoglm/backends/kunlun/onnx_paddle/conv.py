"""Convolutions."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F

from .op import Node, Op, Refused, Table, Value, rank, size
from .window import Window, padded, window

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv1d_transpose, 2: F.conv2d_transpose, 3: F.conv3d_transpose}


def spatial(x: Value) -> int:
    """Number of spatial axes; Paddle convolves and pools over one to three."""
    if rank(x) - 2 not in _CONV:
        raise Refused(f"takes 1 to 3 spatial axes; found {rank(x) - 2}")
    return rank(x) - 2


def conv(node: Node, x: Value, weight: Value, bias: Value = None) -> Value:
    """Any padding; what Paddle cannot say is padded before."""
    dims = spatial(x)
    shape = window(node, x, [size(weight, i) for i in range(2, 2 + dims)])
    y = convolve(x, weight, shape, node["group"])
    return y if bias is None else y + paddle.reshape(bias, [1, -1] + [1] * dims)


def convolve(x: Value, weight: Value, shape: Window, groups: int) -> Value:
    """The convolution itself."""
    dims = spatial(x)
    pads: list[int] = list(shape.begin)
    if not shape.symmetric or min(pads) < 0:
        x, pads = padded(x, shape.begin, shape.end), [0] * dims
    return _CONV[dims](x, weight, None, list(shape.stride), pads, list(shape.dilation), groups)


def conv_transpose(node: Node, x: Value, weight: Value, bias: Value = None) -> Value:
    """The whole result without padding, then cropped."""
    dims = spatial(x)
    size(x, 1)  # Paddle compares it with the weight's
    stride, dilation = (list(node[k] or [1] * dims) for k in ("strides", "dilations"))
    extra = list(node["output_padding"] or [0] * dims)
    full = _TRANSPOSED[dims](
        x, weight, None, stride, 0, groups=node["group"], dilation=dilation
    )  # fmt: skip
    kernel = [size(weight, i) for i in range(2, 2 + dims)]
    begin, end = _crops(node, x, kernel, stride, dilation, extra)
    y = padded(full, [-b for b in begin], [e - c for e, c in zip(extra, end, strict=True)])
    return y if bias is None else y + paddle.reshape(bias, [1, -1] + [1] * dims)


def _crops(
    node: Node, x: Value, kernel: list[int], stride: list[int], dilation: list[int],
    extra: list[int],
) -> tuple[list[int], list[int]]:  # fmt: skip
    """How much the full result loses at both ends."""
    dims = len(kernel)
    mode, wanted = node["auto_pad"], node["output_shape"]
    if mode == "NOTSET" and not wanted:
        pads = list(node["pads"] or [0] * (2 * dims))
        return pads[:dims], pads[dims:]
    if mode == "VALID" and not wanted:
        return [0] * dims, [0] * dims
    given = [size(x, i) for i in range(2, 2 + dims)]
    goal = wanted or [g * s for g, s in zip(given, stride, strict=True)]
    whole = [
        (g - 1) * s + (k - 1) * d + 1
        for g, s, k, d in zip(given, stride, kernel, dilation, strict=True)
    ]
    totals = [f + e - g for f, e, g in zip(whole, extra, goal, strict=True)]
    less, more = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return (less, more) if mode == "SAME_UPPER" else (more, less)


TABLE: Table = {"Conv": Op(conv), "ConvTranspose": Op(conv_transpose)}
