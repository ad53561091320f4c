"""Write a float32 model in float16 or bfloat16, for compilers that build what the dtypes say.

Edges keep float32. An input that an operator's schema has in float32 only (the scales of Resize)
stays in float32, and so does an operator that has no half precision at all, between casts.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from autoglm.errors import CompileError
from autoglm.rewrite.facts import node_name
from autoglm.rewrite.rule import Names

_DTYPES = {
    "fp16": (ir.DataType.FLOAT16, np.dtype(np.float16), "tensor(float16)"),
    "bf16": (ir.DataType.BFLOAT16, np.dtype(ml_dtypes.bfloat16), "tensor(bfloat16)"),
}
_FLOAT = ir.DataType.FLOAT
# Attributes that name the dtype of an output.
_NAMED = ("to", "dtype", "output_dtype", "output_datatype")
# Those of them that mean float32, or the dtype of an input, where they are not written.
_IMPLIED = ("dtype", "output_datatype")


def to_half(model: ir.Model, precision: str, *, opset: int = 0) -> ir.Model:
    """A copy that computes in `precision` (fp16 or bf16) and takes and gives what it did before.

    `opset`: whose schemas say what takes it, for a compiler that is ahead of the model's own (0).
    """
    made = model.clone()
    work = _Half(made, precision, opset)
    for graph in list(made.graphs()):
        for value in list(graph.initializers.values()):
            work.lower_weight(value)
        if graph is not made.graph:
            work.lower_inputs(graph)
    for graph in list(made.graphs()):
        for node in list(graph):
            work.convert(graph, node)
    work.wrap_edges(made.graph)
    return made


def takes_half(node: ir.Node, index: int, precision: str) -> bool:
    """Whether that input may be in half precision by the newest schema; unknown operators may."""
    import onnx

    try:
        schema = onnx.defs.get_schema(node.op_type, node.domain)
    except onnx.defs.SchemaError:
        return True
    return _allows(schema, schema.inputs, index, _DTYPES[precision][2])


def _allows(schema: Any, formals: Any, index: int, wanted: str) -> bool:
    text = formals[min(index, len(formals) - 1)].type_str
    allowed = next(
        (c.allowed_type_strs for c in schema.type_constraints if c.type_param_str == text), [text]
    )
    return wanted in allowed


class _Half:
    """The conversion of one model: what its weights were, and the names it has."""

    def __init__(self, model: ir.Model, precision: str, opset: int) -> None:
        self.low, self.numpy, self.text = _DTYPES[precision]
        self.opset = opset or model.opset_imports.get("", 1)
        self.names = Names(model)
        self.weights: dict[ir.Value, ir.TensorProtocol] = {}
        self.floats = {
            v for g in model.graphs() for n in g for v in n.outputs if v.dtype == _FLOAT
        } | {v for g in model.graphs() for v in g.inputs if v.dtype == _FLOAT}

    def lower_weight(self, value: ir.Value) -> None:
        """Round a float32 weight; infinities stay, finite values stay finite."""
        if value.const_value is None or value.const_value.dtype != _FLOAT:
            return
        self.weights[value] = value.const_value
        self.floats.add(value)
        value.const_value = self._rounded(value.const_value)
        value.type = ir.TensorType(self.low)

    def lower_inputs(self, body: ir.Graph) -> None:
        """What a body is fed comes in half precision."""
        for value in body.inputs:
            if value.dtype == _FLOAT:
                value.type = ir.TensorType(self.low)

    def _rounded(self, tensor: ir.TensorProtocol) -> ir.Tensor[Any]:
        array = np.asarray(tensor.numpy())
        limit = float(ml_dtypes.finfo(self.numpy).max)
        finite = np.where(np.isfinite(array), np.clip(array, -limit, limit), array)
        return ir.Tensor(finite.astype(self.numpy), name=tensor.name)

    def convert(self, graph: ir.Graph, node: ir.Node) -> None:
        """Make one node compute in half precision, or keep it in float32 between casts."""
        schema = self._schema(node)
        for index, value in enumerate(node.inputs):
            if value in self.floats and not self._takes(schema, schema.inputs, index):
                node.replace_input_with(index, self._raised(graph, node, value))
        if schema.outputs and self._takes(schema, schema.outputs, 0):
            self._say_half(node, schema)
        for index, value in enumerate(node.outputs):
            if value not in self.floats:
                continue
            # What an operator stashes for training stays as stash_type says.
            stashed = index > 0 and "stash_type" in schema.attributes
            if self._takes(schema, schema.outputs, index) and not stashed:
                value.type = ir.TensorType(self.low)
            else:
                self._lower_after(graph, node, value)

    def _say_half(self, node: ir.Node, schema: Any) -> None:
        """Attributes that say float32, written or by default, say half precision."""
        attributes, gives = node.attributes, node.outputs[0] in self.floats
        for name in _NAMED:
            implied = gives and name in _IMPLIED and name in schema.attributes
            written = name in attributes
            if attributes[name].value == int(_FLOAT) if written else implied:
                attributes[name] = ir.AttrInt64(name, int(self.low))
        tensor = _constant_of(node) if gives else None
        if tensor is not None:
            for name in ("value_float", "value_floats"):
                attributes.pop(name, None)
            attributes["value"] = ir.AttrTensor("value", self._rounded(tensor))

    def _schema(self, node: ir.Node) -> Any:
        import onnx

        try:
            return onnx.defs.get_schema(node.op_type, self.opset, node.domain)
        except onnx.defs.SchemaError as error:
            raise CompileError(
                "Node {node!r}: {op} is not ONNX's own, so it cannot be written in half precision.",
                node=node_name(node),
                op=node.op_type,
            ) from error

    def _takes(self, schema: Any, formals: Any, index: int) -> bool:
        return _allows(schema, formals, index, self.text)

    def _raised(self, graph: ir.Graph, node: ir.Node, value: ir.Value | None) -> ir.Value:
        assert value is not None
        if value in self.weights:
            name = self.names.new(f"{value.name}.float32")
            made = ir.Value(
                name=name,
                type=ir.TensorType(_FLOAT),
                shape=value.shape,
                const_value=self.weights[value],
            )
            graph.initializers[name] = made
            return made
        return self._cast(graph, node, value, _FLOAT, before=True)

    def _lower_after(self, graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
        users = list(value.uses())
        low = self._cast(graph, node, value, self.low, before=False)
        for user in users:
            user.node.replace_input_with(user.idx, low)
        for index, output in enumerate(graph.outputs):
            if output is value:
                graph.outputs[index] = low
        self.floats.discard(value)
        self.floats.add(low)

    def _cast(
        self, graph: ir.Graph, node: ir.Node, value: ir.Value, to: ir.DataType, *, before: bool
    ) -> ir.Value:
        name = self.names.new(f"{value.name}.{to.name.lower()}")
        cast = ir.Node(
            "", "Cast", [value], attributes=[ir.AttrInt64("to", int(to))], name=f"{name}.cast"
        )
        cast.outputs[0].name = name
        cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(to), value.shape
        (graph.insert_before if before else graph.insert_after)(node, cast)
        return cast.outputs[0]

    def wrap_edges(self, graph: ir.Graph) -> None:
        """The graph's own inputs and outputs stay in float32, under their names."""
        for value in graph.inputs:
            if value.dtype != _FLOAT or value.name in graph.initializers or not value.uses():
                continue
            users = list(value.uses())
            first = next(iter(graph))
            low = self._cast(graph, first, value, self.low, before=True)
            for user in users:
                user.node.replace_input_with(user.idx, low)
            for index, output in enumerate(graph.outputs):
                if output is value:
                    graph.outputs[index] = low
        for index, value in enumerate(list(graph.outputs)):
            if value.dtype == self.low and value in self.floats:
                self._give(graph, index, value)

    def _give(self, graph: ir.Graph, index: int, value: ir.Value) -> None:
        last = list(graph)[-1]
        name = value.name or ""
        value.name = self.names.new(f"{name}.{self.low.name.lower()}")
        high = self._cast(graph, last, value, _FLOAT, before=False)
        high.name = name
        graph.outputs[index] = high


def _constant_of(node: ir.Node) -> ir.TensorProtocol | None:
    """The float32 tensor that a Constant or ConstantOfShape is made of, written or not."""
    if node.op_type == "ConstantOfShape" and "value" not in node.attributes:
        return ir.Tensor(np.zeros(1, np.float32))
    for name in ("value_float", "value_floats"):
        if node.op_type == "Constant" and name in node.attributes:
            return ir.Tensor(np.asarray(node.attributes[name].value, np.float32))
    held = node.attributes.get("value")
    if held is None or held.type is not ir.AttributeType.TENSOR:
        return None
    tensor = held.as_tensor()
    return tensor if tensor.dtype == _FLOAT else None
