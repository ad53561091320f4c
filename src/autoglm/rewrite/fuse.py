"""Rules that put a decomposed operator together again, where the model's opset has it."""

from __future__ import annotations

import math
from typing import Any

import onnx_ir as ir
from onnxscript.rewriter import MatchResult

from autoglm.rewrite.rule import Rule, refuse
from autoglm.rewrite.values import FLOATS, constant, ints, is_scalar, rank, scalar, static

# The fused operators compute in float32, or with constants of float32: too coarse for double.
_NORMAL_FLOATS = FLOATS - {ir.DataType.DOUBLE}


def _small_float(x: ir.Value, *scalars: ir.Value) -> str:
    """Why a scalar pattern may not be replaced by one operator on `x`; "" where it may."""
    if x.dtype not in _NORMAL_FLOATS:
        return f"{x.dtype} would lose precision"
    if any((rank(c) or 0) > (rank(x) or 0) for c in scalars):
        return "a constant raises the rank"
    return ""


class FuseGeluErf(Rule):
    """x * 0.5 * (1 + erf(x / sqrt 2)) in its usual spellings -> Gelu."""

    title = "gelu-erf"
    ends = ("Mul",)
    variants = (
        "Div half-last",
        "Div half-in",
        "Div half-x",
        "Mul half-last",
        "Mul half-in",
        "Mul half-x",
    )
    opset = 20
    commutes = True

    def pattern(self, op: Any, x: Any, root: Any, one: Any, half: Any) -> Any:
        inner, place = self.variant.split()
        total = op.Add(op.Erf(getattr(op, inner)(x, root)), one)
        return _halved(op, x, total, half, place)

    def check(
        self, context: Any, x: ir.Value, root: ir.Value, one: ir.Value, half: ir.Value
    ) -> MatchResult:
        wanted = math.sqrt(2.0) if self.variant.startswith("Div") else math.sqrt(0.5)
        if not (is_scalar(root, wanted) and is_scalar(one, 1.0) and is_scalar(half, 0.5)):
            return refuse("a constant differs")
        reason = _small_float(x, root, one, half)
        return refuse(reason) if reason else MatchResult()

    def rewrite(self, op: Any, x: ir.Value, **_: Any) -> Any:
        return op.Gelu(x)


def _halved(op: Any, x: Any, total: Any, half: Any, place: str) -> Any:
    if place == "half-last":
        return op.Mul(op.Mul(x, total), half)
    if place == "half-in":
        return op.Mul(x, op.Mul(total, half))
    return op.Mul(op.Mul(x, half), total)


class FuseGeluTanh(Rule):
    """x * 0.5 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))) -> Gelu, approximate."""

    title = "gelu-tanh"
    ends = ("Mul",)
    variants = (
        "Pow half-last",
        "Pow half-in",
        "Pow half-x",
        "Mul half-last",
        "Mul half-in",
        "Mul half-x",
    )
    opset = 20
    commutes = True

    def pattern(
        self, op: Any, x: Any, three: Any, cubic: Any, slope: Any, one: Any, half: Any
    ) -> Any:
        power, place = self.variant.split()
        cube = op.Pow(x, three) if power == "Pow" else op.Mul(op.Mul(x, x), x)
        inside = op.Mul(op.Add(x, op.Mul(cube, cubic)), slope)
        return _halved(op, x, op.Add(op.Tanh(inside), one), half, place)

    def check(
        self,
        context: Any,
        x: ir.Value,
        three: ir.Value | None,
        cubic: ir.Value,
        slope: ir.Value,
        one: ir.Value,
        half: ir.Value,
    ) -> MatchResult:
        values = [(cubic, 0.044715), (slope, math.sqrt(2.0 / math.pi)), (one, 1.0), (half, 0.5)]
        if three is not None:
            values.append((three, 3.0))
        if not all(is_scalar(value, wanted) for value, wanted in values):
            return refuse("a constant differs")
        reason = _small_float(x, *(v for v, _ in values))
        return refuse(reason) if reason else MatchResult()

    def rewrite(self, op: Any, x: ir.Value, **_: Any) -> Any:
        return op.Gelu(x, approximate="tanh")


class FuseSwish(Rule):
    """x * Sigmoid(x) -> Swish."""

    title = "swish"
    ends = ("Mul",)
    opset = 24
    commutes = True

    def pattern(self, op: Any, x: Any) -> Any:
        return op.Mul(x, op.Sigmoid(x))

    def rewrite(self, op: Any, x: ir.Value) -> Any:
        return op.Swish(x)


class FuseHardSwish(Rule):
    """x * HardSigmoid(x), or x * Clip(x + 3, 0, 6) / 6 -> HardSwish."""

    title = "hardswish"
    ends = ("Mul", "Div")
    variants = ("sigmoid", "clip")
    opset = 14
    commutes = True

    def pattern(self, op: Any, x: Any, three: Any, low: Any, high: Any, six: Any) -> Any:
        if self.variant == "sigmoid":
            gate = op.HardSigmoid(x, _outputs=["gate"])
            return op.Mul(x, gate) if self.end == "Mul" else op.Div(op.Mul(x, gate), six)
        gate = op.Clip(op.Add(x, three), low, high, _outputs=["gate"])
        if self.end == "Div":
            return op.Div(op.Mul(x, gate), six)
        return op.Mul(x, op.Div(gate, six))

    def check(
        self,
        context: Any,
        x: ir.Value,
        gate: ir.Value,
        three: ir.Value | None = None,
        low: ir.Value | None = None,
        high: ir.Value | None = None,
        six: ir.Value | None = None,
    ) -> MatchResult:
        node = gate.producer()
        assert node is not None
        if self.variant == "sigmoid":
            if self.end == "Div":
                return refuse("a HardSigmoid is already divided")
            alpha = node.attributes.get_float("alpha", 0.2)
            beta = node.attributes.get_float("beta", 0.5)
            if abs(alpha - 1 / 6) > 1e-8 or beta != 0.5:
                return refuse(f"alpha is {alpha}, beta is {beta}")
            return MatchResult() if x.dtype in _NORMAL_FLOATS else refuse("not a float")
        wanted = [(three, 3.0), (low, 0.0), (high, 6.0), (six, 6.0)]
        if not all(is_scalar(value, number) for value, number in wanted):
            return refuse("a constant differs")
        reason = _small_float(x, *(v for v, _ in wanted if v is not None))
        return refuse(reason) if reason else MatchResult()

    def rewrite(self, op: Any, x: ir.Value, **_: Any) -> Any:
        return op.HardSwish(x)


def _over_last_axis(mean: ir.Value | None, x: ir.Value) -> bool:
    node = mean.producer() if mean is not None else None
    if node is None or node.attributes.get_int("keepdims", 1) != 1:
        return False
    if len(node.inputs) > 1:
        axes = ints(node.inputs[1])
    else:
        axes = list(node.attributes.get_ints("axes", ()))
    last = (rank(x) or 0) - 1
    return axes in ([-1], [last]) and last >= 0


def _last_vector(value: ir.Value, x: ir.Value) -> bool:
    # One number per element of the last axis; a longer one would broadcast x up.
    if x.shape is None or not isinstance(x.shape[-1], int):
        return False
    return static(value) == (x.shape[-1],) and value.dtype == x.dtype


class FuseLayerNorm(Rule):
    """(x - mean) / sqrt(mean((x - mean)^2) + eps) * scale + bias -> LayerNormalization."""

    title = "layer-norm"
    ends = ("Add",)
    variants = ("Pow", "Mul")
    opset = 17
    commutes = True

    def pattern(self, op: Any, x: Any, two: Any, eps: Any, scale: Any, bias: Any) -> Any:
        mean = op.ReduceMean(x, _allow_other_inputs=True, _outputs=["mean"])
        centred = op.Sub(x, mean)
        square = op.Pow(centred, two) if self.variant == "Pow" else op.Mul(centred, centred)
        variance = op.ReduceMean(square, _allow_other_inputs=True, _outputs=["variance"])
        normal = op.Div(centred, op.Sqrt(op.Add(variance, eps)))
        return op.Add(op.Mul(normal, scale), bias)

    def check(
        self,
        context: Any,
        x: ir.Value,
        two: ir.Value | None,
        eps: ir.Value,
        scale: ir.Value,
        bias: ir.Value,
        mean: ir.Value,
        variance: ir.Value,
    ) -> MatchResult:
        if two is not None and not is_scalar(two, 2.0):
            return refuse("the exponent is not 2")
        if not (_over_last_axis(mean, x) and _over_last_axis(variance, x)):
            return refuse("the means are not over the last axis, kept")
        return _norm_fits(x, eps, scale, bias)

    def rewrite(
        self, op: Any, x: ir.Value, eps: ir.Value, scale: ir.Value, bias: ir.Value, **_: Any
    ) -> Any:
        return op.LayerNormalization(x, scale, bias, axis=-1, epsilon=scalar(eps))


def _norm_fits(x: ir.Value, eps: ir.Value, *vectors: ir.Value) -> MatchResult:
    if x.dtype not in _NORMAL_FLOATS:
        return refuse(f"{x.dtype} would be computed in float32")
    epsilon = scalar(eps)
    if epsilon is None or epsilon < 0 or (rank(eps) or 0) > (rank(x) or 0):
        return refuse("epsilon is not a constant")
    if not all(_last_vector(v, x) for v in vectors):
        return refuse("scale or bias is not one number per element of the last axis")
    return MatchResult()


class FuseRMSNorm(Rule):
    """x / sqrt(mean(x^2) + eps) * scale -> RMSNormalization."""

    title = "rms-norm"
    ends = ("Mul",)
    variants = ("Pow Div", "Pow Reciprocal", "Mul Div", "Mul Reciprocal")
    opset = 23
    commutes = True

    def pattern(self, op: Any, x: Any, two: Any, eps: Any, scale: Any) -> Any:
        power, divide = self.variant.split()
        square = op.Pow(x, two) if power == "Pow" else op.Mul(x, x)
        mean = op.ReduceMean(square, _allow_other_inputs=True, _outputs=["mean"])
        root = op.Sqrt(op.Add(mean, eps))
        normal = op.Div(x, root) if divide == "Div" else op.Mul(x, op.Reciprocal(root))
        return op.Mul(normal, scale)

    def check(
        self,
        context: Any,
        x: ir.Value,
        two: ir.Value | None,
        eps: ir.Value,
        scale: ir.Value,
        mean: ir.Value,
    ) -> MatchResult:
        if two is not None and not is_scalar(two, 2.0):
            return refuse("the exponent is not 2")
        if not _over_last_axis(mean, x):
            return refuse("the mean is not over the last axis, kept")
        return _norm_fits(x, eps, scale)

    def rewrite(self, op: Any, x: ir.Value, eps: ir.Value, scale: ir.Value, **_: Any) -> Any:
        return op.RMSNormalization(x, scale, axis=-1, epsilon=scalar(eps))


class StripSoftmaxGuard(Rule):
    """Where(IsNaN(Softmax(x)), 0, Softmax(x)) -> Softmax(x), as torch's exporter writes attention.

    The guard matters where a row of x is wholly -inf or x holds NaN or +inf: it turns that row into
    zeros. Finiteness of scores cannot be proven from a graph, so this is off unless asked for, and
    even then refuses when a mask may close a whole row.
    """

    title = "softmax-guard"
    ends = ("Where",)

    def pattern(self, op: Any, x: Any, zero: Any) -> Any:
        weights = op.Softmax(x, _outputs=["weights"])
        return op.Where(op.IsNaN(weights), zero, weights)

    def check(self, context: Any, x: ir.Value, zero: ir.Value, weights: ir.Value) -> MatchResult:
        if not is_scalar(zero, 0.0) or (rank(zero) or 0) > (rank(x) or 0):
            return refuse("the guard does not put zero")
        node = weights.producer()
        assert node is not None
        if node.attributes.get_int("axis", -1) not in (-1, (rank(x) or 0) - 1):
            return refuse("the softmax is not over the last axis")
        return MatchResult() if _open_rows(x) else refuse("a mask may close a whole row")

    def rewrite(self, op: Any, x: ir.Value, zero: ir.Value, weights: ir.Value) -> Any:
        node = weights.producer()
        assert node is not None
        return op.op("Softmax", x, **dict(node.attributes))


def _open_rows(x: ir.Value) -> bool:
    """Whether no mask on the way to `x` can put -inf into a whole row."""
    node = x.producer()
    if node is None or node.op_type in ("MatMul", "Gemm"):
        return True
    if node.op_type in ("Mul", "Div", "Transpose", "Reshape"):
        return all(_open_rows(v) for v in node.inputs[:1] if v is not None)
    if node.op_type != "Add":
        return False
    for value in node.inputs:
        mask = constant(value)
        if mask is None:
            if value is None or value.producer() is None or not _open_rows(value):
                return False
        elif mask.ndim == 0 or not (mask > -math.inf).any(axis=-1).all():
            return False
    return True


FUSE: tuple[type[Rule], ...] = (
    FuseGeluErf,
    FuseGeluTanh,
    FuseLayerNorm,
    FuseRMSNorm,
    FuseHardSwish,
    FuseSwish,
    StripSoftmaxGuard,
)
