"""Compute what is known before running: constants, and the arithmetic of shapes.

Bounded: a node is evaluated only when its output shapes are known beforehand and the result is at
most 1 MB larger than what it is made from, so no model makes this allocate what it only describes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from autoglm.rewrite.rule import Names
from autoglm.rewrite.values import constant, ints, static

GROWTH_BYTES = 1 << 20
INPUT_BYTES = 1 << 26  # larger weights stay mapped; engines fold them where it pays

# Pure operators whose result the onnx reference computes as every engine does.
_NAMES = """
Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr
BitwiseXor Cast CastLike Ceil Clip Concat ConstantOfShape Cos Cosh CumSum DepthToSpace Div
Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gemm Greater
GreaterOrEqual Identity IsInf IsNaN Less LessOrEqual Log MatMul Max Mean Min Mod Mul Neg Not
OneHot Or Pad Pow Range Reciprocal ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu
Reshape Round ScatterElements ScatterND Shape Sigmoid Sign Sin Sinh Size Slice SpaceToDepth
Split Sqrt Squeeze Sub Sum Tan Tanh Tile Transpose Trilu Unsqueeze Where Xor
"""
FOLDABLE = frozenset(_NAMES.split())


def lift_constants(model: ir.Model) -> int:
    """Constant nodes -> initializers, so that a partition border never hides a constant."""
    from onnx_ir.passes.common import LiftConstantsToInitializersPass

    nodes = [n for g in model.graphs() for n in g if n.op_type == "Constant" and not n.domain]
    # The library's pass stops at a sparse constant; a model with one keeps its Constant nodes.
    if not nodes or any("sparse_value" in n.attributes for n in nodes):
        return 0
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    return len(nodes) - sum(1 for n in nodes if n.graph is not None)


def fold_constants(model: ir.Model) -> int:
    """Evaluate nodes whose inputs are all constant; returns how many are gone."""
    opset = model.opset_imports.get("", 1)
    return sum(_fold_graph(graph, opset) for graph in list(model.graphs()))


def _fold_graph(graph: ir.Graph, opset: int) -> int:
    count = 0
    for node in graph:
        if node.op_type not in FOLDABLE or node.domain:
            continue
        if any(v.is_graph_output() for v in node.outputs):
            continue
        arrays = [constant(v) for v in node.inputs]
        if any(a is None for a, v in zip(arrays, node.inputs, strict=True) if v is not None):
            continue
        if _bounded(node, arrays, opset) and _evaluate_into(graph, node, arrays, opset):
            count += 1
    return count


def _bounded(node: ir.Node, arrays: list[np.ndarray | None], opset: int) -> bool:
    given = sum(a.nbytes for a in arrays if a is not None)
    if given > INPUT_BYTES:
        return False
    if any(static(v) is None or v.dtype is None for v in node.outputs):
        _infer_one(node, opset)
    made = 0.0
    for value in node.outputs:
        shape = static(value)
        if shape is None or value.dtype is None or value.dtype is ir.DataType.STRING:
            return False
        made += math.prod(shape) * value.dtype.itemsize
    return made <= given + GROWTH_BYTES


def _infer_one(node: ir.Node, opset: int) -> None:
    """Types of one node's outputs from its constant inputs."""
    import onnx
    from onnx.shape_inference import InferenceError, infer_node_outputs

    proto = ir.to_proto(node)
    given = [v for v in node.inputs if v is not None]
    types, data = {}, {}
    for value in given:
        tensor = value.const_value
        assert tensor is not None
        types[value.name] = onnx.helper.make_tensor_type_proto(
            int(tensor.dtype), tensor.shape.numpy()
        )
        if tensor.nbytes <= 4096:
            data[value.name] = ir.to_proto(tensor)
    try:
        schema = onnx.defs.get_schema(node.op_type, opset)
        found = infer_node_outputs(
            schema, proto, types, data, opset_imports=[onnx.helper.make_opsetid("", opset)]
        )
    except (InferenceError, onnx.defs.SchemaError, ValueError):
        return  # not inferred means not folded
    for value in node.outputs:
        if value.name in found:
            value.type = ir.serde.deserialize_type_proto_for_type(found[value.name])
            value.shape = ir.serde.deserialize_type_proto_for_shape(found[value.name])


def _evaluate_into(
    graph: ir.Graph, node: ir.Node, arrays: list[np.ndarray | None], opset: int
) -> bool:
    results = _evaluate(node, arrays, opset)
    if results is None or len(results) != len(node.outputs):
        return False
    for value, array in zip(node.outputs, results, strict=True):
        assert value.dtype is not None
        if array.shape != static(value) or array.dtype != value.dtype.numpy():
            return False
    for value, array in zip(list(node.outputs), results, strict=True):
        assert value.dtype is not None
        put_constant(graph, value, ir.Tensor(array, dtype=value.dtype, name=value.name))
    graph.remove(node, safe=True)
    return True


def put_constant(graph: ir.Graph, value: ir.Value, tensor: ir.TensorProtocol) -> None:
    """Make every reader of `value` read an initializer of the same name."""
    fresh = ir.Value(
        name=value.name,
        shape=ir.Shape(tensor.shape.numpy()),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    value.replace_all_uses_with(fresh)
    graph.register_initializer(fresh)


def _evaluate(
    node: ir.Node, arrays: list[np.ndarray | None], opset: int
) -> list[np.ndarray] | None:
    from onnx.reference.ops import load_op

    attributes = {}
    for name, attribute in node.attributes.items():
        if attribute.is_ref():
            return None
        is_tensor = attribute.type is ir.AttributeType.TENSOR
        attributes[name] = ir.to_proto(attribute.as_tensor()) if is_tensor else attribute.value
    try:
        with np.errstate(all="ignore"):
            found = load_op("", node.op_type, opset).eval(*arrays, **attributes)
    except Exception:  # the reference raises anything on a model that is wrong; it stays as it is
        return None
    results = list(found) if isinstance(found, tuple) else [found]
    return [np.asarray(r) for r in results]


# One entry of a shape vector: a number, a dimension's name, or None.
Entry: TypeAlias = int | str | None
Vector: TypeAlias = list[Entry]


def simplify_shapes(model: ir.Model) -> int:
    """Shape -> Gather -> Concat -> Reshape chains become constants wherever they are known."""
    names = Names(model)
    return sum(_simplify_graph(graph, names) for graph in list(model.graphs()))


def _simplify_graph(graph: ir.Graph, names: Names) -> int:
    known: dict[ir.Value, Vector] = {}
    count = 0
    for node in graph:
        if node.domain:
            continue
        if node.op_type == "Reshape":
            count += _fix_reshape(graph, node, known, names)
        step = _STEPS.get(node.op_type)
        found = step(node, known) if step is not None and len(node.outputs) == 1 else None
        if found is None:
            continue
        value = node.outputs[0]
        known[value] = found
        if all(isinstance(d, int) for d in found) and not value.is_graph_output():
            count += _freeze(graph, node, found)
    return count


def _freeze(graph: ir.Graph, node: ir.Node, found: Vector) -> bool:
    value = node.outputs[0]
    shape = static(value)
    if shape is None or value.dtype not in (ir.DataType.INT64, ir.DataType.INT32):
        return False
    array = np.asarray(found, value.dtype.numpy())
    if math.prod(shape) != array.size:
        return False
    put_constant(graph, value, ir.Tensor(array.reshape(shape), name=value.name))
    graph.remove(node, safe=True)
    return True


def _vector(value: ir.Value | None, known: dict[ir.Value, Vector]) -> Vector | None:
    if value is None:
        return None
    found: Vector | None = known.get(value)
    return found if found is not None else ints(value)  # type: ignore[return-value]


def _shape(node: ir.Node, known: dict[ir.Value, Vector]) -> Vector | None:
    value = node.inputs[0]
    if value is None or value.shape is None:
        return None
    dims: Vector = [d if isinstance(d, int) else d.value for d in value.shape]
    end = node.attributes.get_int("end", len(dims))
    return dims[node.attributes.get_int("start", 0) : end]


def _size(node: ir.Node, known: dict[ir.Value, Vector]) -> Vector | None:
    shape = static(node.inputs[0])
    return None if shape is None else [math.prod(shape)]


def _gather(node: ir.Node, known: dict[ir.Value, Vector]) -> Vector | None:
    data, indices = _vector(node.inputs[0], known), ints(node.inputs[1])
    if data is None or indices is None or not _is_vector(node.inputs[0]):
        return None
    if any(not -len(data) <= i < len(data) for i in indices):
        return None
    return [data[i] for i in indices]


def _is_vector(value: ir.Value | None) -> bool:
    return value is not None and value.shape is not None and len(value.shape) == 1


def _slice(node: ir.Node, known: dict[ir.Value, Vector]) -> Vector | None:
    data = _vector(node.inputs[0], known)
    given = [ints(v) for v in node.inputs[1:] if v is not None]
    if data is None or len(given) < 2 or any(g is None or len(g) != 1 for g in given):
        return None
    start, end = given[0][0], given[1][0]  # type: ignore[index]
    step = given[3][0] if len(given) > 3 else 1  # type: ignore[index]
    return data[start:end] if step == 1 and _is_vector(node.inputs[0]) else None


def _concat(node: ir.Node, known: dict[ir.Value, Vector]) -> Vector | None:
    if not all(_is_vector(v) for v in node.inputs):
        return None
    joined: Vector = []
    for value in node.inputs:
        part = _vector(value, known)
        if part is None:
            size = static(value)
            if size is None or size[0] > 16:
                return None
            part = [None] * size[0]
        joined += part
    return joined


def _same(node: ir.Node, known: dict[ir.Value, Vector]) -> Vector | None:
    """Operators that keep the entries: Unsqueeze, Squeeze, Reshape, Identity and integer Cast."""
    value = node.outputs[0]
    if value.dtype not in (ir.DataType.INT64, ir.DataType.INT32):
        return None
    if value.shape is None or len(value.shape) > 1:
        return None
    return _vector(node.inputs[0], known)


def _arithmetic(compute: Callable[[int, int], int]) -> Any:
    def step(node: ir.Node, known: dict[ir.Value, Vector]) -> Vector | None:
        if node.outputs[0].dtype is not ir.DataType.INT64:
            return None
        left, right = (_vector(v, known) for v in node.inputs)
        if left is None or right is None:
            return None
        if len(left) != len(right):
            if 1 not in (len(left), len(right)):
                return None
            size = max(len(left), len(right))
            left, right = (v * size if len(v) == 1 else v for v in (left, right))
        pairs = zip(left, right, strict=True)
        made = [
            compute(a, b) if isinstance(a, int) and isinstance(b, int) else None for a, b in pairs
        ]
        # What would wrap around in int64 is left to the engine.
        return [None if m is None or abs(m) >= 1 << 62 else m for m in made]

    return step


_STEPS: dict[str, Callable[[ir.Node, dict[ir.Value, Vector]], Vector | None]] = {
    "Shape": _shape,
    "Size": _size,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Unsqueeze": _same,
    "Squeeze": _same,
    "Reshape": _same,
    "Identity": _same,
    "Cast": _same,
    "Add": _arithmetic(lambda a, b: a + b),
    "Sub": _arithmetic(lambda a, b: a - b),
    "Mul": _arithmetic(lambda a, b: a * b),
}


def _fix_reshape(
    graph: ir.Graph, node: ir.Node, known: dict[ir.Value, Vector], names: Names
) -> bool:
    """Give a Reshape a constant target where at most one entry stays open."""
    source, target = node.inputs[0], node.inputs[1]
    if source is None or target is None or constant(target) is not None:
        return False
    wanted = known.get(target)
    if wanted is None or node.attributes.get_int("allowzero", 0) == 1:
        return False
    fixed = list(_fixed(wanted, source))
    if None in fixed:
        # A -1 beside a copied 0 would be ambiguous for an empty tensor, so it stands alone.
        fixed = [-1 if d is None or isinstance(d, str) else d for d in wanted]
        if fixed.count(-1) != 1 or 0 in fixed:
            return False
    name = names.new(f"{node.name or node.outputs[0].name}/shape")
    value = ir.Value(
        name=name,
        shape=ir.Shape([len(fixed)]),
        type=ir.TensorType(ir.DataType.INT64),
        const_value=ir.Tensor(np.asarray(fixed, np.int64), name=name),
    )
    graph.register_initializer(value)
    node.replace_input_with(1, value)
    return True


def _fixed(wanted: Vector, source: ir.Value) -> Iterator[int | None]:
    # An open entry that names the input's dimension at the same place is Reshape's 0: copy it.
    for axis, entry in enumerate(wanted):
        if isinstance(entry, int):
            yield entry
        elif entry is None or source.shape is None or axis >= len(source.shape):
            yield None
        else:
            dim = source.shape[axis]
            yield 0 if not isinstance(dim, int) and dim.value == entry else None
