"""Shapes, joins, splits and fills: operators that move elements and compute nothing."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from autoglm.backends.torch.dtypes import to_tensor
from autoglm.backends.torch.op import Kind, Node, Op, Table, move
from autoglm.tensor.dtype import from_onnx


def reshape(node: Node, x: Tensor, shape: Any = None) -> Tensor:
    """0 keeps a dimension, unless allowzero."""
    sizes = list(node["shape"] if shape is None else shape)
    if not node["allowzero"]:
        sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    if -1 in sizes and x.numel() == 0:
        rest = math.prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = 0 if rest == 0 else x.numel() // rest
    return x.reshape(sizes)


def flatten(node: Node, x: Tensor) -> Tensor:
    """To two axes."""
    axis = node["axis"]
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def squeeze(node: Node, x: Tensor, axes: Any = None) -> Tensor:
    """Drop axes of size 1."""
    chosen = node["axes"] if axes is None else axes
    if chosen is None:
        return x.squeeze()
    chosen = [chosen] if isinstance(chosen, int) else chosen
    dropped = {axis % x.ndim for axis in chosen}
    wrong = [axis for axis in dropped if x.shape[axis] != 1]
    if wrong:
        raise ValueError(f"Squeeze of axis {wrong[0]}, whose size is {x.shape[wrong[0]]}, not 1")
    return x.reshape([size for axis, size in enumerate(x.shape) if axis not in dropped])


def unsqueeze(node: Node, x: Tensor, axes: Any = None) -> Tensor:
    """Insert axes of size 1; numbers are of the result."""
    chosen = node["axes"] if axes is None else axes
    chosen = [chosen] if isinstance(chosen, int) else chosen
    rank = x.ndim + len(chosen)
    for axis in sorted(axis % rank for axis in chosen):
        x = x.unsqueeze(axis)
    return x


def transpose(node: Node, x: Tensor) -> Tensor:
    """Reversed axes unless `perm`."""
    return x.permute(node["perm"] or list(range(x.ndim))[::-1])


def concat(node: Node, *xs: Tensor) -> Tensor:
    """Join on an axis."""
    axis = 1 if node["axis"] is None else node["axis"]
    if any(x.numel() == 0 for x in xs):  # torch.cat skips 1-D empties, which hides shape errors
        xs = tuple(x for x in xs if x.shape[axis]) or xs[:1]
    return torch.cat(xs, axis)


def split(node: Node, x: Tensor, sizes: Any = None) -> tuple[Tensor, ...]:
    """By sizes, or evenly with a smaller last piece."""
    axis = node["axis"]
    sizes = node["split"] if sizes is None else sizes
    if sizes is None:
        total, count = x.shape[axis], node["num_outputs"] or len(node.call.outputs)
        piece = -(-total // count)
        sizes = [max(0, min(piece, total - i * piece)) for i in range(count)]
    return tuple(torch.split(x, list(sizes), axis))


def slice_(
    node: Node, x: Tensor, starts: Any, ends: Any, axes: Any = None, steps: Any = None
) -> Tensor:
    """Negative steps walk backwards."""
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        x = _sliced(x, start, end, axis, step)
    return x


def slice_1(node: Node, x: Tensor) -> Tensor:
    """Limits as attributes."""
    return slice_(node, x, node["starts"], node["ends"], node["axes"])


def _sliced(x: Tensor, start: int, end: int, axis: int, step: int) -> Tensor:
    taken = range(*slice(start, _open_end(end, step), step).indices(x.shape[axis]))
    if step > 0:
        index: list[Any] = [slice(None)] * (axis % x.ndim)
        return x[(*index, slice(taken.start, max(taken.start, taken.stop), step))]
    return x.index_select(axis, torch.tensor(list(taken), dtype=torch.int64, device=x.device))


def _open_end(end: int, step: int) -> int | None:
    # ONNX writes "to the very beginning" of a backward slice as any number below -size.
    return None if step < 0 and end < -(1 << 31) else end


def expand(node: Node, x: Tensor, shape: Any) -> Tensor:
    """Broadcast in both directions."""
    return x.expand(torch.broadcast_shapes(x.shape, tuple(shape)))


def tile(node: Node, x: Tensor, repeats: Any) -> Tensor:
    """Repeat along every axis."""
    return x.repeat(repeats)


def tile_1(node: Node, x: Tensor, count: Any, axis: Any) -> Tensor:
    """Repeat along one axis."""
    repeats = [1] * x.ndim
    repeats[int(_scalar(axis))] = int(_scalar(count))
    return x.repeat(repeats)


def _scalar(value: Any) -> Any:
    while isinstance(value, (list, tuple)):
        value = value[0]
    return value


def shape_of(node: Node, x: Tensor) -> Tensor:
    """A part of the shape on request."""
    sizes = list(x.shape)[node["start"] or 0 : node["end"]]
    return torch.tensor(sizes, dtype=torch.int64, device=node.device)


def size_of(node: Node, x: Tensor) -> Tensor:
    """Number of elements."""
    return torch.tensor(x.numel(), dtype=torch.int64, device=node.device)


def constant_of_shape(node: Node, shape: Any) -> Tensor:
    """Zeros of float32 unless `value`."""
    value = node["value"]
    if value is None:
        return torch.zeros(shape, dtype=node.held("float32"), device=node.device)
    held = to_tensor(value).reshape(())
    return held.to(node.device).expand(shape).clone()


def range_(node: Node, start: Any, limit: Any, delta: Any) -> Tensor:
    """start, start + delta, ... before limit."""
    start, limit, delta = _scalar(start), _scalar(limit), _scalar(delta)
    count = max(math.ceil((limit - start) / delta), 0)
    whole = "int64" if isinstance(start, int) else "float32"  # where inference left it open
    held = node.held(node.call.outputs[0] or node.call.inputs[0] or whole)
    exact = torch.float64 if held.is_floating_point else torch.int64
    # On the CPU: few accelerators have float64.
    return (torch.arange(count, dtype=exact) * delta + start).to(held).to(node.device)


def eye_like(node: Node, x: Tensor) -> Tensor:
    """Ones on a diagonal."""
    dtype = node.held(from_onnx(node["dtype"])) if node["dtype"] else x.dtype
    rows, columns = x.shape
    row = torch.arange(rows, device=x.device)[:, None]
    column = torch.arange(columns, device=x.device)[None, :]
    return (column == row + node["k"]).to(dtype)


def trilu(node: Node, x: Tensor, k: Any = None) -> Tensor:
    """Upper or lower triangle."""
    diagonal = int(_scalar(k)) if k is not None else 0
    return torch.triu(x, diagonal) if node["upper"] else torch.tril(x, diagonal)


def depth_to_space(node: Node, x: Tensor) -> Tensor:
    """DCR or CRD order."""
    size = node["blocksize"]
    batch, depth, height, width = x.shape
    if node["mode"] == "CRD":
        blocks = x.reshape(batch, depth // size**2, size, size, height, width)
        blocks = blocks.permute(0, 1, 4, 2, 5, 3)
    else:
        blocks = x.reshape(batch, size, size, depth // size**2, height, width)
        blocks = blocks.permute(0, 3, 4, 1, 5, 2)
    return blocks.reshape(batch, depth // size**2, height * size, width * size)


def space_to_depth(node: Node, x: Tensor) -> Tensor:
    """Blocks to channels: DCR order (the only one before opset 27), or CRD."""
    size = node["blocksize"]
    batch, depth, height, width = x.shape
    blocks = x.reshape(batch, depth, height // size, size, width // size, size)
    order = (0, 1, 3, 5, 2, 4) if node["mode"] == "CRD" else (0, 3, 5, 1, 2, 4)
    return blocks.permute(order).reshape(batch, depth * size**2, height // size, width // size)


def pad(node: Node, x: Tensor, pads: Any, value: Tensor | None = None, axes: Any = None) -> Tensor:
    """Constant, reflect, edge or wrap; negative amounts crop first."""
    axes = list(range(x.ndim)) if axes is None else [axis % x.ndim for axis in axes]
    half = len(axes)
    mode = node["mode"]
    amounts = {axis: (pads[i], pads[i + half]) for i, axis in enumerate(axes)}
    if mode == "constant":
        fill = 0 if value is None else value.reshape(()).item()
        return constant_pad(x, amounts, fill)
    for axis, (before, after) in amounts.items():
        x = _pad_axis(x, axis, before, after, mode)
    return x


def constant_pad(x: Tensor, amounts: dict[int, tuple[int, int]], fill: Any) -> Tensor:
    """Pad each axis by (before, after); negative crops."""
    flat = [n for axis in range(x.ndim - 1, -1, -1) for n in amounts.get(axis, (0, 0))]
    if x.dtype is torch.bool:
        return F.pad(x.to(torch.uint8), flat, value=int(fill)).to(torch.bool)
    return F.pad(x, flat, value=fill) if any(flat) else x


def pad_2(node: Node, x: Tensor) -> Tensor:
    """Amounts and value as attributes."""
    pads = node["pads"] or node["paddings"]
    amounts = {axis: (pads[axis], pads[axis + x.ndim]) for axis in range(x.ndim)}
    if node["mode"] == "constant":
        return constant_pad(x, amounts, node["value"])
    for axis, (before, after) in amounts.items():
        x = _pad_axis(x, axis, before, after, node["mode"])
    return x


def _pad_axis(x: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    if before == after == 0:
        return x
    crop = (min(before, 0), min(after, 0))
    x = x.narrow(axis, -crop[0], x.shape[axis] + crop[0] + crop[1])
    size = x.shape[axis]
    before, after = max(before, 0), max(after, 0)
    place = torch.arange(-before, size + after, device=x.device)
    if mode == "edge":
        place = place.clamp(0, size - 1)
    elif mode == "wrap":
        place = place % size
    elif size > 1:
        period = 2 * (size - 1)
        place = place % period
        place = torch.where(place >= size, period - place, place)
    else:
        place = torch.zeros_like(place)
    return x.index_select(axis, place)


def center_crop_pad(node: Node, x: Tensor, shape: Any) -> Tensor:
    """Crop or pad with zeros around the centre."""
    axes = range(x.ndim) if node["axes"] is None else [axis % x.ndim for axis in node["axes"]]
    for axis, size in zip(axes, shape, strict=True):
        extra = size - x.shape[axis]
        if extra >= 0:
            before = extra // 2
        else:
            before = -((-extra) // 2)
        x = constant_pad(x, {axis: (before, extra - before)}, 0)
    return x


def reverse_sequence(node: Node, x: Tensor, lengths: Tensor) -> Tensor:
    """The first `length` steps of each batch entry, backwards."""
    time, batch = node["time_axis"], node["batch_axis"]
    steps = torch.arange(x.shape[time], device=x.device)[:, None]
    count = lengths[None, :]
    source = torch.where(steps < count, count - 1 - steps, steps)
    if time > batch:
        source = source.T
    shape = [x.shape[i] if i in (time, batch) else 1 for i in range(x.ndim)]
    return torch.gather(x, time, source.reshape(shape).expand(x.shape))


TABLE: Table = {
    "Reshape": move(reshape, (1,)),
    "Flatten": move(flatten),
    "Squeeze": move(squeeze, (1,)),
    "Unsqueeze": move(unsqueeze, (1,)),
    "Transpose": move(transpose),
    "Concat": move(concat),
    "Split": move(split, (1,)),
    "Slice": {1: move(slice_1), 10: move(slice_, (1, 2, 3, 4))},
    "Expand": move(expand, (1,)),
    "Tile": {1: move(tile_1, (1, 2)), 6: move(tile, (1,))},
    "Shape": move(shape_of),
    "Size": move(size_of),
    "ConstantOfShape": Op(constant_of_shape, host=(0,), kind=Kind.NATIVE),
    "Range": Op(range_, host=(0, 1, 2), high=True),
    "EyeLike": Op(eye_like),
    "Trilu": move(trilu, (1,)),
    "DepthToSpace": move(depth_to_space),
    "SpaceToDepth": move(space_to_depth),
    "Pad": {1: move(pad_2), 11: Op(pad, host=(1, 3))},
    "CenterCropPad": move(center_crop_pad, (1,)),
    "ReverseSequence": move(reverse_sequence),
}
