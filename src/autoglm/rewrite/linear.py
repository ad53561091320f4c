"""Rules that fold what follows a convolution or a matrix product into its weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import MatchResult

from autoglm.rewrite.rule import Rule, refuse
from autoglm.rewrite.values import constant, exact_in, rank, scalar, static

_EXACT = (ir.DataType.FLOAT, ir.DataType.DOUBLE)  # half precision would round the weights twice
_SHARED_BYTES = 1 << 16  # a larger weight that others read too would be held twice
_WEIGHT_BYTES = 1 << 24  # a larger weight stays mapped and shared rather than scaled


def _node(value: ir.Value) -> ir.Node:
    node = value.producer()
    assert node is not None
    return node


def _private(node: ir.Node, positions: tuple[int, ...]) -> bool:
    """Whether these inputs are constants, and no large one is also read by another node."""
    for position in positions:
        value = node.inputs[position] if position < len(node.inputs) else None
        if value is None:
            continue
        if constant(value) is None or value.const_value is None:
            return False
        if len(value.uses()) > 1 and value.const_value.nbytes > _SHARED_BYTES:
            return False
    return True


def _conv_constants(node: ir.Node) -> tuple[np.ndarray, np.ndarray]:
    weight = constant(node.inputs[1])
    assert weight is not None
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is None:
        bias = np.zeros(weight.shape[0])
    return weight.astype(np.float64), bias.astype(np.float64)


def _new_conv(
    op: Any, x: ir.Value, old: ir.Node, weight: np.ndarray | None, bias: np.ndarray
) -> Any:
    dtype = x.dtype
    assert dtype is not None
    first = old.inputs[1]
    if weight is not None:
        first = op.initializer(exact_in(weight, dtype), name="weight")
    second = op.initializer(exact_in(bias, dtype), name="bias")
    return op.op("Conv", x, first, second, **dict(old.attributes))


class FoldBatchNorm(Rule):
    """BatchNormalization(Conv(x)) -> Conv(x) with other weights and bias."""

    title = "conv-batchnorm"
    ends = ("BatchNormalization",)
    opset = 9

    def pattern(self, op: Any, x: Any, s: Any, b: Any, m: Any, v: Any) -> Any:
        conv = op.Conv(x, _allow_other_inputs=True, _outputs=["conv"])
        return op.BatchNormalization(conv, s, b, m, v, _outputs=["y"])

    def check(
        self,
        context: Any,
        x: ir.Value,
        s: ir.Value,
        b: ir.Value,
        m: ir.Value,
        v: ir.Value,
        conv: ir.Value,
        y: ir.Value,
    ) -> MatchResult:
        node = _node(y)
        if node.attributes.get_int("training_mode", 0) or len(node.outputs) != 1:
            return refuse("it is in training mode")
        if x.dtype not in _EXACT or any(p.dtype != x.dtype for p in (s, b, m, v)):
            return refuse(f"{x.dtype} is not folded")
        if any(constant(p) is None for p in (s, b, m, v)) or not _private(_node(conv), (1, 2)):
            return refuse("a parameter is not a constant of this pair alone")
        return MatchResult()

    def rewrite(
        self,
        op: Any,
        x: ir.Value,
        s: ir.Value,
        b: ir.Value,
        m: ir.Value,
        v: ir.Value,
        conv: ir.Value,
        y: ir.Value,
    ) -> Any:
        scale, shift, mean, variance = (np.asarray(constant(p), np.float64) for p in (s, b, m, v))
        factor = scale / np.sqrt(variance + _node(y).attributes.get_float("epsilon", 1e-5))
        weight, bias = _conv_constants(_node(conv))
        columns = factor.reshape(-1, *[1] * (weight.ndim - 1))
        return _new_conv(op, x, _node(conv), weight * columns, (bias - mean) * factor + shift)


def _per_channel(value: ir.Value, conv: ir.Value) -> np.ndarray | None:
    """A constant as one number per output channel of `conv`; None where it is anything else."""
    array, weight, size = constant(value), _node(conv).inputs[1], rank(conv)
    shape = static(weight)
    if array is None or shape is None or size is None or array.ndim > size:
        return None
    channels = shape[0]
    full = (1,) * (size - array.ndim) + array.shape
    if full not in ((1,) * size, (1, channels, *[1] * (size - 2))):
        return None
    return np.broadcast_to(array.reshape(-1), (channels,)).astype(np.float64)


class FoldConvBias(Rule):
    """Add(Conv(x), c) -> Conv with bias, for one constant per channel."""

    title = "conv-bias"
    ends = ("Add",)
    commutes = True

    def pattern(self, op: Any, x: Any, c: Any) -> Any:
        return op.Add(op.Conv(x, _allow_other_inputs=True, _outputs=["conv"]), c)

    def check(self, context: Any, x: ir.Value, c: ir.Value, conv: ir.Value) -> MatchResult:
        if x.dtype not in _EXACT:
            return refuse(f"{x.dtype} is not folded")
        if _per_channel(c, conv) is None or not _private(_node(conv), (2,)):
            return refuse("the addend is not one constant per channel")
        return MatchResult()

    def rewrite(self, op: Any, x: ir.Value, c: ir.Value, conv: ir.Value) -> Any:
        old, extra = _node(conv), _per_channel(c, conv)
        bias = constant(old.inputs[2]) if len(old.inputs) > 2 else None
        assert extra is not None
        total = extra if bias is None else extra + bias.astype(np.float64)
        return _new_conv(op, x, old, None, total)


class FoldConvScale(Rule):
    """Mul(Conv(x), c) -> Conv with scaled weights and bias, for one constant per channel."""

    title = "conv-scale"
    ends = ("Mul",)
    commutes = True

    def pattern(self, op: Any, x: Any, c: Any) -> Any:
        return op.Mul(op.Conv(x, _allow_other_inputs=True, _outputs=["conv"]), c)

    def check(self, context: Any, x: ir.Value, c: ir.Value, conv: ir.Value) -> MatchResult:
        if x.dtype not in _EXACT:
            return refuse(f"{x.dtype} is not folded")
        if constant(_node(conv).inputs[1]) is None or not _private(_node(conv), (1, 2)):
            return refuse("the weights are not constants of this node alone")
        factor = _per_channel(c, conv)
        if factor is None or not np.isfinite(factor).all():
            return refuse("the factor is not one finite constant per channel")
        return MatchResult()

    def rewrite(self, op: Any, x: ir.Value, c: ir.Value, conv: ir.Value) -> Any:
        weight, bias = _conv_constants(_node(conv))
        factor = _per_channel(c, conv)
        assert factor is not None
        columns = factor.reshape(-1, *[1] * (weight.ndim - 1))
        return _new_conv(op, x, _node(conv), weight * columns, bias * factor)


class FoldMatMulScale(Rule):
    """Mul(MatMul(x, w), c) -> MatMul(x, w * c), for one constant and a small weight."""

    title = "matmul-scale"
    ends = ("Mul",)
    commutes = True

    def pattern(self, op: Any, x: Any, w: Any, c: Any) -> Any:
        return op.Mul(op.MatMul(x, w, _outputs=["product"]), c)

    def check(
        self, context: Any, x: ir.Value, w: ir.Value, c: ir.Value, product: ir.Value
    ) -> MatchResult:
        if x.dtype not in _EXACT or w.const_value is None or not _private(_node(product), (1,)):
            return refuse("the weight is not a float constant of this node alone")
        factor = scalar(c)
        if factor is None or not np.isfinite(factor) or (rank(c) or 0) > (rank(product) or 0):
            return refuse("the factor is not a finite constant of one element")
        return MatchResult() if w.const_value.nbytes <= _WEIGHT_BYTES else refuse("a large weight")

    def rewrite(self, op: Any, x: ir.Value, w: ir.Value, c: ir.Value, product: ir.Value) -> Any:
        weight, factor = constant(w), scalar(c)
        assert weight is not None
        assert factor is not None
        assert w.dtype is not None
        scaled = exact_in(weight.astype(np.float64) * factor, w.dtype)
        return op.MatMul(x, op.initializer(scaled, name="weight"))


class MatMulAddToGemm(Rule):
    """Add(MatMul(a, b), c) -> Gemm, for matrices and a bias that broadcasts into their product."""

    title = "matmul-add-gemm"
    ends = ("Add",)
    opset = 11
    commutes = True

    def pattern(self, op: Any, a: Any, b: Any, c: Any) -> Any:
        return op.Add(op.MatMul(a, b), c)

    def check(self, context: Any, a: ir.Value, b: ir.Value, c: ir.Value) -> MatchResult:
        if rank(a) != 2 or rank(b) != 2 or a.dtype not in _EXACT:
            return refuse("not float matrices")
        assert a.shape is not None
        assert b.shape is not None
        if c.shape is None or len(c.shape) > 2:
            return refuse("the rank of the bias is not at most 2")
        rows, columns = a.shape[0], b.shape[1]
        for size, whole in zip(reversed(list(c.shape)), (columns, rows), strict=False):
            named = isinstance(size, int) or size.value is not None
            if size != 1 and not (size == whole and named):
                return refuse("the bias does not broadcast into the product")
        return MatchResult()

    def rewrite(self, op: Any, a: ir.Value, b: ir.Value, c: ir.Value) -> Any:
        return op.Gemm(a, b, c)


class MergeAttentionScale(Rule):
    """MatMul(q * s, k * t) -> MatMul(q * (s * t), k): torch scales both sides by the root."""

    title = "attention-scale"
    ends = ("MatMul",)
    commutes = True

    def pattern(self, op: Any, q: Any, s: Any, k: Any, t: Any) -> Any:
        return op.MatMul(op.Mul(q, s), op.Mul(k, t))

    def check(
        self, context: Any, q: ir.Value, s: ir.Value, k: ir.Value, t: ir.Value
    ) -> MatchResult:
        # In half precision the two roots keep the products small; there they stay.
        if q.dtype not in _EXACT:
            return refuse(f"{q.dtype} keeps both scales")
        factors = scalar(s), scalar(t)
        if any(f is None or not np.isfinite(f) for f in factors):
            return refuse("a scale is not a finite constant")
        raised = (rank(s) or 0) > (rank(q) or 0) or (rank(t) or 0) > (rank(k) or 0)
        return refuse("a scale raises the rank") if raised else MatchResult()

    def rewrite(self, op: Any, q: ir.Value, s: ir.Value, k: ir.Value, t: ir.Value) -> Any:
        first, second = scalar(s), scalar(t)
        assert first is not None
        assert second is not None
        assert q.dtype is not None
        product = op.initializer(exact_in(np.asarray(first * second), q.dtype), name="scale")
        scaled = op.Mul(q, product)
        scaled.shape, scaled.type = q.shape, q.type
        return op.MatMul(scaled, k)


LINEAR: tuple[type[Rule], ...] = (
    FoldBatchNorm,
    FoldConvBias,
    FoldConvScale,
    FoldMatMulScale,
    MergeAttentionScale,
    MatMulAddToGemm,
)
