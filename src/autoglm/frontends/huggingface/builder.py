"""A graph under construction: named nodes, weights that stay mapped."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

OPSET = 20  # the first with Gelu


class Builder:
    """Collects nodes and weights of one graph."""

    def __init__(self) -> None:
        self.nodes: list[ir.Node] = []
        self.weights: dict[str, ir.Value] = {}

    def op(self, name: str, op: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """One node with one output; the output has the node's name."""
        node = ir.node(op, list(inputs), attributes, name=name)
        node.outputs[0].name = name
        self.nodes.append(node)
        return node.outputs[0]

    def weight(self, name: str, array: Any) -> ir.Value:
        """A named weight over an array that is not copied."""
        if name not in self.weights:
            tensor = ir.Tensor(array, name=name)
            self.weights[name] = ir.Value(
                name=name,
                type=ir.TensorType(tensor.dtype),
                shape=ir.Shape(array.shape),
                const_value=tensor,
            )
        return self.weights[name]

    def ints(self, name: str, *values: int) -> ir.Value:
        """A 1-D int64 constant."""
        return self.weight(name, np.array(values, np.int64))

    def scalar(self, name: str, value: float) -> ir.Value:
        """A float32 constant without dimensions."""
        return self.weight(name, np.array(value, np.float32))


def declare(value: ir.Value, dtype: ir.DataType, shape: list[int | str]) -> ir.Value:
    """State a value's type and shape."""
    value.type, value.shape = ir.TensorType(dtype), ir.Shape(shape)
    return value


def graph_input(name: str) -> ir.Value:
    """An int64 input of dynamic batch and sequence."""
    return declare(ir.Value(name=name), ir.DataType.INT64, ["batch", "sequence"])
