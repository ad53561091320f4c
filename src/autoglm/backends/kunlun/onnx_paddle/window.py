"""The geometry that convolutions and pools share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .op import Node, Value, rank, size
from .pad import constant_pad


@dataclass(frozen=True)
class Window:
    """A sliding window over the spatial axes; `end` is the padding that full windows need."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]

    def spans(self) -> tuple[int, ...]:
        """How far a window reaches, per axis."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    @property
    def symmetric(self) -> bool:
        """Whether one padding per axis says it."""
        return self.begin == self.end


def window(node: Node, x: Value, kernel: Sequence[int]) -> Window:
    """The window of this node on this input, with auto_pad worked out."""
    dims = rank(x) - 2
    stride = tuple(node["strides"] or [1] * dims)
    dilation = tuple(node["dilations"] or [1] * dims)
    pads = tuple(node["pads"] or [0] * (2 * dims))
    shape = Window(tuple(kernel), stride, dilation, pads[:dims], pads[dims:])
    mode = node["auto_pad"] or "NOTSET"
    if mode == "VALID":
        return replace(shape, begin=(0,) * dims, end=(0,) * dims)
    return shape if mode == "NOTSET" else _same(shape, x, mode == "SAME_UPPER")


def _same(shape: Window, x: Value, upper: bool) -> Window:
    totals = []
    for axis, (stride, span) in enumerate(zip(shape.stride, shape.spans(), strict=True), 2):
        whole = size(x, axis) if max(stride, span) > 1 else 1
        totals.append(max(0, (-(-whole // stride) - 1) * stride + span - whole))
    less = tuple(total // 2 for total in totals)
    more = tuple(total - total // 2 for total in totals)
    return replace(shape, begin=less if upper else more, end=more if upper else less)


def ceiled(shape: Window, x: Value) -> Window:
    """Padded more at the end: a last partial window counts if it starts before the end padding."""
    ends = []
    for axis, (span, stride, before, after) in enumerate(
        zip(shape.spans(), shape.stride, shape.begin, shape.end, strict=True), 2
    ):
        whole = size(x, axis)
        count = -(-(whole + before + after - span) // stride) + 1
        if (count - 1) * stride >= whole + before:
            count -= 1
        ends.append(max(after, (count - 1) * stride + span - whole - before))
    return replace(shape, end=tuple(ends))


def padded(x: Value, begin: Sequence[int], end: Sequence[int], fill: float = 0.0) -> Value:
    """Pad (or, with negative amounts, crop) the spatial axes."""
    for axis, (before, after) in enumerate(zip(begin, end, strict=True), 2):
        if before or after:
            x = constant_pad(x, axis, before, after, fill)
    return x
