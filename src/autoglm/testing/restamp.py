"""The suite's cases at other versions of their operator.

onnx writes a case at the newest version only; models in the field name older ones. Where both
schemas
allow the node as it stands and give it the same defaults, the answer is the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from autoglm.testing.cases import Case
from autoglm.testing.generate import versions

if TYPE_CHECKING:
    import onnx

# Quantised models and control flow are written at every version; elsewhere the ends are enough,
# because what lies between two measured versions is inferred.
_EVERY = frozenset({"QuantizeLinear", "DequantizeLinear", "If", "Loop", "Scan"})
_MOST = 40  # cases per operator and version


def restamped(cases: Sequence[Case], generated: Iterable[str]) -> Iterator[Case]:
    """Cases of one node, at the versions that no case has; `generated` operators have theirs."""
    skip = frozenset(generated)
    nodes = [(case, proto) for case in cases if len((proto := case.proto()).graph.node) == 1]
    known = {(_op(proto), _since(proto)) for _, proto in nodes}
    count: Counter[tuple[str, int]] = Counter()
    for case, proto in nodes:
        op = _op(proto)
        if proto.graph.node[0].domain or op in skip:
            continue
        for version in _wanted(op):
            key = op, version
            if key in known or count[key] >= _MOST or not _same(proto, version):
                continue
            moved = _stamp(proto, version)
            if moved is not None:
                count[key] += 1
                yield replace(case, name=f"{case.name}@{version}", model=moved)


def other_versions(case: Case) -> Iterator[Case]:
    """A case of one node at the other versions that say the same of it."""
    proto = case.proto()
    if len(proto.graph.node) != 1 or proto.graph.node[0].domain:
        return
    for version in versions(_op(proto)):
        if version != _since(proto) and _same(proto, version):
            moved = _stamp(proto, version)
            if moved is not None:
                yield replace(case, name=f"{case.name}@{version}", model=moved)


def _op(proto: onnx.ModelProto) -> str:
    return str(proto.graph.node[0].op_type)


def _opset(proto: onnx.ModelProto) -> int:
    return next((int(o.version) for o in proto.opset_import if o.domain in ("", "ai.onnx")), 1)


def _since(proto: onnx.ModelProto) -> int:
    import onnx

    node = proto.graph.node[0]
    if node.domain:
        return 0
    return int(onnx.defs.get_schema(node.op_type, _opset(proto), "").since_version)


def _wanted(op: str) -> tuple[int, ...]:
    known = versions(op)
    return known if op in _EVERY else tuple(dict.fromkeys((known[0], known[-1]))) if known else ()


def _same(proto: onnx.ModelProto, version: int) -> bool:
    """Whether the node means the same at `version`: known attributes, with the same defaults."""
    import onnx

    node = proto.graph.node[0]
    here = onnx.defs.get_schema(node.op_type, _opset(proto), "")
    there = onnx.defs.get_schema(node.op_type, version, "")
    if there.deprecated or not {a.name for a in node.attribute} <= set(there.attributes):
        return False
    if len(node.input) > there.max_input or len(node.output) > there.max_output:
        return False
    shared = set(here.attributes) & set(there.attributes)
    return all(
        here.attributes[name].default_value == there.attributes[name].default_value
        for name in shared
    )


def _stamp(proto: onnx.ModelProto, version: int) -> bytes | None:
    import onnx

    moved = onnx.ModelProto()
    moved.CopyFrom(proto)
    del moved.opset_import[:]
    moved.opset_import.append(onnx.helper.make_opsetid("", version))
    try:
        onnx.checker.check_model(moved, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return None  # that version does not take these dtypes
    return bytes(moved.SerializeToString(deterministic=True))
