"""Deformable convolution."""

from __future__ import annotations

from typing import Any

import numpy as np

from autoglm.backends.numpy.op import Array, Op, Table
from autoglm.rewrite.program import Call


def deform_conv(
    call: Call, x: Array, weight: Array, offset: Array, bias: Any = None, mask: Any = None
) -> Array:
    """Each kernel tap reads at its own shifted place, bilinearly, zero outside."""
    batch, channels = x.shape[:2]
    rows, columns = offset.shape[2:]
    kernel = weight.shape[2:]
    taps = kernel[0] * kernel[1]
    groups, parts = call["group"] or 1, call["offset_group"] or 1
    ys, xs = _places(call, kernel, offset.reshape(batch, parts, taps, 2, rows, columns))
    planes = x.reshape(batch, parts, channels // parts, *x.shape[2:])
    values = _bilinear(planes, ys, xs)
    if mask is not None:
        values = values * mask.reshape(batch, parts, 1, taps, rows, columns)
    values = values.reshape(batch, groups, channels // groups, taps, rows, columns)
    filters = weight.reshape(groups, -1, channels // groups, taps)
    result = np.einsum("bgcthw,gmct->bgmhw", values, filters)
    result = result.reshape(batch, -1, rows, columns)
    return np.asarray(result if bias is None else result + bias[:, None, None], x.dtype)


def _places(call: Call, kernel: tuple[int, ...], shifts: Array) -> tuple[Array, Array]:
    strides, dilations = call["strides"] or (1, 1), call["dilations"] or (1, 1)
    pads = call["pads"] or (0, 0, 0, 0)
    rows, columns = shifts.shape[-2:]
    tap = np.arange(kernel[0] * kernel[1])[:, None, None]
    y = np.arange(rows)[:, None] * strides[0] - pads[0] + tap // kernel[1] * dilations[0]
    x = np.arange(columns) * strides[1] - pads[1] + tap % kernel[1] * dilations[1]
    return y + shifts[:, :, :, 0], x + shifts[:, :, :, 1]


def _bilinear(planes: Array, ys: Array, xs: Array) -> Array:
    """planes [b, g, c, h, w] read at ys, xs [b, g, ...]."""
    height, width = planes.shape[-2:]
    y0, x0 = np.floor(ys), np.floor(xs)
    entry = np.arange(planes.shape[0])[:, None, None, None, None]
    part = np.arange(planes.shape[1])[None, :, None, None, None]
    total: Any = 0.0
    for y in (y0, y0 + 1):
        for x in (x0, x0 + 1):
            weight = (1 - np.abs(ys - y)) * (1 - np.abs(xs - x))
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            row = np.clip(y, 0, height - 1).astype(np.int64)
            column = np.clip(x, 0, width - 1).astype(np.int64)
            taken = planes[entry, part, :, row, column]  # channels come last
            total = total + np.moveaxis(taken, -1, 2) * (weight * inside)[:, :, None]
    return np.asarray(total)


TABLE: Table = {"DeformConv": Op(deform_conv)}
