"""The chip's element type as casts in the graph: every float an operator gives is rounded to it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from autoglm.rewrite.facts import node_name, sources
from autoglm.rewrite.half import takes_half

ELEMENTS = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
_CAST = 13  # the first Cast that knows bfloat16


def round_to(model: ir.Model, precision: str, keep_high: Collection[str] = ()) -> None:
    """Round, in place, inputs, weights and outputs of every node that is not in `keep_high`.

    A weight stays exact where an operator has it in float32 only, as Resize has its scales: a
    rounded one would change shapes.
    """
    element = ELEMENTS[precision]
    model.graph.opset_imports[""] = max(_CAST, model.graph.opset_imports[""])
    for graph in list(model.graphs()):
        nodes = list(graph)
        for value in list(graph.initializers.values()):
            exact = [
                (node, index)
                for node, index in value.uses()
                if _is_high(node, keep_high) or not takes_half(node, index, precision)
            ]
            _round_weight(graph, value, element, exact)
        first = nodes[0] if nodes else None
        for value in graph.inputs if graph is model.graph else ():
            if first is not None and _is_float(value) and value.name not in graph.initializers:
                _round_value(graph, value, element, before=first)
        for node in nodes:
            if not _is_high(node, keep_high):
                for value in node.outputs:
                    if _is_float(value):
                        _round_value(graph, value, element, after=node)


def _is_float(value: ir.Value) -> bool:
    return value.dtype == ir.DataType.FLOAT and isinstance(value.type, ir.TensorType)


def _is_high(node: ir.Node, keep_high: Collection[str]) -> bool:
    return bool(keep_high) and not {node_name(node), *sources(node)}.isdisjoint(keep_high)


def _round_weight(
    graph: ir.Graph, value: ir.Value, element: ir.DataType, exact: Sequence[tuple[ir.Node, int]]
) -> None:
    held = value.const_value
    if held is None or not _is_float(value):
        return
    if exact:
        if len(exact) == len(value.uses()) and not value.is_graph_output():
            return
        name = f"{value.name}/exact"
        kept = ir.Value(name=name, shape=value.shape, type=value.type, const_value=held)
        graph.register_initializer(kept)
        for node, index in exact:
            node.replace_input_with(index, kept)
    array = held.numpy().astype(element.numpy()).astype(np.float32)
    value.const_value = ir.tensor(array, name=value.name)


def _round_value(
    graph: ir.Graph,
    value: ir.Value,
    element: ir.DataType,
    *,
    after: ir.Node | None = None,
    before: ir.Node | None = None,
) -> None:
    low = ir.node("Cast", [value], {"to": element.value}, name=f"{value.name}/rounded")
    high = ir.node("Cast", [low.outputs[0]], {"to": ir.DataType.FLOAT.value})
    high.name = f"{value.name}/widened"
    insert(graph, value, [low, high], after=after, before=before)


def insert(
    graph: ir.Graph,
    value: ir.Value,
    chain: list[ir.Node],
    *,
    after: ir.Node | None = None,
    before: ir.Node | None = None,
    users: Collection[ir.Node] | None = None,
) -> None:
    """Put `chain`, whose first node reads `value`, between it and its users (None: all)."""
    last = chain[-1].outputs[0]
    last.shape, last.type = value.shape, ir.TensorType(ir.DataType.FLOAT)
    for user, index in tuple(value.uses()):
        if user is not chain[0] and (users is None or user in users):
            user.replace_input_with(index, last)
    _name(chain, value.name or "")
    if users is None and after is not None and value in graph.outputs:
        # The graph's outputs keep their names: the exact value takes another one.
        name = value.name or ""
        value.name, last.name = f"{name}/exact", name
        for place, output in enumerate(graph.outputs):
            if output is value:
                graph.outputs[place] = last
    if after is not None:
        graph.insert_after(after, chain)
    elif before is not None:
        graph.insert_before(before, chain)


def _name(chain: list[ir.Node], stem: str) -> None:
    for node in chain:
        node.outputs[0].name = f"{stem}/{(node.name or '').rpartition('/')[2]}"


def array_of(value: ir.Value | None) -> Any:
    """A weight's array; None for what is computed."""
    if value is None or value.const_value is None or not value.is_initializer():
        return None
    return value.const_value.numpy()
