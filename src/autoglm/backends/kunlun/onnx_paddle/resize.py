"""Resize: per axis a gather, or a product with a matrix of weights worked out at build time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle

from .op import FLOATS, Node, Op, Table, Value, axis_of, back, constant, name_of, rank, size

Array = Any


@dataclass(frozen=True)
class Axis:
    """One axis to resize."""

    axis: int
    given: int
    size: int
    scale: float
    start: float = 0.0  # of the region, normalised
    end: float = 1.0


def _half_pixel_symmetric(x: Array, a: Axis) -> Array:
    adjustment = a.size / (a.given * a.scale)
    return a.given / 2 * (1 - adjustment) + (x + 0.5) / a.scale - 0.5


def _align_corners(x: Array, a: Axis) -> Array:
    length = a.given * a.scale  # not rounded down, as in ONNX's own cases
    return x * (a.given - 1) / (length - 1) if length != 1 else np.zeros_like(x)


def _crop(x: Array, a: Axis) -> Array:
    last = a.given - 1
    if a.size == 1:
        return np.full_like(x, 0.5 * (a.start + a.end) * last)
    return a.start * last + x * (a.end - a.start) * last / (a.size - 1)


_COORDINATES: dict[str, Callable[[Array, Axis], Array]] = {
    "half_pixel": lambda x, a: (x + 0.5) / a.scale - 0.5,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "pytorch_half_pixel": lambda x, a: (x + 0.5) / a.scale - 0.5 if a.size > 1 else x * 0,
    "align_corners": _align_corners,
    "asymmetric": lambda x, a: x / a.scale,
    "tf_half_pixel_for_nn": lambda x, a: (x + 0.5) / a.scale,
    "tf_crop_and_resize": _crop,
}
_NEAREST: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _tent(distance: Array, a: float) -> Array:
    return (1 - np.abs(distance)).clip(min=0)


def _cubic(distance: Array, a: float) -> Array:
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


_KERNELS = {"linear": (_tent, 1), "cubic": (_cubic, 2)}


def resize(node: Node, x: Value, roi: Any = None, scales: Any = None, extents: Any = None) -> Value:
    """Opset 11 on."""
    dims = rank(x)
    chosen = [axis_of(a, dims) for a in (node["axes"] or range(dims))]
    crop = node["coordinate_transformation_mode"] == "tf_crop_and_resize"
    region = roi if roi and crop else [0.0] * len(chosen) + [1.0] * len(chosen)
    axes = []
    for i, axis in enumerate(chosen):
        given = _given(x, axis, scales, extents, i)
        start, end = region[i], region[i + len(chosen)]
        axes.append((axis, given, start, end))
    return _apply(node, x, _sized(node, axes, scales, extents), crop)


def _given(x: Value, axis: int, scales: Any, extents: Any, i: int) -> int:
    # An axis of unknown size, such as the batch, may stay as it is.
    if scales and scales[i] == 1.0 and x.shape[axis] == -1:
        return 1
    return size(x, axis)


def _sized(node: Node, axes: list[tuple[int, int, float, float]], scales: Any, extents: Any) -> Any:
    if not extents:
        return [
            Axis(axis, given, math.floor(given * (end - start) * s), s, start, end)
            for (axis, given, start, end), s in zip(axes, scales, strict=True)
        ]
    ratios = [n / given for n, (_, given, _, _) in zip(extents, axes, strict=True)]
    policy = node["keep_aspect_ratio_policy"]
    if policy in ("not_larger", "not_smaller"):
        ratios = [(min if policy == "not_larger" else max)(ratios)] * len(ratios)
        extents = [
            math.floor(r * given + 0.5) for r, (_, given, _, _) in zip(ratios, axes, strict=True)
        ]
    return [
        Axis(axis, given, n, ratio, start, end)
        for (axis, given, start, end), n, ratio in zip(axes, extents, ratios, strict=True)
    ]


def _apply(node: Node, x: Value, axes: list[Axis], crop: bool) -> Value:
    axes = [
        a for a in axes
        if a.size != a.given or a.scale != 1.0 or (crop and (a.start, a.end) != (0.0, 1.0))
    ]  # fmt: skip
    if not axes:
        return paddle.assign(x)
    y = x if node["mode"] == "nearest" or name_of(x) in FLOATS else paddle.cast(x, "float64")
    masks = []
    for a in axes:
        place = _COORDINATES[node["coordinate_transformation_mode"] or "asymmetric"](
            np.arange(a.size, dtype=np.float64), a
        )
        masks.append((place < 0) | (place > a.given - 1))
        y = _nearest(node, y, a, place) if node["mode"] == "nearest" else _mixed(node, y, a, place)
    return back(_extrapolated(node, y, axes, masks) if crop else y, x)


def _nearest(node: Node, y: Value, a: Axis, place: Array) -> Value:
    index = _NEAREST[node["nearest_mode"] or "floor"](place).clip(0, a.given - 1)
    return paddle.index_select(y, constant(index.astype(np.int64)), a.axis)


def _mixed(node: Node, y: Value, a: Axis, place: Array) -> Value:
    """Every output place is a weighted sum of input places: a matrix product along the axis."""
    index, weights = _taps(node, place, a)
    matrix = np.zeros((a.size, a.given))
    np.add.at(matrix, (np.arange(a.size)[:, None], index), weights)
    held = paddle.cast(constant(matrix.astype(np.float32)), y.dtype)
    if a.axis == rank(y) - 2:
        return paddle.matmul(held, y)
    order = [i for i in range(rank(y)) if i != a.axis] + [a.axis]
    moved = paddle.transpose(y, order)
    moved = paddle.matmul(moved, held, False, True)
    return paddle.transpose(moved, [order.index(i) for i in range(rank(y))])


def _taps(node: Node, place: Array, a: Axis) -> tuple[Array, Array]:
    """Neighbours of each place, and their weights."""
    kernel, reach = _KERNELS[node["mode"]]
    squeeze = min(a.scale, 1.0) if node["antialias"] else 1.0
    radius = math.ceil(reach / squeeze)
    index = np.floor(place)[:, None] + np.arange(1 - radius, radius + 1)
    weights = kernel((index - place[:, None]) * squeeze, node["cubic_coeff_a"] or -0.75)
    if node["exclude_outside"]:
        weights = weights * ((index >= 0) & (index < a.given))
    if node["exclude_outside"] or node["antialias"]:
        weights = weights / weights.sum(1, keepdims=True)
    return index.clip(0, a.given - 1).astype(np.int64), weights


def _extrapolated(node: Node, y: Value, axes: list[Axis], masks: list[Array]) -> Value:
    for a, mask in zip(axes, masks, strict=True):
        shape = [-1 if i == a.axis else 1 for i in range(rank(y))]
        fill = paddle.full([], node["extrapolation_value"], name_of(y))
        y = paddle.where(constant(mask.reshape(shape)), fill, y)
    return y


def resize_10(node: Node, x: Value, scales: Any) -> Value:
    """Opset 10, and Upsample: asymmetric, floor."""
    axes = [
        Axis(i, given, math.floor(given * s), s)
        for i, s in enumerate(scales)
        for given in [_given(x, i, scales, None, i)]
    ]
    return _apply(node, x, axes, False)


def upsample_7(node: Node, x: Value) -> Value:
    """Scales as an attribute."""
    return resize_10(node, x, node["scales"])


TABLE: Table = {
    "Resize": {10: Op(resize_10, host=(1,)), 11: Op(resize, host=(1, 2, 3))},
    "Upsample": {7: Op(upsample_7), 9: Op(resize_10, host=(1,))},
}
