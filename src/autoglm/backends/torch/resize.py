"""Resize: per axis a weighted sum of gathered neighbours; torch's kernel where it agrees."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from autoglm.backends.torch.op import Node, Op, Table


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis to resize."""

    axis: int
    given: int
    size: int
    scale: float
    start: float = 0.0  # of the region, normalised
    end: float = 1.0


def _half_pixel(x: Tensor, a: Axis) -> Tensor:
    return (x + 0.5) / a.scale - 0.5


def _half_pixel_symmetric(x: Tensor, a: Axis) -> Tensor:
    adjustment = a.size / (a.given * a.scale)
    return a.given / 2 * (1 - adjustment) + (x + 0.5) / a.scale - 0.5


def _pytorch_half_pixel(x: Tensor, a: Axis) -> Tensor:
    return _half_pixel(x, a) if a.size > 1 else torch.zeros_like(x)


def _align_corners(x: Tensor, a: Axis) -> Tensor:
    length = a.given * a.scale  # not rounded down, as in ONNX's own cases
    return x * (a.given - 1) / (length - 1) if length != 1 else torch.zeros_like(x)


def _asymmetric(x: Tensor, a: Axis) -> Tensor:
    return x / a.scale


def _tf_half_pixel(x: Tensor, a: Axis) -> Tensor:
    return (x + 0.5) / a.scale


def _tf_crop(x: Tensor, a: Axis) -> Tensor:
    last = a.given - 1
    if a.size == 1:
        return torch.full_like(x, 0.5 * (a.start + a.end) * last)
    return a.start * last + x * (a.end - a.start) * last / (a.size - 1)


_COORDINATES: dict[str, Callable[[Tensor, Axis], Tensor]] = {
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "pytorch_half_pixel": _pytorch_half_pixel,
    "align_corners": _align_corners,
    "asymmetric": _asymmetric,
    "tf_half_pixel_for_nn": _tf_half_pixel,
    "tf_crop_and_resize": _tf_crop,
}
_NEAREST: dict[str, Callable[[Tensor], Tensor]] = {
    "round_prefer_floor": lambda x: torch.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: torch.floor(x + 0.5),
    "floor": torch.floor,
    "ceil": torch.ceil,
}


def _tent(distance: Tensor, a: float) -> Tensor:
    return (1 - distance.abs()).clamp(min=0)


def _cubic(distance: Tensor, a: float) -> Tensor:
    d = distance.abs()
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))


_KERNELS = {"linear": (_tent, 1), "cubic": (_cubic, 2)}


def _axes(node: Node, x: Tensor, roi: Any, scales: Any, sizes: Any) -> list[Axis]:
    chosen = [a % x.ndim for a in (node["axes"] or range(x.ndim))]
    region = roi if roi and node["coordinate_transformation_mode"] == "tf_crop_and_resize" else None
    given = [x.shape[a] for a in chosen]
    if sizes:
        scales, sizes = _from_sizes(node["keep_aspect_ratio_policy"], given, sizes)
    result = []
    for i, axis in enumerate(chosen):
        start, end = (region[i], region[i + len(chosen)]) if region else (0.0, 1.0)
        size = sizes[i] if sizes else math.floor(given[i] * (end - start) * scales[i])
        result.append(Axis(axis, given[i], size, scales[i], start, end))
    return result


def _from_sizes(policy: str | None, given: list[int], sizes: Any) -> tuple[list[float], list[int]]:
    ratios = [size / g for size, g in zip(sizes, given, strict=True)]
    if policy not in ("not_larger", "not_smaller"):
        return ratios, list(sizes)
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    return [scale] * len(given), [math.floor(scale * g + 0.5) for g in given]


def resize(node: Node, x: Tensor, roi: Any = None, scales: Any = None, sizes: Any = None) -> Tensor:
    """Opset 11 on."""
    axes = [a for a in _axes(node, x, roi, scales, sizes) if _changes(node, a)]
    if not axes:
        return x
    mode = node["mode"]
    if _by_torch(node, x, axes):
        return _interpolated(node, x, axes)
    if mode == "nearest":
        return _nearest(node, x, axes)
    return _weighted(node, x, axes)


def _changes(node: Node, a: Axis) -> bool:
    crop = node["coordinate_transformation_mode"] == "tf_crop_and_resize"
    return a.size != a.given or a.scale != 1.0 or (crop and (a.start, a.end) != (0.0, 1.0))


def resize_10(node: Node, x: Tensor, scales: Any) -> Tensor:
    """Opset 10, and Upsample: asymmetric, floor."""
    axes = [
        Axis(i, g, math.floor(g * s), s)
        for i, (g, s) in enumerate(zip(x.shape, scales, strict=True))
    ]
    axes = [a for a in axes if a.scale != 1.0]
    if not axes:
        return x
    return _nearest(node, x, axes) if node["mode"] == "nearest" else _weighted(node, x, axes)


def upsample_7(node: Node, x: Tensor) -> Tensor:
    """Scales as an attribute."""
    return resize_10(node, x, node["scales"])


def _by_torch(node: Node, x: Tensor, axes: list[Axis]) -> bool:
    where = node["coordinate_transformation_mode"]
    spatial = x.ndim in (3, 4, 5) and min(a.axis for a in axes) >= 2
    exact = all(a.size == a.given * a.scale for a in axes)
    if not spatial or not exact or node["antialias"] or not x.dtype.is_floating_point:
        return False
    if node["mode"] == "nearest":
        return where == "asymmetric" and node["nearest_mode"] == "floor" and _integral(axes)
    return node["mode"] == "linear" and where in ("half_pixel", "align_corners")


def _integral(axes: list[Axis]) -> bool:
    return all(a.scale == int(a.scale) for a in axes)


def _interpolated(node: Node, x: Tensor, axes: list[Axis]) -> Tensor:
    sizes = list(x.shape[2:])
    for a in axes:
        sizes[a.axis - 2] = a.size
    if node["mode"] == "nearest":
        return F.interpolate(x, sizes, mode="nearest")
    mode = {3: "linear", 4: "bilinear", 5: "trilinear"}[x.ndim]
    corners = node["coordinate_transformation_mode"] == "align_corners"
    return F.interpolate(x, sizes, mode=mode, align_corners=corners)


def _coordinates(node: Node, a: Axis) -> Tensor:
    """Where each output place lies in the input; worked out on the CPU in float64."""
    mode = node["coordinate_transformation_mode"] or "asymmetric"
    return _COORDINATES[mode](torch.arange(a.size, dtype=torch.float64), a)


def _nearest(node: Node, x: Tensor, axes: list[Axis]) -> Tensor:
    round_to = _NEAREST[node["nearest_mode"] or "floor"]
    outside = []
    for a in axes:
        place = _coordinates(node, a)
        outside.append((place < 0) | (place > a.given - 1))
        index = round_to(place).clamp(0, a.given - 1).long().to(x.device)
        x = x.index_select(a.axis, index)
    return _extrapolated(node, x, axes, outside)


def _weighted(node: Node, x: Tensor, axes: list[Axis]) -> Tensor:
    y = x if x.dtype.is_floating_point else x.double()
    outside = []
    for a in axes:
        place = _coordinates(node, a)
        outside.append((place < 0) | (place > a.given - 1))
        index, weights = _taps(node, place, a)
        flat = y.index_select(a.axis, index.reshape(-1).to(x.device))
        shape = [*y.shape[: a.axis], *index.shape, *y.shape[a.axis + 1 :]]
        column = weights.to(y.dtype).to(x.device)
        column = column.reshape(*weights.shape, *[1] * (y.ndim - a.axis - 1))
        y = (flat.reshape(shape) * column).sum(a.axis + 1)
    return _extrapolated(node, y, axes, outside).to(x.dtype)


def _taps(node: Node, place: Tensor, a: Axis) -> tuple[Tensor, Tensor]:
    """Neighbours of each place, and their weights."""
    kernel, reach = _KERNELS[node["mode"]]
    squeeze = min(a.scale, 1.0) if node["antialias"] else 1.0
    radius = math.ceil(reach / squeeze)
    offsets = torch.arange(1 - radius, radius + 1)
    index = torch.floor(place)[:, None] + offsets
    weights = kernel((index - place[:, None]) * squeeze, node["cubic_coeff_a"] or -0.75)
    if node["exclude_outside"]:
        weights = weights * ((index >= 0) & (index < a.given))
    if node["exclude_outside"] or node["antialias"]:
        weights = weights / weights.sum(1, keepdim=True)
    return index.clamp(0, a.given - 1).long(), weights


def _extrapolated(node: Node, y: Tensor, axes: list[Axis], outside: list[Tensor]) -> Tensor:
    if node["coordinate_transformation_mode"] != "tf_crop_and_resize":
        return y
    for a, mask in zip(axes, outside, strict=True):
        shape = [-1 if axis == a.axis else 1 for axis in range(y.ndim)]
        y = y.masked_fill(mask.reshape(shape).to(y.device), node["extrapolation_value"])
    return y


TABLE: Table = {
    "Resize": {10: Op(resize_10, host=(1,)), 11: Op(resize, host=(1, 2, 3))},
    "Upsample": {7: Op(upsample_7), 9: Op(resize_10, host=(1,))},
}
