"""Cut a self-contained model out of a larger one, and mark intermediates as outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import onnx_ir as ir

from autoglm.errors import ModelError
from autoglm.rewrite.facts import deep_nodes, node_name, subgraphs


def extract(model: ir.Model, node_names: Iterable[str]) -> ir.Model:
    """A model of exactly those nodes, which shares their weights; the original is untouched.

    Inputs are the values that come from outside (also into If / Loop / Scan bodies), outputs those
    used outside or given out by the graph. A `Constant` node that only feeds in comes along.
    """
    wanted = set(node_names)
    nodes = [n for n in model.graph if node_name(n) in wanted]
    if len(nodes) != len(wanted):
        missing = sorted(wanted - {node_name(n) for n in nodes})
        raise ModelError(
            "The model has no node named {name!r}.", name=missing[0] if missing else ""
        )
    reads = Counter(v for n in nodes for v in _reads(n))
    made = {v for n in nodes for v in n.outputs}
    constants = [p for v in reads if v not in made and (p := _constant(v, model.graph)) is not None]
    nodes = [*dict.fromkeys(constants), *nodes]
    made |= {v for n in constants for v in n.outputs}
    initializers = [v for v in reads if v.is_initializer() and v not in made]
    inputs = [v for v in reads if v not in made and (v.is_graph_input() or not v.is_initializer())]
    for value in inputs:
        _require_type(value)
    given = [v for n in nodes if n not in constants for v in n.outputs]
    outputs = [v for v in given if _used_outside(v, reads[v], model.graph)]
    view = ir.GraphView(
        _first(model.graph.inputs, inputs),
        _first(model.graph.outputs, outputs),
        nodes=nodes,
        initializers=initializers,
        opset_imports=dict(model.opset_imports),
        name=model.graph.name,
    )
    return _with_graph(model, view.clone(), nodes)


def outputs_all(model: ir.Model, names: Iterable[str]) -> ir.Model:
    """A copy of the model that also gives out these values, after its own outputs."""
    copy = model.clone()
    values = {v.name: v for n in copy.graph for v in n.outputs}
    given = {v.name for v in copy.graph.outputs}
    for name in dict.fromkeys(names):
        if name in given:
            continue
        if name not in values:
            raise ModelError("The model has no value named {name!r}.", name=name)
        copy.graph.outputs.append(values[name])
    return copy


def _reads(node: ir.Node) -> Iterator[ir.Value]:
    # What the node reads of the enclosing scope, once per use, as `Value.uses` counts it.
    yield from (v for v in node.inputs if v is not None)
    inner = list(deep_nodes(node))
    if not inner and not any(True for _ in subgraphs(node)):
        return
    own = {v for n in inner for v in n.outputs}
    given: list[ir.Value] = []
    for graph in _deep_graphs(node):
        own |= {*graph.inputs, *graph.initializers.values()}
        given.extend(graph.outputs)
    yield from (v for n in inner for v in n.inputs if v is not None and v not in own)
    yield from (v for v in given if v not in own)


def _deep_graphs(node: ir.Node) -> Iterator[ir.Graph]:
    for graph in subgraphs(node):
        yield graph
        for inner in graph:
            yield from _deep_graphs(inner)


def _constant(value: ir.Value, graph: ir.Graph) -> ir.Node | None:
    node = value.producer()
    if node is not None and node.op_type == "Constant" and node.graph is graph and not node.domain:
        return node
    return None


def _used_outside(value: ir.Value, reads_inside: int, graph: ir.Graph) -> bool:
    if value.is_graph_output() and any(value is v for v in graph.outputs):
        return True
    return len(value.uses()) + value.is_graph_output() > reads_inside


def _first(order: Iterable[ir.Value], values: list[ir.Value]) -> list[ir.Value]:
    # The model's own inputs and outputs keep their order; the rest follow in order of use.
    chosen = set(values)
    head = [v for v in dict.fromkeys(order) if v in chosen]
    return [*head, *(v for v in values if v not in set(head))]


def _require_type(value: ir.Value) -> None:
    if value.type is None:
        raise ModelError(
            "The type of {name!r} is not known, so the model cannot be cut there.",
            hint="Run shape inference first, or keep its producer and its consumers together.",
            name=value.name,
        )


def _with_graph(model: ir.Model, graph: ir.Graph, nodes: list[ir.Node]) -> ir.Model:
    needed: dict[ir.OperatorIdentifier, ir.Function] = {}
    pending = [f for n in nodes for f in _calls(model, n)]
    while pending:
        function = pending.pop()
        if function.identifier() not in needed:
            needed[function.identifier()] = function
            pending += [f for n in function for f in _calls(model, n)]
    return ir.Model(
        graph,
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        functions=[f.clone() for f in needed.values()],
        metadata_props=dict(model.metadata_props),
    )


def _calls(model: ir.Model, node: ir.Node) -> Iterator[ir.Function]:
    for inner in (node, *deep_nodes(node)):
        function = model.functions.get(inner.op_identifier())
        if function is not None:
            yield function
