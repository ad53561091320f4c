"""Rules that sink a Transpose below operators with axes, so that it meets the one that undoes it.

Models of channels-last frameworks arrive with a pair of transposes around every convolution.
`cancel` merges those that meet and sinks them through what has no axes; these do the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import MatchResult

from autoglm.rewrite.cancel import BINARY, UNARY
from autoglm.rewrite.rule import Rule, refuse
from autoglm.rewrite.values import ints, permutation, rank, same_shape, small

REDUCTIONS = (
    *("ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin"),
    *("ReduceProd", "ReduceSum", "ReduceSumSquare"),
)


def _perm(value: ir.Value | None) -> list[int]:
    """The permutation of the Transpose that makes `value`."""
    found = permutation(value.producer()) if value is not None else None
    assert found is not None
    return found


def _node(value: ir.Value) -> ir.Node:
    node = value.producer()
    assert node is not None
    return node


def _known(moved: ir.Value) -> MatchResult:
    return MatchResult() if permutation(moved.producer()) else refuse("no permutation")


def _from(axes: Sequence[int], perm: Sequence[int]) -> list[int]:
    """Axes of the transposed tensor as axes of the tensor before it."""
    return [perm[axis] for axis in axes]


def _numbers(op: Any, numbers: Sequence[int], name: str) -> Any:
    return op.initializer(ir.Tensor(np.asarray(numbers, np.int64)), name=name)


def _without(node: ir.Node, *names: str) -> dict[str, Any]:
    return {k: v for k, v in node.attributes.items() if k not in names}


def _turned_back(op: Any, c: ir.Value, perm: Sequence[int]) -> Any:
    """The constant that broadcasts against the tensor before the Transpose as `c` does after it."""
    known = small(c)
    assert known is not None
    if known.size == 1:
        return c
    full = known.reshape((1,) * (len(perm) - known.ndim) + known.shape)
    back = np.ascontiguousarray(full.transpose(np.argsort(perm)))
    return op.initializer(ir.Tensor(back, dtype=c.dtype), name="constant")


class SinkTransposeBelowConstant(Rule):
    """f(Transpose(x), c) -> Transpose(f(x, c')) for a small constant, itself permuted back."""

    title = "transpose-constant"
    ends = BINARY
    variants = ("left", "right")

    def pattern(self, op: Any, x: Any, c: Any) -> Any:
        moved = op.Transpose(x, _outputs=["moved"])
        sides = (moved, c) if self.variant == "left" else (c, moved)
        return getattr(op, self.end)(*sides, _outputs=["y"])

    def check(self, context: Any, c: ir.Value, moved: ir.Value, **_: Any) -> MatchResult:
        perm, known = permutation(moved.producer()), small(c)
        if not perm or known is None or known.size < 2:
            return refuse("the other side is not a small constant of several elements")
        return MatchResult() if known.ndim <= len(perm) else refuse("it would raise the rank")

    def rewrite(self, op: Any, x: ir.Value, c: ir.Value, moved: ir.Value, y: ir.Value) -> Any:
        perm = _perm(moved)
        other = _turned_back(op, c, perm)
        inner = op.op(self.end, *((x, other) if self.variant == "left" else (other, x)))
        inner.type = y.type
        if same_shape(y, moved):
            inner.shape = x.shape
        return op.Transpose(inner, perm=perm)


class SinkTransposeBelowScaled(Rule):
    """Clip, QuantizeLinear and DequantizeLinear of Transpose(x) -> Transpose of theirs of x."""

    title = "transpose-scaled"
    ends = ("Clip", "QuantizeLinear", "DequantizeLinear")
    opset = 13

    def pattern(self, op: Any, x: Any) -> Any:
        moved = op.Transpose(x, _outputs=["moved"])
        return getattr(op, self.end)(moved, _allow_other_inputs=True, _outputs=["y"])

    def check(self, context: Any, moved: ir.Value, y: ir.Value, **_: Any) -> MatchResult:
        node = _node(y)
        if self.end != "Clip" and rank(node.inputs[1]) not in (0, 1):
            return refuse("the scales are of blocks, or their rank is not known")
        return _known(moved)

    def rewrite(self, op: Any, x: ir.Value, moved: ir.Value, y: ir.Value) -> Any:
        node, perm = _node(y), _perm(moved)
        attributes = dict(node.attributes)
        if self.end != "Clip" and rank(node.inputs[1]) == 1:
            attributes["axis"] = ir.AttrInt64("axis", perm[node.attributes.get_int("axis", 1)])
        inner = op.op(self.end, x, *node.inputs[1:], **attributes)
        inner.shape, inner.type = x.shape, y.type
        return op.Transpose(inner, perm=perm)


class SinkTransposeBelowSoftmax(Rule):
    """Softmax(Transpose(x)) -> Transpose(Softmax(x)) over the axis that it was."""

    title = "transpose-softmax"
    ends = ("Softmax", "LogSoftmax")
    opset = 13

    def pattern(self, op: Any, x: Any) -> Any:
        return getattr(op, self.end)(op.Transpose(x, _outputs=["moved"]), _outputs=["y"])

    def check(self, context: Any, moved: ir.Value, **_: Any) -> MatchResult:
        return _known(moved)

    def rewrite(self, op: Any, x: ir.Value, moved: ir.Value, y: ir.Value) -> Any:
        perm = _perm(moved)
        inner = op.op(self.end, x, axis=perm[_node(y).attributes.get_int("axis", -1)])
        inner.shape, inner.type = x.shape, y.type
        return op.Transpose(inner, perm=perm)


class SinkTransposeBelowConcat(Rule):
    """Concat or Sum of tensors that are all transposed alike -> one Transpose of it."""

    title = "transpose-concat"
    ends = ("Concat", "Sum")
    opset = 8

    def pattern(self, op: Any, first: Any) -> Any:
        return getattr(op, self.end)(first, _allow_other_inputs=True, _outputs=["y"])

    def check(self, context: Any, y: ir.Value, **_: Any) -> MatchResult:
        values = _node(y).inputs
        perms = [permutation(v.producer()) if v is not None else None for v in values]
        if not perms[0] or any(p != perms[0] for p in perms):
            return refuse("not all inputs are transposed alike")
        # Where every Transpose is also read elsewhere, one more would be made and none would go.
        alone = any(v is not None and len(v.uses()) == 1 for v in values)
        return MatchResult() if alone else refuse("every Transpose is read elsewhere too")

    def rewrite(self, op: Any, first: ir.Value, y: ir.Value) -> Any:
        node, perm = _node(y), _perm(first)
        attributes = {}
        if self.end == "Concat":
            attributes["axis"] = perm[node.attributes["axis"].as_int()]
        before = [_node(v).inputs[0] for v in node.inputs if v is not None]
        inner = op.op(self.end, *before, **attributes)
        inner.type = y.type
        return op.Transpose(inner, perm=perm)


class SinkTransposeBelowPad(Rule):
    """Pad(Transpose(x)) -> Transpose(Pad(x)), for known pads."""

    title = "transpose-pad"
    ends = ("Pad",)
    opset = 11

    def pattern(self, op: Any, x: Any, pads: Any) -> Any:
        moved = op.Transpose(x, _outputs=["moved"])
        return op.Pad(moved, pads, _allow_other_inputs=True, _outputs=["y"])

    def check(
        self, context: Any, pads: ir.Value, moved: ir.Value, y: ir.Value, **_: Any
    ) -> MatchResult:
        perm, known, node = permutation(moved.producer()), ints(pads), _node(y)
        if not perm or known is None:
            return refuse("the pads are not known")
        given = len(node.inputs) > 3 and node.inputs[3] is not None
        return refuse("it names its axes") if given else MatchResult()

    def rewrite(self, op: Any, x: ir.Value, pads: ir.Value, moved: ir.Value, y: ir.Value) -> Any:
        node, perm = _node(y), _perm(moved)
        known = np.asarray(ints(pads)).reshape(2, len(perm))[:, np.argsort(perm)]
        numbers = _numbers(op, known.reshape(-1).tolist(), "pads")
        inner = op.op("Pad", x, numbers, *node.inputs[2:], **dict(node.attributes))
        inner.type = y.type
        return op.Transpose(inner, perm=perm)


class SinkTransposeBelowSlice(Rule):
    """Slice(Transpose(x)) -> Transpose(Slice(x)), for known axes."""

    title = "transpose-slice"
    ends = ("Slice",)
    opset = 10

    def pattern(self, op: Any, x: Any) -> Any:
        moved = op.Transpose(x, _outputs=["moved"])
        return op.Slice(moved, _allow_other_inputs=True, _outputs=["y"])

    def check(self, context: Any, moved: ir.Value, y: ir.Value, **_: Any) -> MatchResult:
        return refuse("its axes are not known") if self._axes(_node(y)) is None else _known(moved)

    def rewrite(self, op: Any, x: ir.Value, moved: ir.Value, y: ir.Value) -> Any:
        node, perm = _node(y), _perm(moved)
        axes = self._axes(node)
        assert axes is not None
        where = _numbers(op, _from(axes, perm), "axes")
        inner = op.op("Slice", x, *node.inputs[1:3], where, *node.inputs[4:])
        inner.type = y.type
        return op.Transpose(inner, perm=perm)

    @staticmethod
    def _axes(node: ir.Node) -> list[int] | None:
        if len(node.inputs) > 3 and node.inputs[3] is not None:
            return ints(node.inputs[3])
        starts = ints(node.inputs[1])
        return None if starts is None else list(range(len(starts)))


class SinkTransposeBelowReduction(Rule):
    """Reduce(Transpose(x)) -> Reduce(x), and a Transpose of what is left where it still has one.

    Also where the Transpose is read elsewhere: what is transposed instead is the smaller result.
    """

    title = "transpose-reduce"
    ends = (*REDUCTIONS, "Squeeze")
    variants = ("alone", "shared")
    opset = 13

    def pattern(self, op: Any, x: Any) -> Any:
        moved = op.Transpose(x, _outputs=["moved"]) if self.variant == "alone" else x
        return getattr(op, self.end)(moved, _allow_other_inputs=True, _outputs=["y"])

    def check(
        self, context: Any, x: ir.Value, y: ir.Value, moved: ir.Value | None = None
    ) -> MatchResult:
        moved = moved or x
        if self.variant == "shared" and (len(moved.uses()) < 2 or self.end == "Squeeze"):
            return refuse("the other pattern takes it")
        axes = _axes(_node(y))
        return _known(moved) if axes else refuse("its axes are not known, or it has none")

    def rewrite(self, op: Any, x: ir.Value, y: ir.Value, moved: ir.Value | None = None) -> Any:
        node, perm = _node(y), _perm(moved or x)
        source, axes = _node(moved or x).inputs[0], _axes(node)
        assert axes is not None
        mine = sorted(_from(axes, perm))
        if "axes" in node.attributes:
            attributes = {**_without(node, "axes"), "axes": mine}
            inner = op.op(self.end, source, **attributes)
        else:
            numbers = _numbers(op, mine, "axes")
            inner = op.op(self.end, source, numbers, **dict(node.attributes))
        inner.type = y.type
        left = self._left(node, perm, mine)
        return inner if left == sorted(left) else op.Transpose(inner, perm=left)

    def _left(self, node: ir.Node, perm: list[int], gone: list[int]) -> list[int]:
        """The permutation of the result."""
        kept_dims = self.end != "Squeeze" and node.attributes.get_int("keepdims", 1) == 1
        if kept_dims:
            return perm
        kept = [axis for axis in perm if axis not in gone]
        return [sorted(kept).index(axis) for axis in kept]


def _axes(node: ir.Node) -> list[int] | None:
    """The axes of a reduction, as an attribute or an input; None where they are not known."""
    if "axes" in node.attributes:
        return list(node.attributes["axes"].as_ints())
    return ints(node.inputs[1]) if len(node.inputs) > 1 else None


class SinkTransposeBelowGate(Rule):
    """f(t, g(t)) for t = Transpose(x), where g is a chain of elementwise steps -> one Transpose.

    Swish, HardSwish and other gates as exporters spell them: both readers of t move at once.
    """

    title = "transpose-gate"
    ends = BINARY
    opset = 11

    def pattern(self, op: Any, a: Any, b: Any) -> Any:
        return getattr(op, self.end)(a, b, _outputs=["y"])

    def check(self, context: Any, a: ir.Value, b: ir.Value, **_: Any) -> MatchResult:
        return MatchResult() if _gate(a, b) or _gate(b, a) else refuse("no gate over a Transpose")

    def rewrite(self, op: Any, a: ir.Value, b: ir.Value, y: ir.Value) -> Any:
        plain = a if _gate(a, b) else b
        perm, source = _perm(plain), _node(plain).inputs[0]
        inner: Any = source
        for node in _gate(plain, b if plain is a else a):
            moved = [inner if _follows(v) else _turned(op, v, perm) for v in node.inputs]
            inner = op.op(node.op_type, *moved, **dict(node.attributes))
            inner.type = node.outputs[0].type
        done = op.op(self.end, *((source, inner) if plain is a else (inner, source)))
        done.type = y.type
        return op.Transpose(done, perm=perm)


_STEPS = (*UNARY, *BINARY, "Clip")
_LONGEST = 8


def _follows(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is None


def _turned(op: Any, value: ir.Value | None, perm: Sequence[int]) -> Any:
    return value if value is None else _turned_back(op, value, perm)


def _gate(moved: ir.Value, value: ir.Value) -> list[ir.Node]:
    """The steps from `moved`, a Transpose that nothing else reads, to `value`; [] where it is not
    so.
    """
    perm = permutation(moved.producer())
    steps: list[ir.Node] = []
    if not perm or len(moved.uses()) != 2 or moved.is_graph_output():
        return []
    while value is not moved:
        node = value.producer()
        alone = len(value.uses()) == 1 and not value.is_graph_output()
        if node is None or not alone or not _is_step(node, len(perm)) or len(steps) == _LONGEST:
            return []
        steps.insert(0, node)
        value = next(v for v in node.inputs if _follows(v))  # type: ignore[assignment]
    return steps


def _is_step(node: ir.Node, size: int) -> bool:
    """Whether it is elementwise in one input, and all others are small constants."""
    if node.op_type not in _STEPS or node.domain:
        return False
    others = [v for v in node.inputs if v is not None and not _follows(v)]
    return sum(map(_follows, node.inputs)) == 1 and all(
        (known := small(v)) is not None and known.ndim <= size for v in others
    )


def _moves_ones(value: ir.Value, perm: Sequence[int]) -> bool:
    """Whether transposing `value` only moves dimensions of 1, so that no element changes place."""
    if value.shape is None:
        return False
    long = [axis for axis in perm if value.shape[axis] != 1]
    return long == sorted(long)


class MoveOnesByReshape(Rule):
    """Transpose(Reshape(x)) -> Reshape(x), where only dimensions of 1 change places."""

    title = "reshape-transpose"
    ends = ("Transpose",)
    opset = 5

    def pattern(self, op: Any, x: Any, shape: Any) -> Any:
        made = op.Reshape(x, shape, _outputs=["made"])
        return op.Transpose(made, _outputs=["y"])

    def check(
        self, context: Any, shape: ir.Value, made: ir.Value, y: ir.Value, **_: Any
    ) -> MatchResult:
        perm, wanted = permutation(_node(y)), ints(shape)
        if not perm or wanted is None or 0 in wanted or not _moves_ones(made, perm):
            return refuse("elements change places, or a shape is not known")
        return MatchResult()

    def rewrite(self, op: Any, x: ir.Value, shape: ir.Value, made: ir.Value, y: ir.Value) -> Any:
        perm, wanted = permutation(_node(y)), ints(shape)
        assert perm is not None
        assert wanted is not None
        numbers = _numbers(op, [wanted[axis] for axis in perm], "shape")
        return op.op("Reshape", x, numbers, **dict(_node(made).attributes))


class DropTransposeOfOnes(Rule):
    """Reshape(Transpose(x)) -> Reshape(x), where only dimensions of 1 change places."""

    title = "transpose-reshape"
    ends = ("Reshape",)
    opset = 5

    def pattern(self, op: Any, x: Any, shape: Any) -> Any:
        return op.Reshape(op.Transpose(x, _outputs=["moved"]), shape, _outputs=["y"])

    def check(
        self, context: Any, x: ir.Value, shape: ir.Value, moved: ir.Value, **_: Any
    ) -> MatchResult:
        perm, wanted = permutation(moved.producer()), ints(shape)
        if not perm or wanted is None or 0 in wanted or not _moves_ones(x, perm):
            return refuse("elements change places, or a shape is not known")
        return MatchResult()

    def rewrite(self, op: Any, x: ir.Value, shape: ir.Value, y: ir.Value, **_: Any) -> Any:
        return op.op("Reshape", x, shape, **dict(_node(y).attributes))


SINK: tuple[type[Rule], ...] = (
    SinkTransposeBelowConstant,
    SinkTransposeBelowScaled,
    SinkTransposeBelowSoftmax,
    SinkTransposeBelowConcat,
    SinkTransposeBelowPad,
    SinkTransposeBelowSlice,
    SinkTransposeBelowReduction,
    SinkTransposeBelowGate,
    MoveOnesByReshape,
    DropTransposeOfOnes,
)
