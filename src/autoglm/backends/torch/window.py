"""The geometry that convolutions and pools share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from autoglm.backends.torch.op import Node


@dataclass(frozen=True, slots=True)
class Window:
    """A sliding window over the spatial axes; `end` is the padding that full windows need."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]

    @property
    def symmetric(self) -> bool:
        """Whether torch's one padding per axis can say it."""
        return self.begin == self.end

    def spans(self) -> tuple[int, ...]:
        """How far a window reaches, per axis."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))


def window(node: Node, x: Tensor, kernel: Sequence[int]) -> Window:
    """The window of this node on this input, with auto_pad worked out."""
    rank = x.ndim - 2
    stride = tuple(node["strides"] or [1] * rank)
    dilation = tuple(node["dilations"] or [1] * rank)
    pads = tuple(node["pads"] or [0] * (2 * rank))
    shape = Window(tuple(kernel), stride, dilation, pads[:rank], pads[rank:])
    mode = node["auto_pad"] or "NOTSET"
    if mode == "VALID":
        return Window(shape.kernel, stride, dilation, (0,) * rank, (0,) * rank)
    return shape if mode == "NOTSET" else _same(shape, x.shape[2:], mode == "SAME_UPPER")


def _same(shape: Window, sizes: Sequence[int], upper: bool) -> Window:
    spans = shape.spans()
    totals = [
        max(0, (-(-size // stride) - 1) * stride + span - size)
        for size, stride, span in zip(sizes, shape.stride, spans, strict=True)
    ]
    less = tuple(total // 2 for total in totals)
    more = tuple(total - total // 2 for total in totals)
    begin, end = (less, more) if upper else (more, less)
    return Window(shape.kernel, shape.stride, shape.dilation, begin, end)


def ceiled(shape: Window, sizes: Sequence[int]) -> Window:
    """Padded more at the end: a last partial window counts if it starts before the end padding."""
    ends = []
    for size, k, s, before, after in zip(
        sizes, shape.spans(), shape.stride, shape.begin, shape.end, strict=True
    ):
        room = size + before + after - k
        count = -(-room // s) + 1
        if (count - 1) * s >= size + before:
            count -= 1
        ends.append(max(after, (count - 1) * s + k - size - before))
    return Window(shape.kernel, shape.stride, shape.dilation, shape.begin, tuple(ends))


def padded(x: Tensor, begin: Sequence[int], end: Sequence[int], fill: float = 0.0) -> Tensor:
    """Pad (or, with negative amounts, crop) the spatial axes."""
    pairs = list(zip(begin, end, strict=True))
    flat = [n for pair in reversed(pairs) for n in pair]
    return F.pad(x, flat, value=fill) if any(flat) else x
