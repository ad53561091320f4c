"""Raise a model of an opset below 18 to 18, without changing any answer.

Every operator that ONNX revised is moved one version at a time: either the revision only widened
it (`SAME`), or one of `adapters` rewrites the node. A node that cannot be moved exactly keeps the
whole model at its opset, with the reason in `autoglm.opset_note`.

onnx's own version converter is not used: it resizes with other pixels from opset 10 on, appends the
dimensions of an opset 6 `axis` at the wrong end, writes float bounds for float16 Clip, and drops
the metadata of nodes.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

from autoglm.errors import ModelError
from autoglm.frontends import all_nodes, shown

if TYPE_CHECKING:
    import onnx_ir as ir

TARGET = 18
NOTE = "autoglm.opset_note"
_TARGET_IR = 8  # the first IR version that came with opset 18

# Operator -> versions whose revision only widened it: more types, more axes, clearer words.
_SAME_TEXT = """
Abs 13; Add 13 14; ArgMax 11 12 13; ArgMin 11 12 13; AveragePool 7 10 11; BatchNormalization 15;
Cast 9 13; Ceil 13; Clip 12 13; Compress 11; Concat 11 13; Constant 9 11 12 13; Conv 11;
ConvTranspose 11; CumSum 14; DepthToSpace 11 13; DequantizeLinear 13; Div 13 14; Dropout 13;
Equal 11 13; Erf 13; Exp 13; Expand 13; Flatten 9 11 13; Floor 13; GRU 3 14; Gather 11 13;
GatherElements 13; GatherND 12 13; Gemm 9 11 13; Greater 9 13; GreaterOrEqual 16; Hardmax 11;
Identity 13 14 16; If 11 13 16; IsNaN 13; LRN 13; LSTM 14; LeakyRelu 16; Less 9 13; LessOrEqual 16;
Log 13; LogSoftmax 11; Loop 11 13 16; LpPool 11 18; MatMul 9 13; Max 8 12 13; MaxPool 8 10 11 12;
MaxUnpool 11; Mean 8 13; MeanVarianceNormalization 13; Min 8 12 13; Mod 13; Mul 13 14; Neg 13;
NegativeLogLikelihoodLoss 13; NonMaxSuppression 11; NonZero 13; OneHot 11; OptionalGetElement 18;
OptionalHasElement 18; PRelu 9 16; Pad 13 18; Pow 12 13 15; QuantizeLinear 13; RNN 14;
Reciprocal 13;
ReduceL1 11 13; ReduceL2 11 13; ReduceLogSum 11 13; ReduceLogSumExp 11 13; ReduceMax 11 12 13;
ReduceMean 11 13; ReduceMin 11 12 13; ReduceProd 11 13; ReduceSum 11; ReduceSumSquare 11 13;
Relu 13 14; Reshape 13 14; Resize 18; Scan 11 16; ScatterElements 13 16 18; ScatterND 13 16 18;
Shape 13 15; Sigmoid 13; Sign 13; Size 13; Slice 11 13; Softmax 11; SoftmaxCrossEntropyLoss 13;
SpaceToDepth 13; Split 11; Sqrt 13; Squeeze 11; Sub 13 14; Sum 8 13; Tanh 13; Tile 13; TopK 11;
Transpose 13; Unsqueeze 11; Where 16
"""
SAME: dict[str, frozenset[int]] = {
    words[0]: frozenset(map(int, words[1:]))
    for words in (row.split() for row in _SAME_TEXT.split(";"))
}


class CannotRaise(Exception):
    """A node has no exact counterpart in the next opset; the text says why."""


def raise_opset(model: ir.Model) -> ir.Model:
    """The model at opset 18, or the model itself with a note where that cannot be exact."""
    start = model.opset_imports.get("", TARGET)
    if start >= TARGET:
        return model
    raised = model.clone()
    try:
        _move(raised.graph, start, TARGET)
    except CannotRaise as reason:
        model.metadata_props[NOTE] = f"kept at opset {start}: {reason}"
        model.ir_version = max(model.ir_version, 4)
        return model
    raised.opset_imports[""] = TARGET
    raised.ir_version = max(raised.ir_version, _TARGET_IR)
    return raised


def move(graph: ir.Graph, domain: str, start: int, end: int) -> None:
    """Move a function's body (or its caller's graph) to another opset; ModelError if inexact."""
    try:
        if not domain:
            _move(graph, start, min(end, TARGET))
            start = max(start, min(end, TARGET))
        for node in all_nodes(graph):
            if node.domain == domain and _since(node.op_type, start, domain) != _since(
                node.op_type, end, domain
            ):
                raise CannotRaise(f"{node.op_type} changed between opset {start} and {end}")
    except CannotRaise as reason:
        raise ModelError(
            "The model and its local functions use different opsets of {domain}: {reason}.",
            hint="Export the model and its functions with one opset.",
            domain=shown(domain or "ai.onnx"),
            reason=str(reason),
        ) from reason


def _move(graph: ir.Graph, start: int, end: int) -> None:
    from autoglm.frontends.opset.adapters import ADAPTERS, Edit

    edit = Edit(graph)
    for version in range(start + 1, end + 1):
        for node in list(all_nodes(graph)):
            if node.domain:
                continue
            op = node.op_type
            adapt = ADAPTERS.get((op, version))
            if adapt is not None:
                adapt(edit, node)
            elif _since(op, version) == version and version not in SAME.get(op, ()):
                raise CannotRaise(f"{op} ({node.name}) changed in opset {version}")
            elif _since(op, version) == 0:
                raise CannotRaise(f"{op} ({node.name}) is not an operator of ONNX")


@cache
def _since(op: str, version: int, domain: str = "") -> int:
    # The revision in force at an opset; 0 where there is none.
    import onnx

    try:
        return int(onnx.defs.get_schema(op, version, domain).since_version)
    except onnx.defs.SchemaError:
        return 0


def revisions(ops: Iterable[str] = ()) -> dict[str, set[int]]:
    """Operator -> every version up to 18 at which ONNX revised it, the first one left out."""
    import onnx

    found: dict[str, set[int]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "" and (not ops or schema.name in ops):
            found.setdefault(schema.name, set()).add(int(schema.since_version))
    return {
        op: {v for v in versions if min(versions) < v <= TARGET} for op, versions in found.items()
    }
