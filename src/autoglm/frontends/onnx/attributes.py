"""Attributes of a node against the operator's schema: types, required ones, sizes, repeats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING

from autoglm.errors import LimitError, ModelError
from autoglm.frontends import shown
from autoglm.frontends.onnx.tensors import check_tensor
from autoglm.frontends.onnx.types import check_type

if TYPE_CHECKING:
    import onnx

_MAX_TEXT_BYTES = 1 << 20  # of one string attribute of a standard operator
_MAX_NAME = 65_536
_FIELD = {
    "FLOAT": "f",
    "INT": "i",
    "STRING": "s",
    "TENSOR": "t",
    "GRAPH": "g",
    "FLOATS": "floats",
    "INTS": "ints",
    "STRINGS": "strings",
    "TENSORS": "tensors",
    "GRAPHS": "graphs",
    "SPARSE_TENSOR": "sparse_tensor",
    "SPARSE_TENSORS": "sparse_tensors",
    "TYPE_PROTO": "tp",
    "TYPE_PROTOS": "type_protos",
}


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The bodies that a node's attributes hold."""
    for attribute in node.attribute:
        if attribute.type == attribute.GRAPH:
            yield attribute.g
        elif attribute.type == attribute.GRAPHS:
            yield from attribute.graphs


def check_attributes(node: onnx.NodeProto, where: str, opsets: Mapping[str, int]) -> None:
    """Settle the types of a node's attributes, and compare them with the operator's schema."""
    if not node.op_type:
        raise ModelError("{where} has no operator.", hint="Export it again.", where=where)
    if len(node.name) > _MAX_NAME or len(node.op_type) > _MAX_NAME:
        raise LimitError("A node's name is longer than {limit} characters.", limit=_MAX_NAME)
    if node.domain == "ai.onnx":
        node.domain = ""
    schema = _schema(node, where, opsets)
    seen: set[str] = set()
    for attribute in node.attribute:
        if not attribute.name or attribute.name in seen:
            raise ModelError(
                "{where} has the attribute {name} twice."
                if attribute.name
                else "{where} has an attribute without a name.",
                where=where,
                name=shown(attribute.name),
            )
        seen.add(attribute.name)
        _settle_type(attribute, where, schema)
        _check_content(node, attribute, where)
    if schema is not None:
        _check_schema(node, seen, where, schema)


def _schema(
    node: onnx.NodeProto, where: str, opsets: Mapping[str, int]
) -> onnx.defs.OpSchema | None:
    version = opsets.get(node.domain)
    if version is None and not node.domain:
        raise ModelError(
            "{where} needs an opset of ai.onnx, and the model imports none.",
            hint="Add the opset_import, or export the model again.",
            where=where,
        )
    return None if version is None else _lookup(node.op_type, version, node.domain)


@cache
def _lookup(op: str, version: int, domain: str) -> onnx.defs.OpSchema | None:
    import onnx

    try:
        return onnx.defs.get_schema(op, version, domain)
    except onnx.defs.SchemaError:
        return None  # a custom or withdrawn operator; backends will say whether they know it


def _settle_type(
    attribute: onnx.AttributeProto, where: str, schema: onnx.defs.OpSchema | None
) -> None:
    known = schema.attributes.get(attribute.name) if schema is not None else None
    if attribute.type == attribute.UNDEFINED:  # allowed in IR version 1
        held = [t for t, f in _FIELD.items() if _holds(attribute, f)]
        expected = known.type.name if known is not None else ""
        kind = held[0] if len(held) == 1 else expected
        if not kind:
            raise ModelError(
                "{where}: attribute {name} has no type.", where=where, name=shown(attribute.name)
            )
        attribute.type = attribute.AttributeType.Value(kind)
    found = attribute.AttributeType.Name(attribute.type)
    strange = [f for t, f in _FIELD.items() if t != found and _holds(attribute, f)]
    if strange and not attribute.ref_attr_name:
        raise ModelError(
            "{where}: attribute {name} is declared {declared} and holds {field}.",
            where=where,
            name=shown(attribute.name),
            declared=found,
            field=strange[0],
        )
    if known is not None and known.type.name != found:
        raise ModelError(
            "{where}: attribute {name} must be {expected}, found {found}.",
            hint="The node was written for another opset, or the file is damaged.",
            where=where,
            name=shown(attribute.name),
            expected=known.type.name,
            found=found,
        )


def _holds(attribute: onnx.AttributeProto, field: str) -> bool:
    repeated = field.endswith("s") and field != "s"
    return bool(len(getattr(attribute, field))) if repeated else attribute.HasField(field)


def _check_content(node: onnx.NodeProto, attribute: onnx.AttributeProto, where: str) -> None:
    size = len(attribute.s) + sum(len(s) for s in attribute.strings)
    if not node.domain and size > _MAX_TEXT_BYTES:
        raise LimitError(
            "{where}: attribute {name} holds {size} bytes of text; the limit is {limit}.",
            where=where,
            name=shown(attribute.name),
            size=size,
            limit=_MAX_TEXT_BYTES,
        )
    if attribute.type == attribute.STRINGS and any(not _is_text(s) for s in attribute.strings):
        raise ModelError(
            "{where}: attribute {name} is not UTF-8.", where=where, name=shown(attribute.name)
        )
    for tensor in (*([attribute.t] * attribute.HasField("t")), *attribute.tensors):
        check_tensor(tensor)
    for kind in (*([attribute.tp] * attribute.HasField("tp")), *attribute.type_protos):
        check_type(attribute.name, kind)


def _is_text(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _check_schema(
    node: onnx.NodeProto, given: set[str], where: str, schema: onnx.defs.OpSchema
) -> None:
    missing = [n for n, a in schema.attributes.items() if a.required and n not in given]
    if missing:
        raise ModelError(
            "{where} lacks the attribute {name}.",
            hint="The model is incomplete: export it again.",
            where=where,
            name=missing[0],
        )
    limits = (
        ("inputs", node.input, schema.min_input, schema.max_input),
        ("outputs", node.output, schema.min_output, schema.max_output),
    )
    for what, names, low, high in limits:
        if not low <= len(names) <= high:
            raise ModelError(
                "{where} has {found} {what}; opset {opset} allows {low} to {high}.",
                hint="The node was written for another opset, or the file is damaged.",
                where=where,
                found=len(names),
                what=what,
                opset=schema.since_version,
                low=low,
                high=high,
            )
    for formal, name in zip(schema.inputs, node.input, strict=False):
        if not name and formal.option.name == "Single":
            raise ModelError(
                "{where} lacks its input {name}.",
                hint="The model is incomplete: export it again.",
                where=where,
                name=formal.name,
            )
