"""Sliding windows: p-norm pools, unpooling, columns to images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from autoglm.backends.numpy.op import Array, Op, Table, listed
from autoglm.rewrite.program import Call


def _geometry(call: Call, x: Array) -> tuple[list[int], list[int], list[tuple[int, int]]]:
    """Strides, dilations and (before, after) pads; a last partial window counts with ceil_mode."""
    kernel = call["kernel_shape"]
    rank = len(kernel)
    strides = list(call["strides"] or [1] * rank)
    dilations = list(call["dilations"] or [1] * rank)
    pads = call["pads"] or [0] * (2 * rank)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    amounts = []
    for i, size in enumerate(x.shape[2:]):
        before, after = _pads(call, size, strides[i], spans[i], (pads[i], pads[i + rank]))
        if call["ceil_mode"]:
            count = -(-(size + before + after - spans[i]) // strides[i]) + 1
            count -= (count - 1) * strides[i] >= size + before
            after = max(after, (count - 1) * strides[i] + spans[i] - size - before)
        amounts.append((before, after))
    return strides, dilations, amounts


def _pads(call: Call, size: int, stride: int, span: int, given: tuple[int, int]) -> tuple[int, int]:
    mode = call["auto_pad"] or "NOTSET"
    if mode == "NOTSET":
        return given
    if mode == "VALID":
        return 0, 0
    total = max(0, (-(-size // stride) - 1) * stride + span - size)
    less, more = total // 2, total - total // 2
    return (less, more) if mode == "SAME_UPPER" else (more, less)


def windows(call: Call, x: Array, fill: Any) -> Array:
    """Every window's elements in the last axes."""
    strides, dilations, amounts = _geometry(call, x)
    kernel = call["kernel_shape"]
    wide = np.pad(x, [(0, 0), (0, 0), *amounts], constant_values=fill)
    spans = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    axes = tuple(range(2, x.ndim))
    view = np.lib.stride_tricks.sliding_window_view(wide, spans, axes)
    steps = [slice(None, None, s) for s in strides]
    taps = [slice(None, None, d) for d in dilations]
    return view[(slice(None), slice(None), *steps, *taps)]


def lp_pool(call: Call, x: Array) -> Array:
    """The p-norm of each window."""
    p = call["p"]
    rank = x.ndim - 2
    sums = (np.abs(windows(call, x, 0)) ** p).sum(tuple(range(-rank, 0)))
    return np.asarray(sums ** (1 / p), x.dtype)


def global_lp_pool(call: Call, x: Array) -> Array:
    """The p-norm of each plane."""
    p = call["p"]
    sums = (np.abs(x) ** p).sum(tuple(range(2, x.ndim)), keepdims=True)
    return np.asarray(sums ** (1 / p), x.dtype)


def max_unpool(call: Call, x: Array, places: Array, shape: Any = None) -> Array:
    """Put each value back to its place, zeros elsewhere."""
    kernel = call["kernel_shape"]
    rank = len(kernel)
    strides, pads = call["strides"] or [1] * rank, call["pads"] or [0] * (2 * rank)
    inner = [
        (x.shape[2 + i] - 1) * strides[i] - pads[i] - pads[i + rank] + kernel[i]
        for i in range(rank)
    ]
    pooled = (*x.shape[:2], *inner)
    result = np.zeros(pooled if shape is None else tuple(listed(shape)), x.dtype)
    # Places count in the unpooled shape; a larger output keeps the coordinates.
    result[np.unravel_index(places.reshape(-1), pooled)] = x.reshape(-1)
    return result


def col2im(call: Call, x: Array, image: Array, block: Array) -> Array:
    """Sum of blocks, each at its place, for any number of axes."""
    sizes, kernel = listed(image), listed(block)
    rank = len(sizes)
    strides, dilations = call["strides"] or [1] * rank, call["dilations"] or [1] * rank
    pads = call["pads"] or [0] * (2 * rank)
    wide = [size + pads[i] + pads[i + rank] for i, size in enumerate(sizes)]
    steps = [(wide[i] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1 for i in range(rank)]
    channels = x.shape[1] // math.prod(kernel)
    blocks = x.reshape(x.shape[0], channels, math.prod(kernel), *steps)
    result = np.zeros((x.shape[0], channels, *wide), x.dtype)
    for number, tap in enumerate(np.ndindex(*kernel)):
        begins = [t * d for t, d in zip(tap, dilations, strict=True)]
        place = [slice(b, b + s * n, s) for b, s, n in zip(begins, strides, steps, strict=True)]
        result[(slice(None), slice(None), *place)] += blocks[:, :, number]
    inside = [slice(pads[i], pads[i] + sizes[i]) for i in range(rank)]
    return result[(slice(None), slice(None), *inside)]


TABLE: Table = {
    "LpPool": Op(lp_pool),
    "GlobalLpPool": Op(global_lp_pool),
    "MaxUnpool": Op(max_unpool),
    "Col2Im": Op(col2im),
}
