"""Moving elements of any dtype: NumPy does not mind strings, fp8 or 4-bit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from autoglm.backends.numpy.op import Array, Op, Table, listed, plain, scalar
from autoglm.rewrite.program import Call


def reshape(call: Call, x: Array, shape: Array) -> Array:
    """0 keeps a dimension, unless allowzero."""
    sizes = listed(shape)
    if not call["allowzero"]:
        sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    return x.reshape(sizes)


def flatten(call: Call, x: Array) -> Array:
    """To two axes."""
    axis = call["axis"] + (x.ndim if call["axis"] < 0 else 0)
    return x.reshape(math.prod(x.shape[:axis]), -1) if x.size else x.reshape(_two(x, axis))


def _two(x: Array, axis: int) -> tuple[int, int]:
    return math.prod(x.shape[:axis]), math.prod(x.shape[axis:])


def squeeze(call: Call, x: Array, axes: Any = None) -> Array:
    """Drop axes of size 1."""
    chosen = call["axes"] if axes is None else listed(axes)
    return x.squeeze() if chosen is None else x.squeeze(tuple(chosen))


def unsqueeze(call: Call, x: Array, axes: Any = None) -> Array:
    """Insert axes of size 1."""
    return np.expand_dims(x, tuple(call["axes"] if axes is None else listed(axes)))


def transpose(call: Call, x: Array) -> Array:
    """Reversed axes unless `perm`."""
    return x.transpose(call["perm"])


def concat(call: Call, *xs: Array) -> Array:
    """Join on an axis."""
    return np.concatenate(xs, 1 if call["axis"] is None else call["axis"])


def split(call: Call, x: Array, sizes: Any = None) -> tuple[Array, ...]:
    """By sizes, or evenly with a smaller last piece."""
    axis = call["axis"]
    given = call["split"] if sizes is None else listed(sizes)
    if given is None:
        piece = -(-x.shape[axis] // len(call.outputs))
        return tuple(np.split(x, [piece * (i + 1) for i in range(len(call.outputs) - 1)], axis))
    return tuple(np.split(x, np.cumsum(given)[:-1], axis))


def slice_(
    call: Call, x: Array, starts: Array, ends: Array, axes: Any = None, steps: Any = None
) -> Array:
    """Negative steps walk backwards."""
    count = len(listed(starts))
    chosen = range(count) if axes is None else listed(axes)
    strides = [1] * count if steps is None else listed(steps)
    place: list[Any] = [slice(None)] * x.ndim
    for start, end, axis, step in zip(listed(starts), listed(ends), chosen, strides, strict=True):
        # "To the very beginning" of a backward slice is any end below -size.
        place[axis] = slice(start, None if step < 0 and end < -x.shape[axis] else end, step)
    return np.asarray(x[tuple(place)])


def gather(call: Call, x: Array, index: Array) -> Array:
    """Whole slices along an axis."""
    return np.asarray(np.take(x, index, call["axis"]))


def gather_elements(call: Call, x: Array, index: Array) -> Array:
    """Single elements along an axis."""
    axis = call["axis"] % x.ndim
    wrapped = np.where(index < 0, index + x.shape[axis], index)
    place: list[Any] = list(np.indices(index.shape, sparse=True))
    place[axis] = wrapped
    return np.asarray(x[tuple(place)])


def expand(call: Call, x: Array, shape: Array) -> Array:
    """Broadcast in both directions."""
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(listed(shape))))


def tile(call: Call, x: Array, repeats: Array) -> Array:
    """Repeat along every axis."""
    return np.tile(x, listed(repeats))


def shape_of(call: Call, x: Array) -> Array:
    """A part of the shape on request."""
    return np.array(x.shape[call["start"] or 0 : call["end"]], np.int64)


def size_of(call: Call, x: Array) -> Array:
    """Number of elements."""
    return np.array(x.size, np.int64)


def constant_of_shape(call: Call, shape: Array) -> Array:
    """Zeros of float32 unless `value`."""
    value = np.zeros(1, np.float32) if call["value"] is None else call["value"]
    return np.full(listed(shape), value.reshape(())[()], value.dtype)


def pad(call: Call, x: Array, pads: Array, value: Any = None, axes: Any = None) -> Array:
    """A constant around; negative amounts crop."""
    chosen = [a % x.ndim for a in (range(x.ndim) if axes is None else listed(axes))]
    amounts = listed(pads)
    fill = x.dtype.type(0) if value is None else np.asarray(value).reshape(())[()]
    for i, axis in enumerate(chosen):
        before, after = amounts[i], amounts[i + len(chosen)]
        x = np.take(x, np.arange(max(-before, 0), x.shape[axis] - max(-after, 0)), axis)
        x = np.concatenate([_filled(x, axis, before, fill), x, _filled(x, axis, after, fill)], axis)
    return x


def _filled(x: Array, axis: int, count: int, fill: Any) -> Array:
    shape = (*x.shape[:axis], max(count, 0), *x.shape[axis + 1 :])
    return np.full(shape, fill, x.dtype)


def check_pad(call: Call) -> str:
    """Only constants."""
    mode = call.attributes["mode"]
    return "" if mode == "constant" else f"only mode constant has a kernel, found {mode}"


def trilu(call: Call, x: Array, k: Any = None) -> Array:
    """Upper or lower triangle."""
    diagonal = 0 if k is None else int(scalar(k))
    return np.triu(x, diagonal) if call["upper"] else np.tril(x, diagonal)


def tensor_scatter(call: Call, cache: Array, update: Array, starts: Any = None) -> Array:
    """Write `update` into each batch entry's cache from its start on."""
    axis = call["axis"] % cache.ndim
    result = cache.copy()
    begins = np.zeros(len(cache), np.int64) if starts is None else starts
    for entry, new, begin in zip(result, update, begins.tolist(), strict=True):
        place = np.arange(begin, begin + new.shape[axis - 1])
        if call["mode"] == "circular":
            place = place % entry.shape[axis - 1]
        np.moveaxis(entry, axis - 1, 0)[place] = np.moveaxis(new, axis - 1, 0)
    return result


def compress(call: Call, x: Array, condition: Array) -> Array:
    """Slices whose condition holds."""
    if call["axis"] is None:
        return np.asarray(x.reshape(-1)[np.flatnonzero(condition)])
    return np.asarray(np.take(x, np.flatnonzero(condition), call["axis"]))


def one_hot(call: Call, index: Array, depth: Array, values: Array) -> Array:
    """values[1] at the index, values[0] elsewhere and where the index is out of range."""
    count = int(scalar(depth))
    axis = call["axis"] % (index.ndim + 1)
    whole = index.astype(np.int64)
    whole = np.expand_dims(np.where(whole < 0, whole + count, whole), axis)
    places = np.arange(count).reshape([-1 if i == axis else 1 for i in range(whole.ndim)])
    return np.asarray(np.where(whole == places, values[1], values[0]))


TABLE: Table = {
    "Identity": plain(lambda x: x),
    "Reshape": {5: Op(reshape)},
    "Flatten": Op(flatten),
    "Squeeze": Op(squeeze),
    "Unsqueeze": Op(unsqueeze),
    "Transpose": Op(transpose),
    "Concat": Op(concat),
    "Split": {2: Op(split)},
    "Slice": {10: Op(slice_)},
    "Gather": Op(gather),
    "GatherElements": Op(gather_elements),
    "Expand": Op(expand),
    "Tile": {6: Op(tile)},
    "Shape": Op(shape_of),
    "Size": Op(size_of),
    "ConstantOfShape": Op(constant_of_shape),
    "Pad": {11: Op(pad, check_pad)},
    "Trilu": Op(trilu),
    "Where": plain(lambda condition, x, y: np.where(condition, x, y)),
    "TensorScatter": Op(tensor_scatter),
    "Compress": Op(compress),
    "OneHot": Op(one_hot),
}
