"""Sampling grids, regions, boxes, and columns to images."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from autoglm.backends.torch.op import Node, Op, Table
from autoglm.rewrite.program import Call

_MODES = {"linear": "bilinear", "cubic": "bicubic"}


def grid_sample(node: Node, x: Tensor, grid: Tensor) -> Tensor:
    """torch's own; the names of modes changed with opset 20."""
    mode = _MODES.get(node["mode"], node["mode"])
    corners = bool(node["align_corners"])
    if grid.dtype is not x.dtype:
        grid = grid.to(x.dtype)
    return F.grid_sample(x, grid, mode, node["padding_mode"], corners)


def check_grid_sample(call: Call) -> str:
    """torch samples two or three axes, by cubics only two."""
    rank = call.ranks[0]
    if rank is None or rank == 4:
        return ""
    if rank == 5 and "cubic" not in call.attributes["mode"]:
        return ""
    return f"PyTorch samples 2 spatial axes (or 3, not cubic); found {rank - 2}"


def affine_grid(node: Node, theta: Tensor, size: Any) -> Tensor:
    """torch's own."""
    return F.affine_grid(theta, size, bool(node["align_corners"]))


def roi_align(node: Node, x: Tensor, rois: Tensor, batches: Tensor) -> Tensor:
    """Each region read on a grid of points per bin, then averaged or maximised."""
    results = []
    for roi, batch in zip(rois.tolist(), batches.tolist(), strict=True):
        results.append(_one_roi(node, x[batch], roi))
    if results:
        return torch.stack(results)
    shape = (0, x.shape[1], node["output_height"], node["output_width"])
    return torch.zeros(shape, dtype=x.dtype, device=x.device)


def _one_roi(node: Node, image: Tensor, roi: list[float]) -> Tensor:
    half = node["coordinate_transformation_mode"] == "half_pixel"
    scale, shift = node["spatial_scale"], 0.5 if half else 0.0
    x1, y1, x2, y2 = (value * scale - shift for value in roi)
    least = 0.0 if half else 1.0  # without the half pixel, a region is at least one pixel
    ys = _bin_points(y1, max(y2 - y1, least), node["output_height"], node["sampling_ratio"])
    xs = _bin_points(x1, max(x2 - x1, least), node["output_width"], node["sampling_ratio"])
    corners = _corners(image, ys.to(image.device), xs.to(image.device))
    points = corners.sum(0) if node["mode"] == "avg" else corners.amax(0)
    height, width = node["output_height"], node["output_width"]
    bins = points.reshape(image.shape[0], height, -1, width, len(xs) // width)
    return bins.mean((2, 4)) if node["mode"] == "avg" else bins.amax((2, 4))


def _bin_points(start: float, length: float, bins: int, ratio: int) -> Tensor:
    count = ratio if ratio > 0 else max(math.ceil(length / bins), 1)
    step = length / bins
    bin_start = torch.arange(bins, dtype=torch.float64)[:, None] * step + start
    return (bin_start + (torch.arange(count, dtype=torch.float64) + 0.5) * step / count).reshape(-1)


def _corners(image: Tensor, ys: Tensor, xs: Tensor) -> Tensor:
    """The four weighted neighbours of every grid point, [4, C, y, x]; zero well outside."""
    y0, y1, wy = _neighbours(ys, image.shape[1])
    x0, x1, wx = _neighbours(xs, image.shape[2])
    values = []
    for y, y_weight in ((y0, wy[0]), (y1, wy[1])):
        for x, x_weight in ((x0, wx[0]), (x1, wx[1])):
            weight = (y_weight[:, None] * x_weight[None, :]).to(image.dtype)
            values.append(image[:, y][:, :, x] * weight)
    return torch.stack(values)


def _neighbours(place: Tensor, size: int) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    inside = (place >= -1) & (place <= size)
    place = place.clamp(0, size - 1)
    low = place.floor().clamp(max=size - 1)
    high = (low + 1).clamp(max=size - 1)
    upper = place - low
    return low.long(), high.long(), ((1 - upper) * inside, upper * inside)


def non_max_suppression(
    node: Node,
    boxes: Tensor,
    scores: Tensor,
    limit: Any = None,
    overlap: Any = None,
    least: Any = None,
) -> Tensor:
    """Greedy, per batch entry and class, best score first."""
    count, threshold, floor = _number(limit, 0), _number(overlap, 0.0), _number(least, None)
    corners = _to_corners(boxes.detach().cpu().double(), bool(node["center_point_box"]))
    host = scores.detach().cpu()
    chosen: list[list[int]] = []
    for batch in range(host.shape[0]):
        ious = _ious(corners[batch])
        for label in range(host.shape[1]):
            kept = _greedy(host[batch, label], ious, int(count), threshold, floor)
            chosen += [[batch, label, index] for index in kept]
    return torch.tensor(chosen, dtype=torch.int64, device=node.device).reshape(-1, 3)


def _number(value: Any, default: Any) -> Any:
    while isinstance(value, list):
        value = value[0] if value else None
    return default if value is None else value


def _to_corners(boxes: Tensor, centred: bool) -> Tensor:
    if centred:
        x, y, width, height = boxes.unbind(-1)
        low, high = (y - height / 2, x - width / 2), (y + height / 2, x + width / 2)
        return torch.stack([*low, *high], -1)
    first, second = boxes[..., :2], boxes[..., 2:]
    return torch.cat([torch.minimum(first, second), torch.maximum(first, second)], -1)


def _ious(boxes: Tensor) -> Tensor:
    low = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    union = area[:, None] + area[None, :] - shared
    return torch.where(union > 0, shared / union, torch.zeros_like(union))


def _greedy(
    scores: Tensor, ious: Tensor, count: int, threshold: float, floor: float | None
) -> list[int]:
    kept: list[int] = []
    for index in torch.argsort(scores, descending=True, stable=True).tolist():
        if len(kept) >= count or (floor is not None and scores[index].item() <= floor):
            break
        if not kept or not bool((ious[index, kept] > threshold).any()):
            kept.append(index)
    return kept


def col2im(node: Node, x: Tensor, image: Any, block: Any) -> Tensor:
    """Sum of blocks, each at its place, for any number of axes."""
    rank = len(image)
    stride = node["strides"] or [1] * rank
    dilation = node["dilations"] or [1] * rank
    pads = node["pads"] or [0] * (2 * rank)
    batch, channels = x.shape[0], x.shape[1] // math.prod(block)
    wide = [size + pads[i] + pads[i + rank] for i, size in enumerate(image)]
    flat = torch.zeros((), dtype=torch.int64)
    for i in range(rank):
        steps = (wide[i] - dilation[i] * (block[i] - 1) - 1) // stride[i] + 1
        tap = torch.arange(block[i]) * dilation[i]
        axis = tap[:, None] + torch.arange(steps)[None, :] * stride[i]
        shape = [1] * (2 * rank)
        shape[i], shape[rank + i] = axis.shape
        flat = flat * wide[i] + axis.reshape(shape)
    index = flat.reshape(-1).to(x.device).expand(batch * channels, -1)
    planes = torch.zeros(batch * channels, math.prod(wide), dtype=x.dtype, device=x.device)
    planes = planes.scatter_add(1, index, x.reshape(batch * channels, -1))
    result = planes.reshape(batch, channels, *wide)
    for i in range(rank):
        result = result.narrow(2 + i, pads[i], image[i])
    return result


def max_roi_pool(node: Node, x: Tensor, rois: Tensor) -> Tensor:
    """Maximum of each bin of each region, on whole pixels."""
    height, width = node["pooled_shape"]
    results = []
    for batch, *roi in rois.tolist():
        x1, y1, x2, y2 = (math.floor(v * node["spatial_scale"] + 0.5) for v in roi)
        rows = _spans(y1, max(y2 - y1 + 1, 1), height, x.shape[2])
        columns = _spans(x1, max(x2 - x1 + 1, 1), width, x.shape[3])
        image = x[int(batch)]
        cells = [_cell(image, row, column) for row in rows for column in columns]
        results.append(torch.stack(cells, -1).reshape(-1, height, width))
    return torch.stack(results)


def _spans(start: int, length: int, bins: int, size: int) -> list[tuple[int, int]]:
    step = length / bins
    edges = [(math.floor(i * step) + start, math.ceil((i + 1) * step) + start) for i in range(bins)]
    return [(min(max(a, 0), size), min(max(b, 0), size)) for a, b in edges]


def _cell(image: Tensor, row: tuple[int, int], column: tuple[int, int]) -> Tensor:
    part = image[:, row[0] : row[1], column[0] : column[1]]
    return part.amax((1, 2)) if part.numel() else torch.zeros_like(image[:, 0, 0])


TABLE: Table = {
    "GridSample": Op(grid_sample, check=check_grid_sample),
    "AffineGrid": Op(affine_grid, host=(1,)),
    "RoiAlign": Op(roi_align, high=True),
    "MaxRoiPool": Op(max_roi_pool, high=True),
    "NonMaxSuppression": Op(non_max_suppression, host=(2, 3, 4), high=True),
    "Col2Im": Op(col2im, host=(1, 2)),
}
