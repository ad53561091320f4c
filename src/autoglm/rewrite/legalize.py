"""Take apart the operators that a target refuses, where every part is one it takes.

Own rules come first (`decompose`), then the body that ONNX itself gives for the operator, which is
how the newest opset's operators reach old engines. Parts that are refused are taken apart in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from autoglm.rewrite.decompose import DECOMPOSITIONS
from autoglm.rewrite.expand import BODY, OUTSIDE, expand
from autoglm.rewrite.facts import deep_nodes, facts_of, node_name, subgraphs
from autoglm.rewrite.rule import Names, replace
from autoglm.rewrite.values import constant
from autoglm.spec import NodeFacts, Support

__all__ = ["Rewrite", "apply", "legalize"]

_DEPTH = 5

Supports = Callable[[NodeFacts], Support]


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One node that was taken apart: by which rule, into what, and what the target had refused."""

    node: str
    op: str
    rule: str
    new_nodes: tuple[str, ...]
    reason: str


def legalize(model: ir.Model, support: Supports) -> list[Rewrite]:
    """Replace, in place, each refused node by nodes that are all a yes; others stay untouched."""
    done: list[Rewrite] = []
    failed: set[object] = set()
    names: Names | None = None
    opsets = model.opset_imports
    for graph in list(model.graphs()):
        for node in list(graph):
            facts = facts_of(node, opsets)
            verdict = support(facts)
            if verdict.ok or (key := _key(node, facts)) in failed:
                continue
            found = _best(model, node, support, 0)
            if found is None:
                failed.add(key)
                continue
            names = names or Names(model)
            rule, piece = found
            made = _splice(graph, node, piece, rule, names)
            done.append(Rewrite(facts.name, facts.op, rule, made, verdict.reason))
    return done


def apply(model: ir.Model, rule: str) -> int:
    """Apply one rule, in place, to every node of the main graph that it takes; how many."""
    names, count = Names(model), 0
    for node in list(model.graph):
        piece = expand(model, node, rule)
        if piece is not None:
            _splice(model.graph, node, piece, rule, names)
            count += 1
    return count


def _key(node: ir.Node, facts: NodeFacts) -> object:
    values = [constant(v) for v in node.inputs]
    small = tuple(a.tobytes() if a is not None and a.nbytes <= 256 else None for a in values)
    attributes = tuple(sorted((k, repr(v)) for k, v in facts.attributes.items()))
    bodies = node_name(node) if facts.body else ""
    return facts.op, facts.since, facts.inputs, facts.outputs, attributes, small, bodies


def _best(
    model: ir.Model, node: ir.Node, support: Supports, depth: int
) -> tuple[str, ir.Model] | None:
    from autoglm.rewrite.certificate import certified

    known = DECOMPOSITIONS.get(node.op_type, ()) if not node.domain else ()
    rules = [d.name for d in known if d.name in certified()]
    for rule in (*rules, BODY):
        piece = expand(model, node, rule)
        if piece is not None and _all_taken(piece, support, depth):
            return rule, piece
    return None


def _all_taken(piece: ir.Model, support: Supports, depth: int) -> bool:
    opsets = piece.opset_imports
    names: Names | None = None
    for node in list(piece.graph):
        if support(facts_of(node, opsets)).ok:
            continue
        found = _best(piece, node, support, depth + 1) if depth < _DEPTH else None
        if found is None:
            return False
        names = names or Names(piece)
        _splice(piece.graph, node, found[1], found[0], names)
    return True


def _splice(
    graph: ir.Graph, node: ir.Node, piece: ir.Model, rule: str, names: Names
) -> tuple[str, ...]:
    """Move the piece's nodes into `graph`, in the place of `node`."""
    outside: dict[ir.Value, ir.Value] = piece.graph.meta[OUTSIDE]
    inner = piece.graph
    outputs = list(inner.outputs)
    inner.outputs.clear()
    for value in (*inner.inputs, *list(inner.initializers.values())):
        if value in outside:
            value.replace_all_uses_with(outside[value])
    kept = [v for v in inner.initializers.values() if v not in outside]
    for value in kept:
        del inner.initializers[str(value.name)]
    nodes = list(inner)
    inner.remove(nodes)
    for made in nodes:
        for deep in deep_nodes(made):
            deep.name = names.new(f"{node_name(node)}/{deep.name or deep.op_type}")
    _rename_bodies(nodes, names, node_name(node))
    wanted = [v for v in node.outputs if v.name and (v.uses() or v.is_graph_output())]
    replace(graph, node, [node], nodes, kept, wanted, outputs, names, rule)
    return tuple(node_name(n) for n in nodes)


def _rename_bodies(nodes: list[ir.Node], names: Names, prefix: str) -> None:
    for value in _body_values(nodes):
        if value.name:
            value.name = names.new(f"{prefix}/{value.name}")


def _body_values(nodes: list[ir.Node]) -> Iterator[ir.Value]:
    for node in nodes:
        for graph in subgraphs(node):
            yield from graph.inputs
            yield from graph.initializers.values()
            yield from (v for n in graph for v in n.outputs)
            yield from _body_values(list(graph))
