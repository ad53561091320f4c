"""What capability tables and the planner see of a model, and the digest that names it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
import onnx_ir as ir

from autoglm.spec import Dim, NodeFacts, ValueFacts
from autoglm.tensor.dtype import from_onnx

SOURCE = "autoglm.source"

_CHUNK_BYTES = 1 << 26
_FEW = 16  # integers: axes, pads and steps, but no table of indices
_INTEGERS = (ir.DataType.INT64, ir.DataType.INT32)
_PLAIN = {
    ir.AttributeType.INT,
    ir.AttributeType.FLOAT,
    ir.AttributeType.STRING,
}
_LISTS = {ir.AttributeType.INTS, ir.AttributeType.FLOATS, ir.AttributeType.STRINGS}


def node_name(node: ir.Node) -> str:
    """The node's name, or `Op:first_output` where it has none."""
    if node.name:
        return node.name
    first = next((v.name for v in node.outputs if v.name), "")
    return f"{node.op_type}:{first}"


def sources(node: ir.Node) -> tuple[str, ...]:
    """Names of the source nodes this node came from; its own name where no pass touched it."""
    text = node.metadata_props.get(SOURCE, "")
    return tuple(text.split(",")) if text else (node_name(node),)


def op_name(node: ir.Node) -> str:
    """`Conv`, or `domain::Op` outside the default ONNX domain."""
    return f"{node.domain}::{node.op_type}" if node.domain else node.op_type


@cache
def since_version(domain: str, op: str, opset: int) -> int:
    """The schema version in force at `opset`; the opset itself where onnx has no schema."""
    import onnx

    try:
        return int(onnx.defs.get_schema(op, opset, domain).since_version)
    except onnx.defs.SchemaError:
        return opset


@cache
def is_standard(domain: str, op: str) -> bool:
    """Whether onnx itself defines the operator, in any version."""
    import onnx

    return bool(onnx.defs.has(op, domain))


def subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    """The bodies that this node's attributes hold."""
    for attribute in node.attributes.values():
        if attribute.type is ir.AttributeType.GRAPH and not attribute.is_ref():
            yield attribute.as_graph()
        elif attribute.type is ir.AttributeType.GRAPHS and not attribute.is_ref():
            yield from attribute.as_graphs()


def deep_nodes(node: ir.Node) -> Iterator[ir.Node]:
    """The nodes of this node's bodies, and of theirs."""
    for graph in subgraphs(node):
        for inner in graph:
            yield inner
            yield from deep_nodes(inner)


def topological(graph: ir.Graph) -> list[ir.Node]:
    """The graph's nodes, each after what it reads; the file's order wherever that already holds."""
    ordered: dict[ir.Node, None] = {}
    entered: set[ir.Node] = set()  # a node met again while it is entered closes a cycle
    for node in graph:
        pending = [node]
        while pending:
            top = pending[-1]
            missing = [p for p in _producers(top, graph) if p not in ordered and p not in entered]
            entered.add(top)
            if missing:
                pending += reversed(missing)
            else:
                ordered.setdefault(pending.pop())
    return list(ordered)


def _producers(node: ir.Node, graph: ir.Graph) -> Iterator[ir.Node]:
    for reader in (node, *deep_nodes(node)):
        for value in reader.inputs:
            producer = None if value is None else value.producer()
            if producer is not None and producer.graph is graph:
                yield producer


def node_facts(model: ir.Model) -> list[NodeFacts]:
    """Every node of the main graph, in topological order."""
    opsets = model.opset_imports
    seen: dict[ir.Value, ValueFacts] = {}
    return [_facts(node, opsets, seen) for node in topological(model.graph)]


def facts_of(node: ir.Node, opsets: Mapping[str, int]) -> NodeFacts:
    """One node, as `node_facts` gives it."""
    return _facts(node, opsets, {})


def _facts(node: ir.Node, opsets: Mapping[str, int], seen: dict[ir.Value, ValueFacts]) -> NodeFacts:
    domain = "" if node.domain == "ai.onnx" else node.domain
    opset = node.version or opsets.get(domain, 1)
    body = tuple(_facts(inner, opsets, seen) for g in subgraphs(node) for inner in g)
    return NodeFacts(
        name=node_name(node),
        op=f"{domain}::{node.op_type}" if domain else node.op_type,
        since=since_version(domain, node.op_type, opset),
        inputs=tuple(None if v is None else _value(v, seen) for v in node.inputs),
        outputs=tuple(_value(v, seen) for v in node.outputs),
        attributes=_attributes(node) if node.attributes else {},
        body=tuple(_flat(body)) if body else (),
        standard=is_standard(domain, node.op_type),
    )


def _flat(nodes: tuple[NodeFacts, ...]) -> Iterator[NodeFacts]:
    # A nested body is already flat in its own node; here its nodes come beside their parent.
    for node in nodes:
        yield node
        yield from node.body


def _value(value: ir.Value, seen: dict[ir.Value, ValueFacts]) -> ValueFacts:
    found = seen.get(value)
    if found is None:
        found = seen[value] = value_facts(value)
    return found


def value_facts(value: ir.Value) -> ValueFacts:
    """Dtype, shape, kind, and what of the value is known before running."""
    kind = value.type
    name = "tensor"
    if isinstance(kind, ir.SequenceType):
        name = "sequence"
    elif isinstance(kind, ir.OptionalType):
        name = "optional"
    constant = _is_constant(value)
    return ValueFacts(
        dtype_name(value), dims(value), constant, name, _few_ints(value) if constant else None
    )


def _few_ints(value: ir.Value) -> tuple[int, ...] | None:
    """The values of a constant of at most `_FEW` integers."""
    tensor, producer = value.const_value, value.producer()
    if tensor is None and producer is not None:
        attribute = next(iter(producer.attributes.values()), None)
        if attribute is None or attribute.is_ref():
            return None
        if attribute.type is ir.AttributeType.INT:
            return (int(attribute.value),)
        if attribute.type is ir.AttributeType.INTS:
            return tuple(attribute.as_ints()) if len(attribute.as_ints()) <= _FEW else None
        tensor = attribute.as_tensor() if attribute.type is ir.AttributeType.TENSOR else None
    if tensor is None or tensor.dtype not in _INTEGERS or tensor.size > _FEW:
        return None
    return tuple(int(n) for n in tensor.numpy().reshape(-1))


def _is_constant(value: ir.Value) -> bool:
    producer = value.producer()
    if producer is not None:
        # Every engine folds it; onnx_ir says nothing of its value where no pass has lifted it.
        return producer.op_type == "Constant" and producer.domain in ("", "ai.onnx")
    return value.const_value is not None and not value.is_graph_input()


def dtype_name(value: ir.Value) -> str:
    """NumPy's or ml_dtypes' name of the element type; "" where it is unknown."""
    dtype = value.dtype
    if dtype is None and value.const_value is not None:
        dtype = value.const_value.dtype
    return "" if dtype is None else from_onnx(int(dtype))


def dims(value: ir.Value) -> tuple[Dim, ...] | None:
    """The shape as ints, symbol names and None; None where the rank is unknown."""
    shape = value.shape
    if shape is None:
        if value.const_value is None:
            return None
        shape = value.const_value.shape  # type: ignore[assignment]
    assert shape is not None
    return tuple(d if isinstance(d, int) else d.value for d in shape.dims)


def _attributes(node: ir.Node) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for name, attribute in node.attributes.items():
        if attribute.is_ref():
            continue
        if attribute.type in _PLAIN:
            plain[name] = attribute.value
        elif attribute.type in _LISTS:
            plain[name] = tuple(attribute.value)
    return plain


def model_digest(model: ir.Model) -> str:
    """sha256 over names, operators, attributes, shapes, opsets, weights; not documentation."""
    state = hashlib.sha256()
    _text(state, "opsets", *(f"{d}={v}" for d, v in sorted(model.opset_imports.items())))
    _hash_graph(state, model.graph)
    for identifier, function in sorted(model.functions.items()):
        _text(state, "function", *identifier)
        _text(state, "opsets", *(f"{d}={v}" for d, v in sorted(function.opset_imports.items())))
        _text(state, "attributes", *sorted(function.attributes))
        _hash_graph(state, function.graph)
    return state.hexdigest()


def _text(state: Any, *parts: str) -> None:
    for part in parts:
        data = part.encode()
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)


def _hash_graph(state: Any, graph: ir.Graph) -> None:
    _text(state, "inputs", *map(_describe, graph.inputs))
    for name in sorted(graph.initializers):
        _text(state, "initializer", name)
        tensor = graph.initializers[name].const_value
        if tensor is not None:
            hash_tensor(state, tensor)
    for node in graph:
        _hash_node(state, node)
    _text(state, "outputs", *map(_describe, graph.outputs))


def _describe(value: ir.Value) -> str:
    return f"{value.name}|{value.type}|{dims(value)}"


def _hash_node(state: Any, node: ir.Node) -> None:
    _text(state, "node", node.domain, node.op_type, node.overload, node_name(node))
    _text(state, node.metadata_props.get(SOURCE, ""))
    _text(state, "in", *(v.name or "" if v is not None else "" for v in node.inputs))
    _text(state, "out", *map(_describe, node.outputs))
    for name in sorted(node.attributes):
        attribute = node.attributes[name]
        _text(state, name, str(attribute.type), attribute.ref_attr_name or "")
        if attribute.is_ref():
            continue
        if attribute.type is ir.AttributeType.TENSOR:
            hash_tensor(state, attribute.as_tensor())
        elif attribute.type is ir.AttributeType.TENSORS:
            for tensor in attribute.as_tensors():
                hash_tensor(state, tensor)
        elif attribute.type is ir.AttributeType.GRAPH:
            _hash_graph(state, attribute.as_graph())
        elif attribute.type is ir.AttributeType.GRAPHS:
            for graph in attribute.as_graphs():
                _hash_graph(state, graph)
        else:
            _text(state, repr(attribute.value))


def hash_tensor(state: Any, tensor: ir.TensorProtocol) -> None:
    """Add dtype, shape and bytes, in chunks; a memory-mapped weight is never copied."""
    _text(state, str(tensor.dtype), str(tuple(tensor.shape)))
    if tensor.dtype is ir.DataType.STRING:
        for item in tensor.numpy().reshape(-1):
            _text(state, item if isinstance(item, str) else item.decode("utf-8", "surrogateescape"))
        return
    for chunk in tensor_bytes(tensor):
        state.update(chunk)


def tensor_bytes(tensor: ir.TensorProtocol) -> Iterator[memoryview]:
    """The tensor's bytes as ONNX stores them, in chunks; mapped or plain arrays are not copied."""
    if tensor.dtype.bitwidth < 8 and not isinstance(tensor, ir.ExternalTensor):
        data = memoryview(tensor.tobytes())
    elif isinstance(tensor, ir.ExternalTensor) and tensor.size:
        tensor.numpy()  # maps the file, after the library's own checks of the path
        assert tensor.raw is not None
        start = tensor.offset or 0
        data = memoryview(tensor.raw)[start : start + tensor.nbytes]
    else:
        array = np.ascontiguousarray(tensor.numpy())
        data = array.reshape(-1).view(np.uint8).data
    for start in range(0, len(data), _CHUNK_BYTES):
        yield data[start : start + _CHUNK_BYTES]
