"""Stamp a model with an older opset, where every node says there what it says now."""

from __future__ import annotations

import onnx_ir as ir

from autoglm.catalog.revisions import extra_attributes, says_same
from autoglm.errors import CompileError
from autoglm.rewrite.facts import facts_of, node_name


def lower_opset(model: ir.Model, target: int) -> ir.Model:
    """The model at `target`, or the model itself where it is not newer; CompileError names the node
    whose meaning would change.
    """
    found = model.opset_imports.get("", target)
    if found <= target:
        return model
    lowered = model.clone()
    for node in lowered.graph.all_nodes():
        if node.domain == "":
            _lower(node, found, target)
    lowered.opset_imports[""] = target
    return lowered


def _lower(node: ir.Node, found: int, target: int) -> None:
    facts = facts_of(node, {"": found})
    if not says_same(facts, target):
        raise CompileError(
            "Node {node!r}: {op} of opset {since} has no equal in opset {target}.",
            node=node_name(node),
            op=facts.op,
            since=facts.since,
            target=target,
        )
    for name in extra_attributes(facts.op, facts.since, target):
        node.attributes.pop(name, None)
    node.version = None
