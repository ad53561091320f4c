"""Operators written in simpler ones, for targets that lack them.

Each function is one rule: it gets the builder, the node and the model's opset, and returns the new
output (or outputs), or None where it does not apply. `DECOMPOSITIONS` maps operator to rules, in
order of preference. What ONNX defines as a function needs no rule: `legalize` expands its body.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from autoglm.rewrite.cancel import target_shape
from autoglm.rewrite.values import constant, ints, like, rank

# Inputs that an operator requires are there, so their absence is not asked about again.
Node: TypeAlias = Any
Build: TypeAlias = Callable[[Any, Node, int], Any]


@dataclass(frozen=True, slots=True)
class Decomposition:
    """One rule: the operator it takes apart, and how."""

    name: str
    op: str
    purpose: str
    build: Build


class Tape:
    """Writes nodes as `op.Add(a, b)`, in the manner of onnxscript's rules."""

    def __init__(self) -> None:
        self.tape = ir.tape.Tape()

    def __getattr__(self, kind: str) -> Any:
        return lambda *inputs, **attributes: self.op(kind, *inputs, **attributes)

    def op(self, kind: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """Append one node with one output."""
        return self.tape.op(kind, inputs, attributes)

    def initializer(self, tensor: ir.TensorProtocol, *, name: str) -> ir.Value:
        """Add a constant."""
        return self.tape.initializer(tensor, name=name)


DECOMPOSITIONS: dict[str, list[Decomposition]] = {}


def decompose(*ops: str, name: str = "") -> Callable[[Build], Build]:
    """Register a rule for these operators."""

    def register(build: Build) -> Build:
        for op in ops:
            purpose = (build.__doc__ or "").strip().splitlines()[0]
            title = name or f"{op}-{build.__name__.strip('_').replace('_', '-')}"
            DECOMPOSITIONS.setdefault(op, []).append(Decomposition(title, op, purpose, build))
        return build

    return register


def number_like(op: Any, value: ir.Value, number: float | Sequence[float]) -> ir.Value:
    """A constant of `value`'s dtype."""
    made: ir.Value = op.initializer(like(value, number), name="number")
    return made


def int_vector(op: Any, numbers: Sequence[int], name: str = "axes") -> ir.Value:
    """A constant vector of int64."""
    made: ir.Value = op.initializer(ir.Tensor(np.asarray(numbers, np.int64)), name=name)
    return made


def attributes_of(node: Node, *without: str) -> dict[str, ir.Attr]:
    """The node's attributes but for some."""
    return {k: v for k, v in node.attributes.items() if k not in without}


def input_at(node: Node, position: int) -> ir.Value | None:
    """The input at that place; None where it is left out."""
    return node.inputs[position] if position < len(node.inputs) else None


def _reduce(
    op: Any, kind: str, x: ir.Value, axes: Sequence[int], opset: int, keepdims: int = 1
) -> Any:
    if opset >= 18 or (kind == "ReduceSum" and opset >= 13):
        return op.op(kind, x, int_vector(op, axes), keepdims=keepdims)
    return op.op(kind, x, axes=list(axes), keepdims=keepdims)


def _is_float(value: ir.Value | None) -> bool:
    return value is not None and value.dtype is not None and value.dtype.is_floating_point()


def _columns(op: Any, vector: ir.Value, size: int) -> Any:
    # One number per channel, so that it broadcasts along axis 1 of a tensor of `size` dimensions.
    return op.Reshape(vector, int_vector(op, [-1] + [1] * (size - 2), "shape"))


@decompose("BatchNormalization")
def _affine(op: Any, node: Node, opset: int) -> Any:
    """(x - mean) * (scale / sqrt(variance + epsilon)) + bias, outside training."""
    x, size = node.inputs[0], rank(node.inputs[0])
    if size is None or size < 2 or node.attributes.get_int("training_mode", 0):
        return None
    if len(node.inputs) != 5 or any(v is None or v.dtype != x.dtype for v in node.inputs):
        return None
    scale, bias, mean, variance = node.inputs[1:]
    epsilon = number_like(op, x, node.attributes.get_float("epsilon", 1e-5))
    factor = op.Div(scale, op.Sqrt(op.Add(variance, epsilon)))
    centred = op.Sub(x, _columns(op, mean, size))
    return op.Add(op.Mul(centred, _columns(op, factor, size)), _columns(op, bias, size))


@decompose("InstanceNormalization")
def _moments(op: Any, node: Node, opset: int) -> Any:
    """Mean and variance over the spatial axes, then scale and bias per channel."""
    x, scale, bias = node.inputs
    size = rank(x)
    if size is None or size < 3:
        return None
    axes = list(range(2, size))
    centred = op.Sub(x, _reduce(op, "ReduceMean", x, axes, opset))
    variance = _reduce(op, "ReduceMean", op.Mul(centred, centred), axes, opset)
    epsilon = number_like(op, x, node.attributes.get_float("epsilon", 1e-5))
    normal = op.Div(centred, op.Sqrt(op.Add(variance, epsilon)))
    return op.Add(op.Mul(normal, _columns(op, scale, size)), _columns(op, bias, size))


@decompose("GlobalAveragePool", "GlobalMaxPool")
def _reduction(op: Any, node: Node, opset: int) -> Any:
    """A reduction over the spatial axes."""
    x, size = node.inputs[0], rank(node.inputs[0])
    if size is None or size < 3:
        return None
    kind = "ReduceMean" if node.op_type == "GlobalAveragePool" else "ReduceMax"
    return _reduce(op, kind, x, list(range(2, size)), opset)


@decompose("Gemm")
def _matmul(op: Any, node: Node, opset: int) -> Any:
    """alpha * A @ B + beta * C, with transposes where asked."""
    a, b, c = node.inputs[0], node.inputs[1], input_at(node, 2)
    alpha, beta = (node.attributes.get_float(k, 1.0) for k in ("alpha", "beta"))
    if not _is_float(a) and (alpha, beta) != (1.0, 1.0):
        return None
    if node.attributes.get_int("transA", 0):
        a = op.Transpose(a, perm=[1, 0])
    if node.attributes.get_int("transB", 0):
        b = op.Transpose(b, perm=[1, 0])
    y = op.MatMul(a, b)
    if alpha != 1.0:
        y = op.Mul(y, number_like(op, node.inputs[0], alpha))
    if c is None or beta == 0.0:
        return y
    if beta != 1.0:
        c = op.Mul(c, number_like(op, node.inputs[0], beta))
    return op.Add(y, c)


@decompose("Sum", "Mean", "Max", "Min")
def _pairs(op: Any, node: Node, opset: int) -> Any:
    """Two inputs at a time."""
    pairwise = {"Sum": "Add", "Mean": "Add"}.get(node.op_type, node.op_type)
    if any(v is None for v in node.inputs) or (len(node.inputs) < 3 and pairwise == node.op_type):
        return None
    total = node.inputs[0]
    for value in node.inputs[1:]:
        total = op.op(pairwise, total, value)
    if node.op_type == "Mean":
        return op.Div(total, number_like(op, node.inputs[0], float(len(node.inputs))))
    return op.Identity(total) if total is node.inputs[0] else total


def _image(value: ir.Value) -> tuple[int, int, int, int] | None:
    """(N, C, H, W), where N may be 0: Reshape then copies it."""
    shape = value.shape
    if shape is None or len(shape) != 4 or not all(isinstance(d, int) for d in shape[1:]):
        return None
    first = shape[0] if isinstance(shape[0], int) and shape[0] > 0 else 0
    _, c, h, w = shape.numpy() if first else (0, *ir.Shape(shape[1:]).numpy())
    return int(first), c, h, w


@decompose("SpaceToDepth", "DepthToSpace")
def _reshape(op: Any, node: Node, opset: int) -> Any:
    """Reshape, Transpose, Reshape."""
    found, block = _image(node.inputs[0]), node.attributes.get_int("blocksize", 1)
    if found is None or 0 in found[1:]:
        return None
    n, c, h, w = found
    depth_first = node.attributes.get_string("mode", "DCR") == "DCR"
    if node.op_type == "SpaceToDepth":
        split, perm = [n, c, h // block, block, w // block, block], [0, 3, 5, 1, 2, 4]
        if not depth_first:
            perm = [0, 1, 3, 5, 2, 4]
        final = [n, c * block * block, h // block, w // block]
    else:
        c //= block * block
        split = [n, block, block, c, h, w] if depth_first else [n, c, block, block, h, w]
        perm = [0, 3, 4, 1, 5, 2] if depth_first else [0, 1, 4, 2, 5, 3]
        final = [n, c, h * block, w * block]
    y = op.Reshape(node.inputs[0], int_vector(op, split, "shape"))
    return op.Reshape(op.Transpose(y, perm=perm), int_vector(op, final, "shape"))


@decompose("Flatten", "Squeeze", "Unsqueeze", name="reshape")
def _to_reshape(op: Any, node: Node, opset: int) -> Any:
    """A Reshape, where at most one dimension of the result is open."""
    shape = target_shape(node.outputs[0])
    return None if shape is None else op.Reshape(node.inputs[0], int_vector(op, shape, "shape"))


@decompose("Size")
def _product(op: Any, node: Node, opset: int) -> Any:
    """The product of the shape."""
    return _reduce(op, "ReduceProd", op.Shape(node.inputs[0]), [0], opset, keepdims=0)


@decompose("IsNaN")
def _self_unequal(op: Any, node: Node, opset: int) -> Any:
    """A NaN is what differs from itself."""
    return op.Not(op.Equal(node.inputs[0], node.inputs[0])) if opset >= 11 else None


@decompose("IsInf")
def _equal_infinity(op: Any, node: Node, opset: int) -> Any:
    """Compare with infinity."""
    x = node.inputs[0]
    low, high = (node.attributes.get_int(f"detect_{k}", 1) for k in ("negative", "positive"))
    if not (low or high):
        return None
    if low and high:
        return op.Equal(op.Abs(x), number_like(op, x, math.inf))
    return op.Equal(x, number_like(op, x, math.inf if high else -math.inf))


@decompose("Neg")
def _times_minus_one(op: Any, node: Node, opset: int) -> Any:
    """Multiply by -1."""
    return op.Mul(node.inputs[0], number_like(op, node.inputs[0], -1))


@decompose("Sub")
def _add_negative(op: Any, node: Node, opset: int) -> Any:
    """a + (-b)."""
    signed = node.inputs[1].dtype is not None and node.inputs[1].dtype.is_signed()
    return op.Add(node.inputs[0], op.Neg(node.inputs[1])) if signed else None


@decompose("Reciprocal")
def _one_over(op: Any, node: Node, opset: int) -> Any:
    """1 / x."""
    return op.Div(number_like(op, node.inputs[0], 1.0), node.inputs[0])


@decompose("Tan")
def _sine_over_cosine(op: Any, node: Node, opset: int) -> Any:
    """sin(x) / cos(x)."""
    return op.Div(op.Sin(node.inputs[0]), op.Cos(node.inputs[0]))


@decompose("Relu")
def _max_zero(op: Any, node: Node, opset: int) -> Any:
    """max(x, 0)."""
    return op.Max(node.inputs[0], number_like(op, node.inputs[0], 0)) if opset >= 12 else None


@decompose("Clip")
def _min_max(op: Any, node: Node, opset: int) -> Any:
    """min(max(x, low), high)."""
    if opset < 12:
        return None
    y = node.inputs[0]
    if input_at(node, 1) is not None:
        y = op.Max(y, node.inputs[1])
    if input_at(node, 2) is not None:
        y = op.Min(y, node.inputs[2])
    return op.Identity(y) if y is node.inputs[0] else y


@decompose("Greater")
def _swapped(op: Any, node: Node, opset: int) -> Any:
    """b < a."""
    return op.Less(node.inputs[1], node.inputs[0])


@decompose("CastLike")
def _cast(op: Any, node: Node, opset: int) -> Any:
    """A Cast to the dtype that the other input has."""
    target = node.inputs[1].dtype
    return (
        None if target is None else op.Cast(node.inputs[0], to=int(target), **attributes_of(node))
    )


@decompose("Pow")
def _multiply(op: Any, node: Node, opset: int) -> Any:
    """x * x, or x * x * x, for the constants 2 and 3."""
    x, power = node.inputs[0], constant(node.inputs[1])
    if power is None or power.size != 1 or power.ndim > (rank(x) or 0):
        return None
    if power.reshape(-1)[0] == 2:
        return op.Mul(x, x)
    return op.Mul(op.Mul(x, x), x) if power.reshape(-1)[0] == 3 else None


@decompose("Dropout")
def _identity(op: Any, node: Node, opset: int) -> Any:
    """Nothing, outside training."""
    flag = input_at(node, 2)
    training = constant(flag)
    if flag is not None and (training is None or training.any()):
        return None
    return op.Identity(node.inputs[0])


def _axes_of(node: Node, opset: int) -> list[int] | None:
    """The reduced axes, sorted out between attribute and input; None where not constant."""
    size = rank(node.inputs[0])
    if size is None:
        return None
    given = input_at(node, 1)
    axes = list(node.attributes.get_ints("axes", ())) if given is None else ints(given)
    if axes is None:
        return None
    if not axes and node.attributes.get_int("noop_with_empty_axes", 0):
        return None
    return sorted(a % size for a in axes) if axes else list(range(size))


@decompose(
    "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean"
)
def _reduce_sum(op: Any, node: Node, opset: int) -> Any:
    """A ReduceSum with elementwise operators around it."""
    x, axes, keep = node.inputs[0], _axes_of(node, opset), node.attributes.get_int("keepdims", 1)
    kind = node.op_type
    if axes is None or (not _is_float(x) and kind in ("ReduceL2", "ReduceMean")):
        return None
    if kind == "ReduceLogSumExp":
        return _log_sum_exp(op, x, axes, keep, opset) if _is_float(x) else None
    if kind == "ReduceMean":
        return _mean(op, x, axes, keep, opset)
    if kind == "ReduceL1":
        return _reduce(op, "ReduceSum", op.Abs(x), axes, opset, keep)
    if kind == "ReduceLogSum":
        return op.Log(_reduce(op, "ReduceSum", x, axes, opset, keep)) if _is_float(x) else None
    total = _reduce(op, "ReduceSum", op.Mul(x, x), axes, opset, keep)
    return op.Sqrt(total) if kind == "ReduceL2" else total


def _log_sum_exp(op: Any, x: ir.Value, axes: list[int], keep: int, opset: int) -> Any:
    peak = _reduce(op, "ReduceMax", x, axes, opset)
    # An infinite peak would make inf - inf; without the shift the exponent is right by itself.
    peak = op.Where(op.IsInf(peak), number_like(op, x, 0.0), peak)
    total = _reduce(op, "ReduceSum", op.Exp(op.Sub(x, peak)), axes, opset)
    y = op.Add(op.Log(total), peak)
    return y if keep else op.Squeeze(y, int_vector(op, axes))


def _mean(op: Any, x: ir.Value, axes: list[int], keep: int, opset: int) -> Any:
    if x.shape is None or not all(isinstance(x.shape[a], int) for a in axes):
        return None
    count = math.prod(ir.Shape([x.shape[a] for a in axes]).numpy())
    total = _reduce(op, "ReduceSum", x, axes, opset, keep)
    return op.Div(total, number_like(op, x, float(count)))


@decompose("Softmax", "LogSoftmax")
def _last_axis(op: Any, node: Node, opset: int) -> Any:
    """Transposed so that the axis comes last, for targets that know only that one."""
    size = rank(node.inputs[0])
    axis = node.attributes.get_int("axis", -1)
    if size is None or opset < 13 or axis % size == size - 1:
        return None
    perm = list(range(size))
    perm[axis % size], perm[-1] = perm[-1], perm[axis % size]
    y = op.op(node.op_type, op.Transpose(node.inputs[0], perm=perm), axis=-1)
    return op.Transpose(y, perm=perm)
