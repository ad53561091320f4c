"""A model in which one node at a time reads its inputs rounded to 8 bits, chosen at each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from autoglm.errors import ModelError
from autoglm.rewrite.facts import node_name
from autoglm.rewrite.rule import Names

SWITCH = "autoglm_rounded"  # the added input: the number of the node to round, an int64 scalar
_STEPS = 255.0
_TINY = 1e-30  # a tensor of zeros has no range to divide by


def rounded(model: ir.Model, inputs: Mapping[str, Mapping[int, int | None]]) -> ir.Model:
    """A copy with the input `SWITCH`: at n, the n-th node of `inputs` reads those of its float32
    inputs rounded to 255 steps of the range they have in this run, each slice along the given axis
    to a range of its own (None: one range); below 0 nothing is rounded.

    An If runs only the branch it takes: a run costs what the model costs, and copies. Written
    without QuantizeLinear, which models before opset 10 do not have.
    """
    copy = model.clone()
    which = ir.Value(name=SWITCH, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([]))
    copy.graph.inputs.append(which)
    nodes = {node_name(node): node for node in copy.graph}
    names = Names(copy)
    opset = copy.opset_imports.get("", 1)
    for number, (name, places) in enumerate(inputs.items()):
        if name not in nodes:
            raise ModelError("The model has no node named {name!r}.", name=name)
        node = nodes[name]
        label = _constant(np.int64(number))
        added = [label, ir.node("Equal", [which, label.outputs[0]])]
        for place, axis in places.items():
            value = node.inputs[place]
            assert value is not None
            branches = {
                "then_branch": _branch(_steps(value, _others(value, axis), opset), names, number),
                "else_branch": _branch([ir.node("Identity", [value])], names, number),
            }
            choice = ir.node("If", [added[1].outputs[0]], branches)
            choice.outputs[0].type, choice.outputs[0].shape = value.type, value.shape
            node.replace_input_with(place, choice.outputs[0])
            added.append(choice)
        _name(added, names, number)
        copy.graph.insert_before(node, added)
    return copy


def _others(value: ir.Value, axis: int | None) -> list[int]:
    """All axes but one; [] stands for all of them."""
    rank = len(value.shape) if value.shape is not None else 0
    return [i for i in range(rank) if axis is not None and i != axis % rank]


def _steps(value: ir.Value, axes: list[int], opset: int) -> list[ir.Node]:
    """The value as whole steps of a 255th of its range over these axes."""
    nodes: list[ir.Node] = []

    def add(op: str, *inputs: ir.Value, **attributes: object) -> ir.Value:
        nodes.append(ir.node(op, inputs, attributes))
        return nodes[-1].outputs[0]

    def number(of: np.ndarray | np.generic) -> ir.Value:
        nodes.append(_constant(of))
        return nodes[-1].outputs[0]

    def reduce(op: str) -> ir.Value:
        if not axes:
            return add(op, value, keepdims=1)
        if opset < 18:
            return add(op, value, axes=axes, keepdims=1)
        return add(op, value, number(np.array(axes, np.int64)), keepdims=1)

    zero = number(np.float32(0))
    span = add("Sub", add("Max", reduce("ReduceMax"), zero), add("Min", reduce("ReduceMin"), zero))
    step = add("Max", add("Div", span, number(np.float32(_STEPS))), number(np.float32(_TINY)))
    whole = add("Floor", add("Add", add("Div", value, step), number(np.float32(0.5))))
    add("Mul", whole, step)
    return nodes


def _branch(nodes: Sequence[ir.Node], names: Names, number: int) -> ir.Graph:
    _name(nodes, names, number)
    return ir.Graph([], nodes[-1].outputs, nodes=nodes, name=nodes[-1].name)


def _constant(value: np.ndarray | np.generic) -> ir.Node:
    return ir.node("Constant", [], {"value": ir.tensor(np.asarray(value))})


def _name(nodes: Sequence[ir.Node], names: Names, number: int) -> None:
    for node in nodes:
        node.name = names.new(f"{SWITCH}_{number}")
        for output in node.outputs:
            output.name = names.new(f"{SWITCH}_{number}")
