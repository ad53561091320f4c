"""Rules that cancel work: transposes that meet, casts that lose nothing, reshapes in a row."""

from __future__ import annotations

from typing import Any, ClassVar

import ml_dtypes
import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import MatchResult

from autoglm.rewrite.rule import Rule, refuse
from autoglm.rewrite.values import ints, permutation, rank, same_shape, scalar

UNARY = (
    *("Abs", "Cast", "Ceil", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish"),
    *("LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid"),
    *("Sign", "Softplus", "Softsign", "Sqrt", "Swish", "Tanh"),
)
BINARY = ("Add", "Div", "Max", "Min", "Mul", "Pow", "PRelu", "Sub")
RESHAPES = ("Reshape", "Squeeze", "Unsqueeze", "Flatten")


class MergeTransposes(Rule):
    """Transpose(Transpose(x)) -> one Transpose, or nothing where they undo each other."""

    title = "transpose-transpose"
    ends = ("Transpose",)
    variants = ("alone", "shared")  # whether anything else reads the first one

    def pattern(self, op: Any, x: Any) -> Any:
        inner = op.Transpose(x, _outputs=["inner"]) if self.variant == "alone" else x
        return op.Transpose(inner, _outputs=["outer"])

    def check(
        self, context: Any, x: ir.Value, outer: ir.Value, inner: ir.Value | None = None
    ) -> MatchResult:
        inner = inner or x
        first, second = permutation(inner.producer()), permutation(outer.producer())
        if self.variant == "shared" and len(inner.uses()) < 2 and not inner.is_graph_output():
            return refuse("the other pattern takes it")
        return MatchResult() if first and second else refuse("a permutation is not known")

    def rewrite(self, op: Any, x: ir.Value, outer: ir.Value, inner: ir.Value | None = None) -> Any:
        node = (inner or x).producer()
        assert node is not None
        assert node.inputs[0] is not None
        x = node.inputs[0]
        first, second = permutation(node), permutation(outer.producer())
        assert first is not None
        assert second is not None
        merged = [first[axis] for axis in second]
        if merged == sorted(merged):
            return op.Identity(x)
        return op.Transpose(x, perm=merged)


class PushTransposeThroughUnary(Rule):
    """f(Transpose(x)) -> Transpose(f(x)): f stays beside its producer, and transposes meet."""

    title = "transpose-unary"
    ends = UNARY

    def pattern(self, op: Any, x: Any) -> Any:
        moved = op.Transpose(x, _outputs=["moved"])
        return getattr(op, self.end)(moved, _outputs=["y"])

    def check(self, context: Any, moved: ir.Value, **_: Any) -> MatchResult:
        return MatchResult() if permutation(moved.producer()) else refuse("no permutation")

    def rewrite(self, op: Any, x: ir.Value, moved: ir.Value, y: ir.Value) -> Any:
        node = y.producer()
        assert node is not None
        inner = op.op(self.end, x, **dict(node.attributes))
        inner.shape, inner.type = x.shape, y.type
        return op.Transpose(inner, perm=permutation(moved.producer()))


class PushTransposeThroughBinary(Rule):
    """f(Transpose(a), Transpose(b)) -> Transpose(f(a, b)), where both permute alike."""

    title = "transpose-binary"
    ends = BINARY

    def pattern(self, op: Any, a: Any, b: Any) -> Any:
        left, right = op.Transpose(a, _outputs=["left"]), op.Transpose(b, _outputs=["right"])
        return getattr(op, self.end)(left, right, _outputs=["y"])

    def check(self, context: Any, left: ir.Value, right: ir.Value, **_: Any) -> MatchResult:
        first, second = permutation(left.producer()), permutation(right.producer())
        return MatchResult() if first and first == second else refuse("permutations differ")

    def rewrite(
        self, op: Any, a: ir.Value, b: ir.Value, left: ir.Value, right: ir.Value, y: ir.Value
    ) -> Any:
        inner = op.op(self.end, a, b)
        inner.type = y.type
        return op.Transpose(inner, perm=permutation(left.producer()))


class PushTransposeThroughScalar(Rule):
    """f(Transpose(x), c) -> Transpose(f(x, c)) for a constant of one element, on either side."""

    title = "transpose-scalar"
    ends = BINARY
    variants = ("left", "right")

    def pattern(self, op: Any, x: Any, c: Any) -> Any:
        moved = op.Transpose(x, _outputs=["moved"])
        sides = (moved, c) if self.variant == "left" else (c, moved)
        return getattr(op, self.end)(*sides, _outputs=["y"])

    def check(self, context: Any, x: ir.Value, c: ir.Value, moved: ir.Value, **_: Any) -> Any:
        perm = permutation(moved.producer())
        if not perm or scalar(c) is None:
            return refuse("the other side is not a constant of one element")
        return MatchResult() if (rank(c) or 0) <= len(perm) else refuse("it would raise the rank")

    def rewrite(self, op: Any, x: ir.Value, c: ir.Value, moved: ir.Value, y: ir.Value) -> Any:
        sides = (x, c) if self.variant == "left" else (c, x)
        inner = op.op(self.end, *sides)
        inner.shape, inner.type = x.shape, y.type
        return op.Transpose(inner, perm=permutation(moved.producer()))


class MergeCasts(Rule):
    """Cast(Cast(x)) -> one Cast, only where the first loses nothing of any x."""

    title = "cast-cast"
    ends = ("Cast",)

    def pattern(self, op: Any, x: Any) -> Any:
        return op.Cast(op.Cast(x, _outputs=["inner"]), _outputs=["outer"])

    def check(self, context: Any, x: ir.Value, inner: ir.Value, outer: ir.Value) -> MatchResult:
        kinds = x.dtype, inner.dtype, outer.dtype
        if any(k is None for k in kinds):
            return refuse("a dtype is not known")
        return MatchResult() if mergeable(*kinds) else refuse("the first cast loses something")

    def rewrite(self, op: Any, x: ir.Value, inner: ir.Value, outer: ir.Value) -> Any:
        if x.dtype == outer.dtype:
            return op.Identity(x)
        node = outer.producer()
        assert node is not None
        return op.op("Cast", x, **dict(node.attributes))


def mergeable(first: Any, middle: Any, last: Any) -> bool:
    """Whether first -> middle -> last equals first -> last for every value."""
    if ir.DataType.STRING in (first, middle, last) or not lossless(first, middle):
        return False
    # A negative whole number in a float is undefined as an unsigned one, but wraps as an integer.
    crosses = first.is_integer() and middle.is_floating_point() and last.is_integer()
    return not crosses or lossless(first, last)


def lossless(source: ir.DataType, target: ir.DataType) -> bool:
    """Whether every value of `source` is a value of `target`."""
    if source == target:
        return True
    if source is ir.DataType.BOOL:
        return target.is_integer() or target.is_floating_point()
    if source.is_integer() and target.is_integer():
        a, b = (ml_dtypes.iinfo(t.numpy()) for t in (source, target))
        return bool(b.min <= a.min and a.max <= b.max)
    narrow = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE}
    if source.is_integer() and target in narrow:
        a, b = ml_dtypes.iinfo(source.numpy()), ml_dtypes.finfo(target.numpy())
        return bool(max(abs(int(a.min)), int(a.max)) <= 2 ** (b.nmant + 1) <= float(b.max))
    if source in narrow and target in narrow:
        x, y = (ml_dtypes.finfo(t.numpy()) for t in (source, target))
        least = float(x.smallest_subnormal) >= float(y.smallest_subnormal)
        return bool(x.nmant <= y.nmant and least and float(x.max) <= float(y.max))
    return False


class MergeReshapes(Rule):
    """Two reshaping operators in a row -> one Reshape, or nothing where the shape is x's again."""

    title = "reshape-reshape"
    ends = RESHAPES
    variants = RESHAPES
    opset = 13

    def pattern(self, op: Any, x: Any) -> Any:
        inner = getattr(op, self.variant)(x, _allow_other_inputs=True, _outputs=["inner"])
        return getattr(op, self.end)(inner, _allow_other_inputs=True, _outputs=["outer"])

    def check(self, context: Any, x: ir.Value, outer: ir.Value, **_: Any) -> MatchResult:
        if same_shape(x, outer) or target_shape(outer) is not None:
            return MatchResult()
        return refuse("the final shape has several unknown dimensions")

    def rewrite(self, op: Any, x: ir.Value, inner: ir.Value, outer: ir.Value) -> Any:
        if same_shape(x, outer):
            return op.Identity(x)
        shape = np.asarray(target_shape(outer), np.int64)
        return op.Reshape(x, op.initializer(ir.Tensor(shape), name="shape"))


def target_shape(value: ir.Value) -> list[int] | None:
    """A Reshape argument that gives `value`'s shape from any tensor of as many elements."""
    node = value.producer()
    wanted: list[int] | None = None
    if value.shape is not None:
        wanted = [d if isinstance(d, int) else -1 for d in value.shape]
    if (wanted is None or wanted.count(-1) > 1) and node and node.op_type == "Reshape":
        wanted = ints(node.inputs[1])
    # With a 0 the -1 is ambiguous, and a 0 in Reshape copies a dimension of another input.
    return None if wanted is None or wanted.count(-1) > 1 or 0 in wanted else wanted


class CancelSqueeze(Rule):
    """Squeeze(Unsqueeze(x)) and Unsqueeze(Squeeze(x)) over the same axes -> x."""

    title = "squeeze-unsqueeze"
    ends = ("Squeeze", "Unsqueeze")
    opset = 13
    _other: ClassVar[dict[str, str]] = {"Squeeze": "Unsqueeze", "Unsqueeze": "Squeeze"}

    def pattern(self, op: Any, x: Any, first: Any, second: Any) -> Any:
        return getattr(op, self.end)(getattr(op, self._other[self.end])(x, first), second)

    def check(self, context: Any, first: ir.Value, second: ir.Value, **_: Any) -> MatchResult:
        one, two = ints(first), ints(second)
        if one is None or two is None or sorted(one) != sorted(two):
            return refuse("the axes are not the same constants")
        return MatchResult()

    def rewrite(self, op: Any, x: ir.Value, first: ir.Value, second: ir.Value) -> Any:
        return op.Identity(x)


CANCEL: tuple[type[Rule], ...] = (
    MergeTransposes,
    PushTransposeThroughUnary,
    PushTransposeThroughBinary,
    PushTransposeThroughScalar,
    MergeCasts,
    CancelSqueeze,
    MergeReshapes,
)
