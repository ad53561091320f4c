"""Decompositions of products: Einsum, and the quantised operators."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from autoglm.rewrite.decompose import Node, decompose, input_at
from autoglm.rewrite.values import like, rank, static

_BYTES = (ir.DataType.INT8, ir.DataType.UINT8)


@decompose("Einsum")
def _contract(op: Any, node: Node, opset: int) -> Any:
    """Transpose, Reshape, MatMul, for one or two operands of known shape."""
    equation = node.attributes.get_string("equation", "").replace(" ", "")
    terms, _, result = equation.partition("->")
    parts = terms.split(",")
    if "->" not in equation or "." in equation or len(parts) != len(node.inputs):
        return None
    if any(len(set(p)) != len(p) for p in (*parts, result)) or len(parts) > 2:
        return None
    sizes: dict[str, int] = {}
    for part, value in zip(parts, node.inputs, strict=True):
        shape = static(value)
        if shape is None or len(shape) != len(part) or 0 in shape:
            return None
        for letter, size in zip(part, shape, strict=True):
            if sizes.setdefault(letter, size) != size:
                return None
    if len(parts) == 1:
        return _permute(op, node.inputs[0], parts[0], result, opset)
    return _product(op, node, parts, result, sizes, opset)


def _permute(op: Any, x: Any, given: str, wanted: str, opset: int) -> Any:
    lost = [i for i, letter in enumerate(given) if letter not in wanted]
    if lost:
        if opset < 13:
            return None
        axes = op.initializer(ir.Tensor(np.asarray(lost, np.int64)), name="axes")
        x = op.ReduceSum(x, axes, keepdims=0)
        given = "".join(letter for letter in given if letter in wanted)
    perm = [given.index(letter) for letter in wanted]
    return op.Transpose(x, perm=perm) if perm else op.Identity(x)


def _product(
    op: Any, node: Node, parts: list[str], result: str, sizes: dict[str, int], opset: int
) -> Any:
    first, second = parts
    shared = [c for c in first if c in second]
    batch = [c for c in shared if c in result]
    inner = [c for c in shared if c not in result]
    rows = [c for c in first if c not in second]
    columns = [c for c in second if c not in first]
    if not set(rows + columns) <= set(result):
        return None  # a letter of one operand alone that is summed: rare, left to the engine

    def arranged(x: Any, given: str, *groups: list[str]) -> Any:
        perm = [given.index(c) for group in groups for c in group]
        y = op.Transpose(x, perm=perm) if perm else x
        sides = [math.prod(sizes[c] for c in group) for group in groups[1:]]
        shape = [*(sizes[c] for c in groups[0]), *sides]
        return op.Reshape(y, op.initializer(ir.Tensor(np.asarray(shape, np.int64)), name="shape"))

    left = arranged(node.inputs[0], first, batch, rows, inner)
    right = arranged(node.inputs[1], second, batch, inner, columns)
    order = [*batch, *rows, *columns]
    shape = np.asarray([sizes[c] for c in order], np.int64)
    y = op.Reshape(op.MatMul(left, right), op.initializer(ir.Tensor(shape), name="shape"))
    perm = [order.index(c) for c in result]
    return op.Transpose(y, perm=perm) if perm else y


def _aligned(op: Any, value: Any, x: ir.Value, axis: int) -> Any:
    """A scale or zero point shaped to broadcast along `axis`; None for a blocked one."""
    size = rank(value)
    if size == 0 or static(value) == (1,):
        return value if size == 0 or rank(x) else None
    if size != 1 or rank(x) is None:
        return None
    shape = [1] * (rank(x) or 0)
    shape[axis] = -1
    target = op.initializer(ir.Tensor(np.asarray(shape, np.int64)), name="shape")
    return op.Reshape(value, target)


@decompose("DequantizeLinear")
def _scaled(op: Any, node: Node, opset: int) -> Any:
    """(x - zero point) * scale, in the scale's dtype."""
    x, scale, zero = node.inputs[0], node.inputs[1], input_at(node, 2)
    if x.dtype not in _BYTES or scale.dtype is not ir.DataType.FLOAT:
        return None
    axis = node.attributes.get_int("axis", 1)
    factor = _aligned(op, scale, x, axis)
    if factor is None or node.attributes.get_int("block_size", 0):
        return None
    to = int(ir.DataType.FLOAT)
    y = op.Cast(x, to=to)
    if zero is not None:
        shift = _aligned(op, zero, x, axis)
        if shift is None:
            return None
        y = op.Sub(y, op.Cast(shift, to=to))
    return op.Mul(y, factor)


@decompose("QuantizeLinear")
def _rounded(op: Any, node: Node, opset: int) -> Any:
    """Round x / scale to even, add the zero point, saturate, cast."""
    x, scale, zero = node.inputs[0], node.inputs[1], input_at(node, 2)
    dtype = node.outputs[0].dtype
    if dtype not in _BYTES or x.dtype is not ir.DataType.FLOAT or scale.dtype != x.dtype:
        return None
    axis = node.attributes.get_int("axis", 1)
    factor = _aligned(op, scale, x, axis)
    if factor is None or node.attributes.get_int("block_size", 0) or opset < 12:
        return None
    y = op.Round(op.Div(x, factor))
    if zero is not None:
        shift = _aligned(op, zero, x, axis)
        if shift is None:
            return None
        y = op.Add(y, op.Cast(shift, to=int(ir.DataType.FLOAT)))
    low, high = (-128.0, 127.0) if dtype is ir.DataType.INT8 else (0.0, 255.0)
    bounds = [op.initializer(like(x, number), name="bound") for number in (low, high)]
    return op.Cast(op.Min(op.Max(y, bounds[0]), bounds[1]), to=int(dtype))


@decompose("QLinearMatMul", "QLinearConv")
def _between_floats(op: Any, node: Node, opset: int) -> Any:
    """Dequantise, compute in float, quantise."""
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = node.inputs[:8]
    if any((rank(s) or 0) > 1 for s in (x_scale, w_scale, y_scale)) or opset < 13:
        return None
    if x_scale.dtype is not ir.DataType.FLOAT:
        return None
    left = op.DequantizeLinear(x, x_scale, x_zero)
    if node.op_type == "QLinearMatMul":
        if static(w_scale) not in ((), (1,)) or static(x_scale) not in ((), (1,)):
            return None
        y = op.MatMul(left, op.DequantizeLinear(w, w_scale, w_zero))
    else:
        given = [left, op.DequantizeLinear(w, w_scale, w_zero, axis=0)]
        bias = input_at(node, 8)
        if bias is not None:
            # The bias is int32 with scale x_scale * w_scale, by definition of the operator.
            factor = op.Mul(x_scale, w_scale)
            given.append(op.Mul(op.Cast(bias, to=int(ir.DataType.FLOAT)), factor))
        y = op.op("Conv", *given, **dict(node.attributes))
    return op.QuantizeLinear(y, y_scale, y_zero)


@decompose("MatMulInteger")
def _int32(op: Any, node: Node, opset: int) -> Any:
    """A product of int32, after the zero points."""
    to = int(ir.DataType.INT32)
    sides = []
    given = (node.inputs[0], input_at(node, 2), -2), (node.inputs[1], input_at(node, 3), -1)
    for value, zero, axis in given:
        side = op.Cast(value, to=to)
        if zero is not None:
            shift = zero if rank(zero) == 0 or static(zero) == (1,) else None
            if shift is None and rank(zero) == 1 and (rank(value) or 0) >= 2:
                shift = _aligned(op, zero, value, axis)
            if shift is None:
                return None
            side = op.Sub(side, op.Cast(shift, to=to))
        sides.append(side)
    return op.MatMul(*sides)
