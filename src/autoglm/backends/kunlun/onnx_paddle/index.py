"""Gather, scatter, search and selection."""

from __future__ import annotations

from typing import Any

import paddle

from .op import Node, Op, Refused, Table, Value, axis_of, rank, scalar, size, sizes


def _wrapped(index: Value, x: Value, axis: int) -> Value:
    """Indices as int64, counted from the front."""
    index = paddle.cast(index, "int64")
    if x.shape[axis] != -1:
        whole: Any = paddle.full([], int(x.shape[axis]), "int64")
    else:
        whole = paddle.cast(paddle.slice(paddle.shape(x), [0], [axis], [axis + 1]), "int64")
        whole = paddle.reshape(whole, [])
    return paddle.where(index < paddle.zeros_like(index), index + whole, index)


def gather(node: Node, x: Value, index: Value) -> Value:
    """Whole slices along an axis."""
    axis = axis_of(node["axis"], rank(x))
    index = _wrapped(index, x, axis)
    if rank(index) == 1:
        return paddle.gather(x, index, axis)
    taken = paddle.gather(x, paddle.reshape(index, [-1]), axis)
    if rank(index) == 0:
        return paddle.squeeze(taken, [axis])
    shape = [*map(int, x.shape[:axis]), *map(int, index.shape), *map(int, x.shape[axis + 1 :])]
    if shape.count(-1) > 1:
        shape = paddle.concat([
            paddle.shape(x)[:axis], paddle.shape(index), paddle.shape(x)[axis + 1 :],
        ])  # fmt: skip
    return paddle.reshape(taken, shape)


def gather_elements(node: Node, x: Value, index: Value) -> Value:
    """Single elements along an axis."""
    axis = axis_of(node["axis"], rank(x))
    return paddle.take_along_axis(x, _wrapped(index, x, axis), axis, broadcast=False)


def _tuples(index: Value, x: Value) -> Value:
    """Index tuples counted from the front."""
    depth = size(index, -1)
    shape = paddle.to_tensor([int(n) for n in x.shape[:depth]], dtype="int64")
    if -1 in x.shape[:depth]:
        shape = paddle.slice(paddle.cast(paddle.shape(x), "int64"), [0], [0], [depth])
    index = paddle.cast(index, "int64")
    return paddle.where(index < paddle.zeros_like(index), index + shape, index)


def gather_nd(node: Node, x: Value, index: Value) -> Value:
    """Slices by index tuples."""
    if node["batch_dims"]:
        raise Refused(f"takes batch_dims=0; found {node['batch_dims']}")
    return paddle.gather_nd(x, _tuples(index, x))


_REDUCE = {"none": "assign", "add": "add", "mul": "multiply", "max": "amax", "min": "amin"}


def scatter_elements(node: Node, x: Value, index: Value, updates: Value) -> Value:
    """Single elements along an axis; equal places combine by `reduction`."""
    axis = axis_of(node["axis"], rank(x))
    how = _REDUCE[node["reduction"] or "none"]
    index = _wrapped(index, x, axis)
    return paddle.put_along_axis(x, index, updates, axis, how, broadcast=False)


def scatter_nd(node: Node, x: Value, index: Value, updates: Value) -> Value:
    """Slices by index tuples; without a reduction, equal places are not defined."""
    how = node["reduction"] or "none"
    if how == "add":
        return paddle.scatter_nd_add(x, _tuples(index, x), updates)
    depth = size(index, -1)
    shape, tail = sizes(x), sizes(x)[depth:]
    flat = _offsets(_tuples(index, x), shape[:depth])
    rows = 1
    for n in shape[:depth]:
        rows *= n
    width = 1
    for n in tail:
        width *= n
    places = paddle.expand(paddle.reshape(flat, [-1, 1]), [-1, width])
    target = paddle.reshape(x, [rows, width])
    values = paddle.reshape(updates, [-1, width])
    done = paddle.put_along_axis(target, places, values, 0, _REDUCE[how], broadcast=False)
    return paddle.reshape(done, shape)


def _offsets(index: Value, shape: list[int]) -> Value:
    strides = []
    for i in range(len(shape)):
        stride = 1
        for n in shape[i + 1 :]:
            stride *= n
        strides.append(stride)
    return paddle.sum(index * paddle.to_tensor(strides, dtype="int64"), -1)


def compress(node: Node, x: Value, condition: Value) -> Value:
    """Slices whose condition holds."""
    axis = node["axis"]
    if axis is None:
        x, axis = paddle.reshape(x, [-1]), 0
    places = paddle.reshape(paddle.nonzero(condition), [-1])
    return paddle.index_select(x, places, axis_of(axis, rank(x)))


def nonzero(node: Node, x: Value) -> Value:
    """Coordinates of what is not zero, one row per axis."""
    return paddle.transpose(paddle.nonzero(x), [1, 0])


def one_hot(node: Node, index: Value, depth: Any, values: Value) -> Value:
    """values[1] at the index, values[0] elsewhere and where the index is out of range."""
    depth = int(scalar(depth))
    axis = axis_of(node["axis"], rank(index) + 1)
    index = paddle.cast(index, "int64")
    below = paddle.cast(index < paddle.zeros_like(index), "int64")
    index = paddle.unsqueeze(index + paddle.scale(below, depth), axis)
    shape = [-1 if i == axis else 1 for i in range(rank(index))]
    places = paddle.reshape(paddle.arange(depth, dtype="int64"), shape)
    off, on = (paddle.reshape(paddle.slice(values, [0], [i], [i + 1]), []) for i in (0, 1))
    return paddle.where(paddle.equal(index, places), on, off)


def top_k(node: Node, x: Value, k: Any) -> tuple[Value, Value]:
    """Of equal values the lower index comes first."""
    count = int(scalar(k))
    return _top(x, count, axis_of(node["axis"], rank(x)), node["largest"] != 0)


def top_k_1(node: Node, x: Value) -> tuple[Value, Value]:
    """k as an attribute."""
    return _top(x, node["k"], axis_of(node["axis"], rank(x)), True)


def _top(x: Value, count: int, axis: int, largest: bool) -> tuple[Value, Value]:
    index = paddle.argsort(x, axis, descending=largest, stable=True)
    index = paddle.slice(index, [axis], [0], [count])
    return paddle.take_along_axis(x, index, axis, broadcast=False), index


def unique(node: Node, x: Value) -> tuple[Value, ...]:
    """Values (or slices) once, with first places, inverse and counts."""
    if not node["sorted"]:
        raise Refused("takes sorted=1; found 0")
    return tuple(paddle.unique(x, True, True, True, axis=node["axis"], dtype="int64"))


def tensor_scatter(node: Node, cache: Value, update: Value, starts: Value = None) -> Value:
    """Write `update` into each batch entry's cache from its start on."""
    axis = axis_of(node["axis"], rank(cache))
    limit, length, batch = size(cache, axis), size(update, axis), size(cache, 0)
    place = paddle.unsqueeze(paddle.arange(length, dtype="int64"), 0)
    if starts is not None:
        place = place + paddle.unsqueeze(paddle.cast(starts, "int64"), 1)
    if node["mode"] == "circular":
        place = paddle.remainder(place, paddle.full([], limit, "int64"))
    shape = [1] * rank(cache)
    shape[0], shape[axis] = batch, length
    index = paddle.reshape(paddle.expand(place, [batch, length]), shape)
    index = paddle.expand(index, sizes(update))
    return paddle.put_along_axis(cache, index, update, axis, "assign", broadcast=False)


def reverse_sequence(node: Node, x: Value, lengths: Value) -> Value:
    """The first `length` steps of each batch entry, backwards."""
    time, batch = node["time_axis"], node["batch_axis"]
    steps = paddle.unsqueeze(paddle.arange(size(x, time), dtype="int64"), 1)
    count = paddle.unsqueeze(paddle.cast(lengths, "int64"), 0)
    source = paddle.where(steps < count, paddle.scale(count - steps, 1, -1), steps + count * 0)
    if time > batch:
        source = paddle.transpose(source, [1, 0])
    shape = [size(x, i) if i in (time, batch) else 1 for i in range(rank(x))]
    index = paddle.expand(paddle.reshape(source, shape), sizes(x))
    return paddle.take_along_axis(x, index, time)


TABLE: Table = {
    "Gather": Op(gather),
    "GatherElements": Op(gather_elements),
    "GatherND": Op(gather_nd),
    "Scatter": Op(scatter_elements),
    "ScatterElements": Op(scatter_elements),
    "ScatterND": Op(scatter_nd),
    "TensorScatter": Op(tensor_scatter),
    "Compress": Op(compress),
    "NonZero": Op(nonzero),
    "OneHot": Op(one_hot, host=(1,)),
    "TopK": {1: Op(top_k_1), 10: Op(top_k, host=(1,))},
    "Unique": Op(unique),
    "ReverseSequence": Op(reverse_sequence),
}
