"""One node as a small model of simpler ones: by a rule of ours, or by the body ONNX gives."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import onnx_ir as ir

from autoglm.errors import ModelError
from autoglm.rewrite import decompose_index, decompose_more  # they register their rules
from autoglm.rewrite.clean import remove_dead_code, remove_identities, resolve_cast_like
from autoglm.rewrite.decompose import DECOMPOSITIONS, Build, Tape
from autoglm.rewrite.facts import node_name, since_version, subgraphs
from autoglm.rewrite.fold import fold_constants, lift_constants, simplify_shapes
from autoglm.rewrite.shapes import infer_in_place
from autoglm.rewrite.values import constant

BODY = "function-body"
OUTSIDE = "outside"  # in the piece's meta: its own values -> those of the model it was made for
_SMALL_BYTES = 1 << 16
_DOMAIN = "autoglm.body"
assert decompose_index
assert decompose_more


def expand(model: ir.Model, node: ir.Node, rule: str) -> ir.Model | None:
    """The node as a model of its own after one rule, or `BODY`; None where that does not apply."""
    opset = model.opset_imports.get("", 1)
    if rule == BODY:
        return _expand_body(model, node)
    for known in DECOMPOSITIONS.get(node.op_type, ()) if not node.domain else ():
        if known.name == rule:
            return _expand_own(model, node, known.build, opset)
    return None


def _copy(value: ir.Value, name: str) -> ir.Value:
    known = constant(value) if _is_small(value) else None
    return ir.Value(
        name=name,
        type=value.type,
        shape=value.shape,
        const_value=value.const_value if known is not None else None,
    )


def _is_small(value: ir.Value) -> bool:
    return value.const_value is not None and value.const_value.nbytes <= _SMALL_BYTES


def _alone(node: ir.Node) -> tuple[ir.Node, dict[ir.Value, ir.Value]] | None:
    """The node over copies of its inputs; None where it has bodies or untyped inputs."""
    if any(True for _ in subgraphs(node)) and node.op_type != "SequenceMap":
        return None
    given = list(dict.fromkeys(v for v in node.inputs if v is not None))
    if any(v.type is None for v in given):
        return None
    copies = {v: _copy(v, f"in{i}") for i, v in enumerate(given)}
    alone = ir.Node(
        node.domain,
        node.op_type,
        [None if v is None else copies[v] for v in node.inputs],
        [a for a in node.attributes.values() if a.type is not ir.AttributeType.GRAPH],
        num_outputs=len(node.outputs),
        name=node_name(node),
    )
    for old, new in zip(node.outputs, alone.outputs, strict=True):
        wanted = bool(old.uses()) or old.is_graph_output()
        new.name = f"out{old.index()}" if wanted and old.name else ""
        new.type, new.shape = old.type, old.shape
    return alone, copies


def _piece(
    model: ir.Model,
    copies: dict[ir.Value, ir.Value],
    nodes: list[ir.Node],
    outputs: list[ir.Value],
    initializers: list[ir.Value],
) -> ir.Model:
    fed = [v for v in copies.values() if v.const_value is None]
    known = [v for v in copies.values() if v.const_value is not None]
    graph = ir.Graph(
        fed,
        outputs,
        nodes=nodes,
        initializers=[*known, *initializers],
        opset_imports=dict(model.opset_imports),
        name="piece",
    )
    return ir.Model(graph, ir_version=model.ir_version)


def _expand_own(model: ir.Model, node: ir.Node, build: Build, opset: int) -> ir.Model | None:
    found = _alone(node)
    if found is None:
        return None
    alone, copies = found
    op = Tape()
    made = build(op, alone, opset)
    tape = op.tape
    if made is None:
        return None
    outputs = list(made) if isinstance(made, (list, tuple)) else [made]
    wanted = [v for v in alone.outputs if v.name]
    if any(v.index() >= len(outputs) for v in wanted):  # type: ignore[operator]
        return None
    chosen = [outputs[v.index() or 0] for v in wanted]
    for old, new in zip(wanted, chosen, strict=True):
        new.name, new.type, new.shape = old.name, old.type, old.shape
    _name_all(tape.nodes, tape.initializers)
    # The copy of the node has served; its inputs must not count it as a reader.
    for position in range(len(alone.inputs)):
        alone.replace_input_with(position, None)
    piece = _piece(model, copies, list(tape.nodes), chosen, list(tape.initializers))
    return _tidy(piece, copies)


def _name_all(nodes: Sequence[ir.Node], initializers: Sequence[ir.Value]) -> None:
    for count, node in enumerate(nodes):
        node.name = f"n{count}"
        for value in node.outputs:
            if not (value.name or "").startswith("out"):
                value.name = f"n{count}:{value.index()}"
    for count, value in enumerate(initializers):
        value.name = f"c{count}"
        assert value.const_value is not None
        value.const_value.name = value.name


def _expand_body(model: ir.Model, node: ir.Node) -> ir.Model | None:
    import onnx
    import onnx.inliner

    found = _alone(node)
    opset = model.opset_imports.get("", 1)
    if found is None or node.domain:
        return None
    alone, copies = found
    wanted = [v for v in alone.outputs if v.name]
    proto = _proto_of(node, alone)
    function = _function(proto, alone.inputs, opset)
    if function is None:
        return None
    piece = ir.to_proto(_piece(model, copies, [alone], wanted, []))
    call = piece.graph.node[0]
    call.CopyFrom(proto)
    call.domain = function.domain = _DOMAIN
    del call.attribute[:]
    call.attribute.extend(a for a in proto.attribute if a.type != onnx.AttributeProto.GRAPH)
    piece.opset_import.append(onnx.helper.make_opsetid(_DOMAIN, 1))
    piece.functions.append(function)
    inlined = ir.from_proto(onnx.inliner.inline_local_functions(piece))
    inlined.opset_imports.pop(_DOMAIN, None)
    by_name = {v.name: v for v in (*inlined.graph.inputs, *inlined.graph.initializers.values())}
    return _tidy(inlined, {v: by_name[c.name] for v, c in copies.items() if c.name in by_name})


def _proto_of(node: ir.Node, alone: ir.Node) -> Any:
    import onnx

    proto = ir.to_proto(alone)
    given = {a.name for a in proto.attribute}
    for attribute in node.attributes.values():
        if attribute.type is ir.AttributeType.GRAPH:
            proto.attribute.append(ir.to_proto(attribute))
    schema = onnx.defs.get_schema(node.op_type)
    for name, attribute in schema.attributes.items():
        default = attribute.default_value
        if name not in given and default.type != onnx.AttributeProto.UNDEFINED:
            proto.attribute.append(default)
    return proto


def _function(proto: Any, inputs: Sequence[ir.Value | None], opset: int) -> Any:
    """The operator's own body in this opset; None where ONNX defines none that fits."""
    import onnx

    try:
        schema = onnx.defs.get_schema(proto.op_type, opset)
    except onnx.defs.SchemaError:
        return None
    types = [_type_bytes(v) for v in inputs]
    data = b""
    if schema.has_function:
        fits = [v for v in schema.function_opset_versions if v <= opset]
        data = schema.get_function_with_opset_version(max(fits)) if fits else b""
    elif schema.has_context_dependent_function:
        fits = [v for v in schema.context_dependent_function_opset_versions if v <= opset]
        raw = proto.SerializeToString()
        if fits:
            data = schema.get_context_dependent_function_with_opset_version(max(fits), raw, types)
    if not data:
        return None
    function = onnx.FunctionProto.FromString(data)
    written = next((o.version for o in function.opset_import if not o.domain), opset)
    if not all(_unchanged(n.op_type, written, opset) for n in function.node):
        return None
    del function.opset_import[:]
    function.opset_import.append(onnx.helper.make_opsetid("", opset))
    return function


@cache
def _unchanged(op: str, written: int, opset: int) -> bool:
    """Whether later versions of `op` only take more dtypes, or more that may be left out."""
    import onnx

    if since_version("", op, written) == since_version("", op, opset):
        return True
    try:
        old, new = (onnx.defs.get_schema(op, v) for v in (written, opset))
    except onnx.defs.SchemaError:
        return False
    same = all(
        k in new.attributes and new.attributes[k].default_value == a.default_value
        for k, a in old.attributes.items()
    )
    inputs = new.inputs[: len(old.inputs)]
    return same and [i.name for i in inputs] == [i.name for i in old.inputs]


def _type_bytes(value: ir.Value | None) -> bytes:
    import onnx

    proto = onnx.TypeProto()
    if value is not None and value.type is not None:
        proto = ir.serde.serialize_type(value.type)
        if value.shape is not None:
            ir.serde.serialize_shape_into(proto, value.shape)
    return bytes(proto.SerializeToString())


def _tidy(piece: ir.Model, copies: dict[ir.Value, ir.Value]) -> ir.Model | None:
    """Types everywhere, constants folded, and the link back to the values outside."""
    try:
        lift_constants(piece)
        infer_in_place(piece)
    except ModelError:
        return None
    resolve_cast_like(piece)
    if fold_constants(piece) + simplify_shapes(piece):
        infer_in_place(piece)
        fold_constants(piece)
    remove_identities(piece)
    remove_dead_code(piece)
    piece.graph.meta[OUTSIDE] = {inner: outer for outer, inner in copies.items()}
    return piece
