"""Operators written in simpler ones, for targets that lack them.

Each function is one rule: it gets the builder, the node and the model's opset, and returns the new
output (or outputs), or None where it does not apply. `DECOMPOSITIONS` maps operator to rules, in
order of preference. What ONNX defines as a function needs no rule: `legalize` expands its body.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from autoglm.rewrite.cancel import target_shape
from autoglm.rewrite.values import constant, ints, like, rank

Build = Callable[[Any, ir.Node, int], Any]


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


def _number(op: Any, value: ir.Value, number: float | Sequence[float]) -> ir.Value:
    made: ir.Value = op.initializer(like(value, number), name="number")
    return made


def _ints(op: Any, numbers: Sequence[int], name: str = "axes") -> ir.Value:
    made: ir.Value = op.initializer(ir.Tensor(np.asarray(numbers, np.int64)), name=name)
    return made


def _attributes(node: ir.Node, *without: str) -> dict[str, ir.Attr]:
    return {k: v for k, v in node.attributes.items() if k not in without}


def _input(node: ir.Node, position: int) -> ir.Value | None:
    return node.inputs[position] if position < len(node.inputs) else None


def _reduce(
    op: Any, kind: str, x: ir.Value, axes: Sequence[int], opset: int, keepdims: int = 1
) -> Any:
    if opset >= 18 or (kind == "ReduceSum" and opset >= 13):
        return op.op(kind, x, _ints(op, axes), keepdims=keepdims)
    return op.op(kind, x, axes=list(axes), keepdims=keepdims)


def _is_float(value: ir.Value | None) -> bool:
    return value is not None and value.dtype is not None and value.dtype.is_floating_point()


def _columns(op: Any, vector: ir.Value, size: int) -> Any:
    # One number per channel, so that it broadcasts along axis 1 of a tensor of `size` dimensions.
    return op.Reshape(vector, _ints(op, [-1] + [1] * (size - 2), "shape"))


@decompose("BatchNormalization")
def _affine(op: Any, node: ir.Node, opset: int) -> Any:
    """(x - mean) * (scale / sqrt(variance + epsilon)) + bias, outside training."""
    x, size = node.inputs[0], rank(node.inputs[0])
    if size is None or size < 2 or node.attributes.get_int("training_mode", 0):
        return None
    if len(node.inputs) != 5 or any(v is None or v.dtype != x.dtype for v in node.inputs):
        return None
    scale, bias, mean, variance = node.inputs[1:]
    epsilon = _number(op, x, node.attributes.get_float("epsilon", 1e-5))
    factor = op.Div(scale, op.Sqrt(op.Add(variance, epsilon)))
    centred = op.Sub(x, _columns(op, mean, size))
    return op.Add(op.Mul(centred, _columns(op, factor, size)), _columns(op, bias, size))


@decompose("InstanceNormalization")
def _moments(op: Any, node: ir.Node, opset: int) -> Any:
    """Mean and variance over the spatial axes, then scale and bias per channel."""
    x, scale, bias = node.inputs
    size = rank(x)
    if size is None or size < 3:
        return None
    axes = list(range(2, size))
    centred = op.Sub(x, _reduce(op, "ReduceMean", x, axes, opset))
    variance = _reduce(op, "ReduceMean", op.Mul(centred, centred), axes, opset)
    epsilon = _number(op, x, node.attributes.get_float("epsilon", 1e-5))
    normal = op.Div(centred, op.Sqrt(op.Add(variance, epsilon)))
    return op.Add(op.Mul(normal, _columns(op, scale, size)), _columns(op, bias, size))


@decompose("GlobalAveragePool", "GlobalMaxPool")
def _reduction(op: Any, node: ir.Node, opset: int) -> Any:
    """A reduction over the spatial axes."""
    x, size = node.inputs[0], rank(node.inputs[0])
    if size is None or size < 3:
        return None
    kind = "ReduceMean" if node.op_type == "GlobalAveragePool" else "ReduceMax"
    return _reduce(op, kind, x, list(range(2, size)), opset)


@decompose("Gemm")
def _matmul(op: Any, node: ir.Node, opset: int) -> Any:
    """alpha * A @ B + beta * C, with transposes where asked."""
    a, b, c = node.inputs[0], node.inputs[1], _input(node, 2)
    alpha, beta = (node.attributes.get_float(k, 1.0) for k in ("alpha", "beta"))
    if not _is_float(a) and (alpha, beta) != (1.0, 1.0):
        return None
    if node.attributes.get_int("transA", 0):
        a = op.Transpose(a, perm=[1, 0])
    if node.attributes.get_int("transB", 0):
        b = op.Transpose(b, perm=[1, 0])
    y = op.MatMul(a, b)
    if alpha != 1.0:
        y = op.Mul(y, _number(op, node.inputs[0], alpha))
    if c is None or beta == 0.0:
        return y
    if beta != 1.0:
        c = op.Mul(c, _number(op, node.inputs[0], beta))
    return op.Add(y, c)


@decompose("Sum", "Mean", "Max", "Min")
def _pairs(op: Any, node: ir.Node, opset: int) -> Any:
    """Two inputs at a time."""
    pairwise = {"Sum": "Add", "Mean": "Add"}.get(node.op_type, node.op_type)
    if any(v is None for v in node.inputs) or (len(node.inputs) < 3 and pairwise == node.op_type):
        return None
    total = node.inputs[0]
    for value in node.inputs[1:]:
        total = op.op(pairwise, total, value)
    if node.op_type == "Mean":
        return op.Div(total, _number(op, node.inputs[0], float(len(node.inputs))))
    return op.Identity(total) if total is node.inputs[0] else total


def _image(value: ir.Value) -> tuple[int, int, int, int] | None:
    """(N, C, H, W), where N may be 0: Reshape then copies it."""
    shape = value.shape
    if shape is None or len(shape) != 4 or not all(isinstance(d, int) for d in shape[1:]):
        return None
    first = shape[0] if isinstance(shape[0], int) and shape[0] > 0 else 0
    return first, *(int(d) for d in shape[1:])  # type: ignore[return-value]


@decompose("SpaceToDepth", "DepthToSpace")
def _reshape(op: Any, node: ir.Node, opset: int) -> Any:
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
    y = op.Reshape(node.inputs[0], _ints(op, split, "shape"))
    return op.Reshape(op.Transpose(y, perm=perm), _ints(op, final, "shape"))


@decompose("Flatten", "Squeeze", "Unsqueeze", name="reshape")
def _to_reshape(op: Any, node: ir.Node, opset: int) -> Any:
    """A Reshape, where at most one dimension of the result is open."""
    shape = target_shape(node.outputs[0])
    return None if shape is None else op.Reshape(node.inputs[0], _ints(op, shape, "shape"))


@decompose("Size")
def _product(op: Any, node: ir.Node, opset: int) -> Any:
    """The product of the shape."""
    return _reduce(op, "ReduceProd", op.Shape(node.inputs[0]), [0], opset, keepdims=0)


@decompose("IsNaN")
def _self_unequal(op: Any, node: ir.Node, opset: int) -> Any:
    """A NaN is what differs from itself."""
    return op.Not(op.Equal(node.inputs[0], node.inputs[0])) if opset >= 11 else None


@decompose("IsInf")
def _equal_infinity(op: Any, node: ir.Node, opset: int) -> Any:
    """Compare with infinity."""
    x = node.inputs[0]
    low, high = (node.attributes.get_int(f"detect_{k}", 1) for k in ("negative", "positive"))
    if not (low or high):
        return None
    if low and high:
        return op.Equal(op.Abs(x), _number(op, x, math.inf))
    return op.Equal(x, _number(op, x, math.inf if high else -math.inf))


@decompose("Neg")
def _times_minus_one(op: Any, node: ir.Node, opset: int) -> Any:
    """Multiply by -1."""
    return op.Mul(node.inputs[0], _number(op, node.inputs[0], -1))


@decompose("Sub")
def _add_negative(op: Any, node: ir.Node, opset: int) -> Any:
    """a + (-b)."""
    signed = node.inputs[1].dtype is not None and node.inputs[1].dtype.is_signed()
    return op.Add(node.inputs[0], op.Neg(node.inputs[1])) if signed else None


@decompose("Reciprocal")
def _one_over(op: Any, node: ir.Node, opset: int) -> Any:
    """1 / x."""
    return op.Div(_number(op, node.inputs[0], 1.0), node.inputs[0])


@decompose("Tan")
def _sine_over_cosine(op: Any, node: ir.Node, opset: int) -> Any:
    """sin(x) / cos(x)."""
    return op.Div(op.Sin(node.inputs[0]), op.Cos(node.inputs[0]))


@decompose("Relu")
def _max_zero(op: Any, node: ir.Node, opset: int) -> Any:
    """max(x, 0)."""
    return op.Max(node.inputs[0], _number(op, node.inputs[0], 0)) if opset >= 12 else None


@decompose("Clip")
def _min_max(op: Any, node: ir.Node, opset: int) -> Any:
    """min(max(x, low), high)."""
    if opset < 12:
        return None
    y = node.inputs[0]
    if _input(node, 1) is not None:
        y = op.Max(y, node.inputs[1])
    if _input(node, 2) is not None:
        y = op.Min(y, node.inputs[2])
    return op.Identity(y) if y is node.inputs[0] else y


@decompose("Greater")
def _swapped(op: Any, node: ir.Node, opset: int) -> Any:
    """b < a."""
    return op.Less(node.inputs[1], node.inputs[0])


@decompose("CastLike")
def _cast(op: Any, node: ir.Node, opset: int) -> Any:
    """A Cast to the dtype that the other input has."""
    target = node.inputs[1].dtype
    return None if target is None else op.Cast(node.inputs[0], to=int(target), **_attributes(node))


@decompose("Pow")
def _multiply(op: Any, node: ir.Node, opset: int) -> Any:
    """x * x, or x * x * x, for the constants 2 and 3."""
    x, power = node.inputs[0], constant(node.inputs[1])
    if power is None or power.size != 1 or power.ndim > (rank(x) or 0):
        return None
    if power.reshape(-1)[0] == 2:
        return op.Mul(x, x)
    return op.Mul(op.Mul(x, x), x) if power.reshape(-1)[0] == 3 else None


@decompose("Dropout")
def _identity(op: Any, node: ir.Node, opset: int) -> Any:
    """Nothing, outside training."""
    flag = _input(node, 2)
    training = constant(flag)
    if flag is not None and (training is None or training.any()):
        return None
    return op.Identity(node.inputs[0])


def _axes_of(node: ir.Node, opset: int) -> list[int] | None:
    """The reduced axes, sorted out between attribute and input; None where not constant."""
    size = rank(node.inputs[0])
    if size is None:
        return None
    given = _input(node, 1)
    axes = list(node.attributes.get_ints("axes", ())) if given is None else ints(given)
    if axes is None:
        return None
    if not axes and node.attributes.get_int("noop_with_empty_axes", 0):
        return None
    return sorted(a % size for a in axes) if axes else list(range(size))


@decompose(
    "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean"
)
def _reduce_sum(op: Any, node: ir.Node, opset: int) -> Any:
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
    peak = op.Where(op.IsInf(peak), _number(op, x, 0.0), peak)
    total = _reduce(op, "ReduceSum", op.Exp(op.Sub(x, peak)), axes, opset)
    y = op.Add(op.Log(total), peak)
    return y if keep else op.Squeeze(y, _ints(op, axes))


def _mean(op: Any, x: ir.Value, axes: list[int], keep: int, opset: int) -> Any:
    if x.shape is None or not all(isinstance(x.shape[a], int) for a in axes):
        return None
    count = math.prod(int(x.shape[a]) for a in axes)  # type: ignore[arg-type]
    total = _reduce(op, "ReduceSum", x, axes, opset, keep)
    return op.Div(total, _number(op, x, float(count)))


@decompose("Softmax", "LogSoftmax")
def _last_axis(op: Any, node: ir.Node, opset: int) -> Any:
    """Transposed so that the axis comes last, for targets that know only that one."""
    size = rank(node.inputs[0])
    axis = node.attributes.get_int("axis", -1)
    if size is None or opset < 13 or axis % size == size - 1:
        return None
    perm = list(range(size))
    perm[axis % size], perm[-1] = perm[-1], perm[axis % size]
    y = op.op(node.op_type, op.Transpose(node.inputs[0], perm=perm), axis=-1)
    return op.Transpose(y, perm=perm)


@decompose("Split")
def _slices(op: Any, node: ir.Node, opset: int) -> Any:
    """One Slice for each output."""
    axis, x = node.attributes.get_int("axis", 0), node.inputs[0]
    sizes = ints(_input(node, 1))
    if _input(node, 1) is None:
        given = node.attributes.get_ints("split", None)
        sizes = list(given) if given is not None else _even(x, axis, len(node.outputs))
    if sizes is None:
        return None
    ends = np.cumsum(sizes).tolist()
    return [
        op.Slice(x, _ints(op, [e - s], "starts"), _ints(op, [e], "ends"), _ints(op, [axis]))
        for s, e in zip(sizes, ends, strict=True)
    ]


def _even(x: ir.Value, axis: int, parts: int) -> list[int] | None:
    if x.shape is None or not isinstance(x.shape[axis], int):
        return None
    whole = int(x.shape[axis])  # type: ignore[arg-type]
    size = -(-whole // parts)
    return [size] * (parts - 1) + [whole - size * (parts - 1)]


@decompose("Conv", "MaxPool", "AveragePool", name="one-dimension")
def _two_dimensions(op: Any, node: ir.Node, opset: int) -> Any:
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
    given = [op.Unsqueeze(x, _ints(op, [2]))]
    if node.op_type == "Conv":
        given += [op.Unsqueeze(node.inputs[1], _ints(op, [2])), *node.inputs[2:]]
    return op.Squeeze(op.op(node.op_type, *given, **attributes), _ints(op, [2]))


@decompose("ConstantOfShape")
def _expand(op: Any, node: ir.Node, opset: int) -> Any:
    """A constant of one element, expanded."""
    value = node.attributes.get("value")
    array = np.zeros(1, np.float32) if value is None else np.asarray(value.as_tensor().numpy())
    dtype = ir.DataType.FLOAT if value is None else value.as_tensor().dtype
    scalar = op.initializer(ir.Tensor(array.reshape(()), dtype=dtype), name="value")
    return op.Expand(scalar, node.inputs[0])


@decompose("Tile")
def _concat(op: Any, node: ir.Node, opset: int) -> Any:
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
def _compare(op: Any, node: ir.Node, opset: int) -> Any:
    """Compare indices with the row of all classes."""
    depth, size = constant(node.inputs[1]), rank(node.inputs[0])
    if depth is None or size is None or opset < 13 or depth.size != 1:
        return None
    count = int(depth.reshape(-1)[0])
    axis = node.attributes.get_int("axis", -1) % (size + 1)
    indices = op.Cast(node.inputs[0], to=int(ir.DataType.INT64))
    wrapped = op.Add(indices, _ints(op, [count], "depth"))
    negative = op.Less(indices, _ints(op, [0], "zero"))
    indices = op.Unsqueeze(op.Where(negative, wrapped, indices), _ints(op, [axis]))
    classes = np.arange(count).reshape([-1 if i == axis else 1 for i in range(size + 1)])
    hit = op.Equal(indices, op.initializer(ir.Tensor(classes), name="classes"))
    off, on = (op.Gather(node.inputs[2], _ints(op, [i], "index")) for i in (0, 1))
    return op.Where(hit, on, off)


@decompose("Trilu")
def _mask(op: Any, node: ir.Node, opset: int) -> Any:
    """Choose by a constant triangle, for matrices of known size up to a million elements."""
    x, shift = node.inputs[0], _input(node, 1)
    k = 0 if shift is None else ints(shift)
    if x.shape is None or k is None or not all(isinstance(d, int) for d in x.shape[-2:]):
        return None
    rows, columns = (int(d) for d in x.shape[-2:])  # type: ignore[arg-type]
    if rows * columns > 1 << 20:
        return None
    offset = k if isinstance(k, int) else k[0]
    upper = node.attributes.get_int("upper", 1)
    ones = np.ones((rows, columns), bool)
    triangle = np.triu(ones, offset) if upper else np.tril(ones, offset)
    return op.Where(op.initializer(ir.Tensor(triangle), name="mask"), x, _number(op, x, 0))


@decompose("Mod")
def _remainder(op: Any, node: ir.Node, opset: int) -> Any:
    """a - (a / b) * b for whole numbers, with the sign of b unless `fmod`."""
    a, b = node.inputs
    if a.dtype is None or not a.dtype.is_integer():
        return None
    rest = op.Sub(a, op.Mul(op.Div(a, b), b))
    if node.attributes.get_int("fmod", 0) or not a.dtype.is_signed():
        return rest
    zero = _number(op, a, 0)
    differs = op.Xor(op.Less(rest, zero), op.Less(b, zero))
    wrong = op.And(differs, op.Not(op.Equal(rest, zero)))
    return op.Where(wrong, op.Add(rest, b), rest)


@decompose("ArgMax", "ArgMin")
def _reversed(op: Any, node: ir.Node, opset: int) -> Any:
    """The last of equals is the first of the reversed axis."""
    x, axis = node.inputs[0], node.attributes.get_int("axis", 0)
    if not node.attributes.get_int("select_last_index", 0) or opset < 10:
        return None
    if x.shape is None or not isinstance(x.shape[axis], int):
        return None
    last = int(x.shape[axis]) - 1  # type: ignore[arg-type]
    bounds = [_ints(op, [v], n) for v, n in ((-1, "starts"), (-(1 << 62), "ends"))]
    flipped = op.Slice(x, *bounds, _ints(op, [axis]), _ints(op, [-1], "steps"))
    index = op.op(node.op_type, flipped, **_attributes(node, "select_last_index"))
    return op.Sub(_ints(op, [last], "last") if rank(x) != 1 else _scalar(op, last), index)


def _scalar(op: Any, number: int) -> Any:
    return op.initializer(ir.Tensor(np.asarray(number, np.int64)), name="last")


@decompose("Hardmax")
def _one_hot(op: Any, node: ir.Node, opset: int) -> Any:
    """ArgMax, then OneHot."""
    x, axis = node.inputs[0], node.attributes.get_int("axis", -1)
    if opset < 13 or x.shape is None or not isinstance(x.shape[axis], int):
        return None
    index = op.ArgMax(x, axis=axis, keepdims=0)
    depth = op.initializer(ir.Tensor(np.asarray(x.shape[axis], np.int64)), name="depth")
    return op.OneHot(index, depth, _number(op, x, [0.0, 1.0]), axis=axis)
