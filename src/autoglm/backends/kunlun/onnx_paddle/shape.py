"""Shapes, joins, splits and fills: operators that move elements and compute nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import paddle

from .op import (
    DTYPES,
    Node,
    Op,
    Refused,
    Table,
    Value,
    axis_of,
    constant,
    name_of,
    rank,
    scalar,
    size,
    sizes,
)

_BIG = (1 << 31) - 1


def reshape(node: Node, x: Value, shape: Any = None) -> Value:
    """0 keeps a dimension, unless allowzero; both sides have the same meaning of -1."""
    target = node["shape"] if shape is None else shape
    if not isinstance(target, (list, tuple)):
        if node["allowzero"]:
            raise Refused("allowzero=1 needs a shape that is a constant")
        return paddle.reshape(x, target)
    target = list(target)
    if node["allowzero"] and 0 in target:
        return _empty(x, target)
    if 0 in x.shape:
        return _empty(x, [x.shape[i] if n == 0 else n for i, n in enumerate(target)])
    return paddle.reshape(x, target)


def _empty(x: Value, target: list[int]) -> Value:
    rest = math.prod(n for n in target if n != -1)
    count = math.prod(sizes(x))
    if count or (rest == 0 and -1 in target and math.prod([n for n in target if n > 0]) == 0):
        raise Refused(f"cannot reshape {list(x.shape)} to {target}")
    return paddle.zeros([0 if n == -1 else n for n in target], name_of(x))


def flatten(node: Node, x: Value) -> Value:
    """To two axes."""
    axis = axis_of(node["axis"], rank(x))
    if rank(x) == 0:
        return paddle.reshape(x, [1, 1])
    lead, tail = [int(n) for n in x.shape[:axis]], [int(n) for n in x.shape[axis:]]
    if -1 not in tail:
        return paddle.reshape(x, [-1 if -1 in lead else math.prod(lead), math.prod(tail)])
    if -1 not in lead:
        return paddle.reshape(x, [math.prod(lead), -1])
    flat = paddle.flatten(x, axis, -1)
    return paddle.flatten(flat, 0, axis - 1)


def squeeze(node: Node, x: Value, axes: Any = None) -> Value:
    """Drop axes of size 1."""
    chosen = node["axes"] if axes is None else axes
    if chosen is None:
        return paddle.squeeze(x)
    chosen = [chosen] if isinstance(chosen, int) else list(chosen)
    chosen = [axis_of(a, rank(x)) for a in chosen]
    wrong = [a for a in chosen if x.shape[a] not in (1, -1)]
    if wrong:
        raise Refused(f"squeezes axis {wrong[0]}, whose size is {x.shape[wrong[0]]}, not 1")
    return paddle.squeeze(x, chosen) if chosen else paddle.assign(x)


def unsqueeze(node: Node, x: Value, axes: Any = None) -> Value:
    """Insert axes of size 1; numbers are of the result."""
    chosen = node["axes"] if axes is None else axes
    chosen = [chosen] if isinstance(chosen, int) else list(chosen)
    full = rank(x) + len(chosen)
    for axis in sorted(axis_of(a, full) for a in chosen):
        x = paddle.unsqueeze(x, axis)
    return x if chosen else paddle.assign(x)


def transpose(node: Node, x: Value) -> Value:
    """Reversed axes unless `perm`."""
    order = list(node["perm"] or list(range(rank(x)))[::-1])
    return paddle.transpose(x, order) if rank(x) else paddle.assign(x)


def concat(node: Node, *xs: Value) -> Value:
    """Join on an axis."""
    axis = 1 if node["axis"] is None else node["axis"]
    return paddle.concat(list(xs), axis_of(axis, rank(xs[0])))


def split(node: Node, x: Value, parts: Any = None) -> list[Value]:
    """By sizes, or evenly with a smaller last piece."""
    axis = axis_of(node["axis"], rank(x))
    parts = node["split"] if parts is None else parts
    if parts is None:
        whole, count = size(x, axis), node["num_outputs"] or len(node.outputs)
        piece = -(-whole // count)
        parts = [max(0, min(piece, whole - i * piece)) for i in range(count)]
    ends = [sum(parts[: i + 1]) for i in range(len(parts))]
    return [
        paddle.slice(x, [axis], [end - part], [end]) for part, end in zip(parts, ends, strict=True)
    ]


def slice_(
    node: Node, x: Value, starts: Any, ends: Any, axes: Any = None, steps: Any = None
) -> Value:
    """Negative steps walk backwards."""
    count = next((len(v) for v in (starts, ends, axes) if isinstance(v, list)), None)
    count = size(starts, 0) if count is None else count
    axes = list(range(count)) if axes is None else [axis_of(a, rank(x)) for a in axes]
    steps = [1] * count if steps is None else steps
    if not (isinstance(starts, list) and isinstance(ends, list)):
        return _moving(x, starts, ends, axes, steps)
    starts = [max(-_BIG, min(_BIG, n)) for n in starts]
    ends = [max(-_BIG, min(_BIG, n)) for n in ends]
    if all(step == 1 for step in steps):
        return paddle.slice(x, axes, starts, ends)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        x = _strided(x, start, end, axis, step)
    return x


def _moving(x: Value, starts: Any, ends: Any, axes: list[int], steps: list[int]) -> Value:
    """Limits that are computed at run time; Paddle's own slice takes them for single steps."""
    if any(step != 1 for step in steps):
        raise Refused("takes limits that are computed at run time with step 1 only")
    return paddle.slice(x, axes, _limits(starts, len(axes)), _limits(ends, len(axes)))


def _limits(given: Any, count: int) -> Any:
    if isinstance(given, list):
        return [max(-_BIG, min(_BIG, n)) for n in given]
    pieces = [paddle.slice(given, [0], [i], [i + 1]) for i in range(count)]
    # Beyond 32 bits "the end" would wrap.
    low, high = (paddle.full([1], n, name_of(given)) for n in (-_BIG, _BIG))
    return [paddle.minimum(paddle.maximum(p, low), high) for p in pieces]


def _strided(x: Value, start: int, end: int, axis: int, step: int) -> Value:
    if x.shape[axis] == -1:
        if step < 0:
            raise Refused(f"walks backwards along axis {axis}, whose size is not known")
        return paddle.strided_slice(x, [axis], [start], [end], [step])
    whole = int(x.shape[axis])
    stop = None if step < 0 and end < -whole else end
    places = list(range(*slice(start, stop, step).indices(whole)))
    if not places:
        return paddle.slice(x, [axis], [0], [0])
    return paddle.index_select(x, constant(np.asarray(places, np.int64)), axis)


def slice_1(node: Node, x: Value) -> Value:
    """Limits as attributes."""
    return slice_(node, x, node["starts"], node["ends"], node["axes"])


def expand(node: Node, x: Value, shape: Any) -> Value:
    """Broadcast in both directions."""
    if not isinstance(shape, list):
        return paddle.expand(x, shape)
    lead = max(0, rank(x) - len(shape))
    wanted = [1] * lead + list(shape)
    given = [1] * (len(wanted) - rank(x)) + [int(n) for n in x.shape]
    target = [g if w == 1 else w for g, w in zip(given, wanted, strict=True)]
    return paddle.expand(x, target) if target else paddle.assign(x)


def tile(node: Node, x: Value, repeats: Any) -> Value:
    """Repeat along every axis."""
    return paddle.tile(x, repeats) if rank(x) else paddle.assign(x)


def tile_1(node: Node, x: Value, count: Any, axis: Any) -> Value:
    """Repeat along one axis."""
    repeats = [1] * rank(x)
    repeats[int(scalar(axis))] = int(scalar(count))
    return paddle.tile(x, repeats)


def shape_of(node: Node, x: Value) -> Value:
    """A part of the shape on request."""
    first, last, _ = slice(node["start"] or 0, node["end"]).indices(rank(x))
    shape = [int(n) for n in x.shape][first : max(first, last)]
    if -1 not in shape:
        return constant(np.asarray(shape, np.int64))
    whole = paddle.cast(paddle.shape(x), "int64")
    return paddle.slice(whole, [0], [first], [last])


def size_of(node: Node, x: Value) -> Value:
    """Number of elements."""
    if -1 not in x.shape:
        return constant(np.asarray(math.prod(sizes(x)), np.int64))
    return paddle.cast(paddle.numel(x), "int64")


def constant_of_shape(node: Node, shape: Any) -> Value:
    """Zeros of float32 unless `value`."""
    value = node["value"]
    value = np.zeros(1, np.float32) if value is None else value
    if str(value.dtype) not in DTYPES.values():
        raise Refused(f"fills with {value.dtype}, which Paddle does not have")
    return paddle.full(shape, value.reshape(-1)[0].item(), str(value.dtype))


def range_(node: Node, start: Any, limit: Any, delta: Any) -> Value:
    """start, start + delta, ... before limit."""
    start, limit, delta = scalar(start), scalar(limit), scalar(delta)
    count = max(math.ceil((limit - start) / delta), 0)
    places = np.arange(count) * delta + start
    return constant(places.astype(node.outputs[0] or node.inputs[0]))


def eye_like(node: Node, x: Value) -> Value:
    """Ones on a diagonal."""
    target = DTYPES.get(node["dtype"], "") if node["dtype"] else name_of(x)
    if not target:
        raise Refused("Paddle has no such dtype")
    rows, columns = sizes(x)
    return paddle.cast(constant(np.eye(rows, columns, node["k"], np.float32)), target)


def trilu(node: Node, x: Value, k: Any = None) -> Value:
    """Upper or lower triangle."""
    run = paddle.triu if node["upper"] else paddle.tril
    return run(x, 0 if k is None else int(scalar(k)))


def depth_to_space(node: Node, x: Value) -> Value:
    """DCR or CRD order."""
    block = node["blocksize"]
    _, depth, height, width = (int(n) for n in x.shape)
    _need(depth, height, width)
    inner = depth // block**2
    if node["mode"] == "CRD":
        blocks = paddle.reshape(x, [-1, inner, block, block, height, width])
        blocks = paddle.transpose(blocks, [0, 1, 4, 2, 5, 3])
    else:
        blocks = paddle.reshape(x, [-1, block, block, inner, height, width])
        blocks = paddle.transpose(blocks, [0, 3, 4, 1, 5, 2])
    return paddle.reshape(blocks, [-1, inner, height * block, width * block])


def space_to_depth(node: Node, x: Value) -> Value:
    """Blocks to channels."""
    block = node["blocksize"]
    _, depth, height, width = (int(n) for n in x.shape)
    _need(depth, height, width)
    blocks = paddle.reshape(x, [-1, depth, height // block, block, width // block, block])
    order = [0, 1, 3, 5, 2, 4] if node["mode"] == "CRD" else [0, 3, 5, 1, 2, 4]
    moved = paddle.transpose(blocks, order)
    return paddle.reshape(moved, [-1, depth * block**2, height // block, width // block])


def _need(*numbers: int) -> None:
    if -1 in numbers:
        raise Refused("needs channels, height and width when it is compiled")


TABLE: Table = {
    "Reshape": Op(reshape, host=(1,), open=(1,)),
    "Flatten": Op(flatten),
    "Squeeze": Op(squeeze, host=(1,)),
    "Unsqueeze": Op(unsqueeze, host=(1,)),
    "Transpose": Op(transpose),
    "Concat": Op(concat),
    "Split": Op(split, host=(1,)),
    "Slice": {1: Op(slice_1), 10: Op(slice_, host=(1, 2, 3, 4), open=(1, 2))},
    "Expand": Op(expand, host=(1,), open=(1,)),
    "Tile": {1: Op(tile_1, host=(1, 2)), 6: Op(tile, host=(1,), open=(1,))},
    "Shape": Op(shape_of),
    "Size": Op(size_of),
    "ConstantOfShape": Op(constant_of_shape, host=(0,), open=(0,)),
    "Range": Op(range_, host=(0, 1, 2)),
    "EyeLike": Op(eye_like),
    "Trilu": Op(trilu, host=(1,)),
    "DepthToSpace": Op(depth_to_space),
    "SpaceToDepth": Op(space_to_depth),
}
