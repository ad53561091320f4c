"""Types and shapes of every value, inferred or bound to what the caller gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import onnx_ir as ir

from autoglm.errors import InputError, ModelError
from autoglm.rewrite.facts import dims, subgraphs

if TYPE_CHECKING:
    import onnx

_SMALL_BYTES = 1024  # shape arguments are smaller; weights are not sent to the inferer


def infer_shapes(model: ir.Model) -> ir.Model:
    """A copy with the types and shapes that onnx can infer; what is known stays known."""
    copy = model.clone()
    infer_in_place(copy)
    return copy


def infer_in_place(model: ir.Model) -> None:
    """`infer_shapes`, on the model itself."""
    import onnx

    proto = ir.to_proto(_without_weights(model))
    try:
        proto = onnx.shape_inference.infer_shapes(proto, strict_mode=False)
        _merge_graph(model.graph, proto.graph)
        if _computes_shapes(model.graph) and _values_are_few(model.graph):
            proto = onnx.shape_inference.infer_shapes(proto, strict_mode=False, data_prop=True)
            _merge_graph(model.graph, proto.graph)
    except (onnx.shape_inference.InferenceError, ValueError) as error:
        raise ModelError("Shape inference fails: {reason}.", reason=str(error)[:500]) from error


def _computes_shapes(graph: ir.Graph) -> bool:
    return any(n.op_type in ("Shape", "Size") for n in ir.traversal.RecursiveGraphIterator(graph))


# onnx's data propagation writes one dimension per element of a vector that these operators read, so
# a vector that a model only describes (2^40 elements) would take all memory.
_PROPAGATES = {"Add", "Cast", "Concat", "Gather", "Mul", "Size", "Slice", "Sub", "Unsqueeze"}
_GROWS = {"ConstantOfShape", "Expand", "OneHot", "Pad", "Range", "Resize", "Tile", "Upsample"}
_FEW = 1 << 12


def _values_are_few(graph: ir.Graph) -> bool:
    derived: set[ir.Value] = set()  # computed from constants alone: its size may be any number
    for node in ir.traversal.RecursiveGraphIterator(graph):
        given = [v for v in node.inputs if v is not None]
        if node.op_type in _PROPAGATES and any(_is_long(v) for v in given):
            return False
        if node.op_type in _GROWS and any(v in derived for v in given):
            return False
        if all(v in derived or v.const_value is not None for v in given):
            derived.update(node.outputs)
    return True


def _is_long(value: ir.Value) -> bool:
    shape = dims(value)
    return shape is not None and len(shape) == 1 and isinstance(shape[0], int) and shape[0] > _FEW


def bind_shapes(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> ir.Model:
    """A copy whose inputs have these shapes, and whose symbols have the values that follow."""
    copy = model.clone()
    inputs = {v.name: v for v in copy.graph.inputs}
    symbols: dict[str, tuple[int, str]] = {}
    for name, shape in shapes.items():
        if name not in inputs:
            raise InputError(
                "The model has no input named {name!r}; its inputs: {known}.",
                hint="Use one of these names.",
                name=name,
                known=", ".join(str(n) for n in inputs),
            )
        _check_shape(inputs[name], tuple(shape), symbols)
        inputs[name].shape = ir.Shape(shape)
    values = {symbol: size for symbol, (size, _) in symbols.items()}
    if values:
        _substitute(copy.graph, values)
    infer_in_place(copy)
    return copy


def _check_shape(
    value: ir.Value, shape: tuple[int, ...], symbols: dict[str, tuple[int, str]]
) -> None:
    declared = dims(value)
    where = str(value.name)
    if any(not isinstance(d, int) or isinstance(d, bool) or d < 0 for d in shape):
        raise InputError(
            "Input {name!r}: a shape is whole numbers of at least 0, found {found}.",
            name=where,
            found=list(shape),
        )
    if declared is None:
        return
    if len(declared) != len(shape):
        raise InputError(
            "Input {name!r} has {expected} dimensions {declared}, found {found} in {shape}.",
            name=where,
            expected=len(declared),
            declared=list(declared),
            found=len(shape),
            shape=list(shape),
        )
    for axis, (want, got) in enumerate(zip(declared, shape, strict=True)):
        if isinstance(want, int) and want != got:
            raise InputError(
                "Input {name!r}: dimension {axis} is {expected} in the model, found {found}.",
                name=where,
                axis=axis,
                expected=want,
                found=got,
            )
        if isinstance(want, str):
            size, first = symbols.setdefault(want, (got, where))
            if size != got:
                raise InputError(
                    "Input {name!r}: dimension {axis} ({symbol}) is {expected} in input {first!r}, "
                    "found {found}.",
                    name=where,
                    axis=axis,
                    symbol=want,
                    expected=size,
                    first=first,
                    found=got,
                )


def _substitute(graph: ir.Graph, symbols: Mapping[str, int]) -> None:
    for value in (*graph.inputs, *(v for n in graph for v in n.outputs)):
        shape = value.shape
        if shape is not None and any(_symbol(d) in symbols for d in shape):
            value.shape = ir.Shape([symbols.get(_symbol(d), d) for d in shape])
    for node in graph:
        for inner in subgraphs(node):
            _substitute(inner, symbols)


def _symbol(dim: int | ir.SymbolicDim) -> str:
    return "" if isinstance(dim, int) else dim.value or ""


def _without_weights(model: ir.Model) -> ir.Model:
    light = model.clone()
    graph = light.graph
    given = set(graph.inputs)
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.nbytes <= _SMALL_BYTES:
            continue
        value.type = value.type or ir.TensorType(tensor.dtype)
        if value.shape is None:
            value.shape = ir.Shape(tensor.shape.numpy())
        del graph.initializers[name]
        value.const_value = None
        if value not in given:
            graph.inputs.append(value)
    return light


def _merge_graph(graph: ir.Graph, proto: onnx.GraphProto) -> None:
    known = {v.name: v.type for v in (*proto.value_info, *proto.output, *proto.input)}
    produced = [v for n in graph for v in n.outputs]
    for value in (*graph.inputs, *graph.outputs, *produced):
        if value.name and value.name in known:
            _merge_value(value, known[value.name])
    for node, node_proto in zip(graph, proto.node, strict=True):
        bodies = {a.name: a for a in node_proto.attribute}
        for name, attribute in node.attributes.items():
            if attribute.type is ir.AttributeType.GRAPH and not attribute.is_ref():
                _merge_graph(attribute.as_graph(), bodies[name].g)


def _merge_value(value: ir.Value, proto: onnx.TypeProto) -> None:
    found = ir.serde.deserialize_type_proto_for_type(proto)
    if value.type is None and found is not None:
        value.type = found
    shape = ir.serde.deserialize_type_proto_for_shape(proto)
    if shape is None:
        return
    if value.shape is None or len(value.shape) != len(shape):
        value.shape = shape
        return
    if value.shape.is_static():
        return
    # A number beats a symbol, and the model's own symbol beats one that inference made up.
    value.shape = ir.Shape([_better(old, new) for old, new in zip(value.shape, shape, strict=True)])


def _better(old: int | ir.SymbolicDim, new: int | ir.SymbolicDim) -> int | ir.SymbolicDim:
    if isinstance(old, int):
        return old
    return new if isinstance(new, int) or old.value is None else old
