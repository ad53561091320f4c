"""Decompositions that pick, place or repeat elements."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from autoglm.rewrite.decompose import (
    Node,
    attributes_of,
    decompose,
    input_at,
    int_vector,
    number_like,
)
from autoglm.rewrite.values import constant, ints, rank


@decompose("Split")
def _slices(op: Any, node: Node, opset: int) -> Any:
    """One Slice for each output."""
    axis, x = node.attributes.get_int("axis", 0), node.inputs[0]
    sizes = ints(input_at(node, 1))
    if input_at(node, 1) is None:
        given = node.attributes.get_ints("split", None)
        sizes = list(given) if given is not None else _even(x, axis, len(node.outputs))
    if sizes is None:
        return None
    ends = np.cumsum(sizes).tolist()
    return [
        op.Slice(
            x,
            int_vector(op, [e - s], "starts"),
            int_vector(op, [e], "ends"),
            int_vector(op, [axis]),
        )
        for s, e in zip(sizes, ends, strict=True)
    ]


def _even(x: ir.Value, axis: int, parts: int) -> list[int] | None:
    whole = None if x.shape is None else x.shape[axis]
    if not isinstance(whole, int):
        return None
    size = -(-whole // parts)
    return [size] * (parts - 1) + [whole - size * (parts - 1)]


@decompose("Conv", "MaxPool", "AveragePool", name="one-dimension")
def _two_dimensions(op: Any, node: Node, opset: int) -> Any:
    """One spatial axis written as two, for targets that know only images."""
    x = node.inputs[0]
    if rank(x) != 3 or opset < 13 or len(node.outputs) != 1:
        return None
    attributes = dict(node.attributes)
    for name, neutral in (("kernel_shape", 1), ("strides", 1), ("dilations", 1)):
        if name in attributes:
            attributes[name] = ir.AttrInt64s(name, [neutral, *attributes[name].as_ints()])
    if "pads" in attributes:
        begin, end = attributes["pads"].as_ints()
        attributes["pads"] = ir.AttrInt64s("pads", [0, begin, 0, end])
    given = [op.Unsqueeze(x, int_vector(op, [2]))]
    if node.op_type == "Conv":
        given += [op.Unsqueeze(node.inputs[1], int_vector(op, [2])), *node.inputs[2:]]
    return op.Squeeze(op.op(node.op_type, *given, **attributes), int_vector(op, [2]))


@decompose("ConstantOfShape")
def _expand(op: Any, node: Node, opset: int) -> Any:
    """A constant of one element, expanded."""
    value = node.attributes.get("value")
    array = np.zeros(1, np.float32) if value is None else np.asarray(value.as_tensor().numpy())
    dtype = ir.DataType.FLOAT if value is None else value.as_tensor().dtype
    scalar = op.initializer(ir.Tensor(array.reshape(()), dtype=dtype), name="value")
    return op.Expand(scalar, node.inputs[0])


@decompose("Tile")
def _concat(op: Any, node: Node, opset: int) -> Any:
    """Concatenate copies, axis by axis, for few constant repeats."""
    repeats = ints(node.inputs[1])
    if repeats is None or not 1 < math.prod(repeats) <= 16:
        return None
    y = node.inputs[0]
    for axis, count in enumerate(repeats):
        if count > 1:
            y = op.Concat(*[y] * count, axis=axis)
    return y


@decompose("OneHot")
def _compare(op: Any, node: Node, opset: int) -> Any:
    """Compare indices with the row of all classes."""
    depth, size = constant(node.inputs[1]), rank(node.inputs[0])
    if depth is None or size is None or opset < 13 or depth.size != 1:
        return None
    count = int(depth.reshape(-1)[0])
    axis = node.attributes.get_int("axis", -1) % (size + 1)
    indices = op.Cast(node.inputs[0], to=int(ir.DataType.INT64))
    wrapped = op.Add(indices, int_vector(op, [count], "depth"))
    negative = op.Less(indices, int_vector(op, [0], "zero"))
    indices = op.Unsqueeze(op.Where(negative, wrapped, indices), int_vector(op, [axis]))
    classes = np.arange(count).reshape([-1 if i == axis else 1 for i in range(size + 1)])
    hit = op.Equal(indices, op.initializer(ir.Tensor(classes), name="classes"))
    off, on = (op.Gather(node.inputs[2], int_vector(op, [i], "index")) for i in (0, 1))
    return op.Where(hit, on, off)


@decompose("Trilu")
def _mask(op: Any, node: Node, opset: int) -> Any:
    """Choose by a constant triangle, for matrices of known size up to a million elements."""
    x, shift = node.inputs[0], input_at(node, 1)
    k = 0 if shift is None else ints(shift)
    if x.shape is None or k is None or not all(isinstance(d, int) for d in x.shape[-2:]):
        return None
    rows, columns = (int(d) for d in x.shape[-2:])
    if rows * columns > 1 << 20:
        return None
    offset = k if isinstance(k, int) else k[0]
    upper = node.attributes.get_int("upper", 1)
    ones = np.ones((rows, columns), bool)
    triangle = np.triu(ones, offset) if upper else np.tril(ones, offset)
    return op.Where(op.initializer(ir.Tensor(triangle), name="mask"), x, number_like(op, x, 0))


@decompose("Mod")
def _remainder(op: Any, node: Node, opset: int) -> Any:
    """a - (a / b) * b for whole numbers, with the sign of b unless `fmod`."""
    a, b = node.inputs
    if a.dtype is None or not a.dtype.is_integer():
        return None
    rest = op.Sub(a, op.Mul(op.Div(a, b), b))
    if node.attributes.get_int("fmod", 0) or not a.dtype.is_signed():
        return rest
    zero = number_like(op, a, 0)
    differs = op.Xor(op.Less(rest, zero), op.Less(b, zero))
    wrong = op.And(differs, op.Not(op.Equal(rest, zero)))
    return op.Where(wrong, op.Add(rest, b), rest)


@decompose("ArgMax", "ArgMin")
def _reversed(op: Any, node: Node, opset: int) -> Any:
    """The last of equals is the first of the reversed axis."""
    x, axis = node.inputs[0], node.attributes.get_int("axis", 0)
    if not node.attributes.get_int("select_last_index", 0) or opset < 10:
        return None
    if x.shape is None or not isinstance(x.shape[axis], int):
        return None
    last = int(x.shape[axis]) - 1
    bounds = [int_vector(op, [v], n) for v, n in ((-1, "starts"), (-(1 << 62), "ends"))]
    flipped = op.Slice(x, *bounds, int_vector(op, [axis]), int_vector(op, [-1], "steps"))
    index = op.op(node.op_type, flipped, **attributes_of(node, "select_last_index"))
    return op.Sub(int_vector(op, [last], "last") if rank(x) != 1 else _scalar(op, last), index)


def _scalar(op: Any, number: int) -> Any:
    return op.initializer(ir.Tensor(np.asarray(number, np.int64)), name="last")


@decompose("Hardmax")
def _one_hot(op: Any, node: Node, opset: int) -> Any:
    """ArgMax, then OneHot."""
    x, axis = node.inputs[0], node.attributes.get_int("axis", -1)
    if opset < 13 or x.shape is None or not isinstance(x.shape[axis], int):
        return None
    index = op.ArgMax(x, axis=axis, keepdims=0)
    depth = op.initializer(ir.Tensor(np.asarray(x.shape[axis], np.int64)), name="depth")
    return op.OneHot(index, depth, number_like(op, x, [0.0, 1.0]), axis=axis)
