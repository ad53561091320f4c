"""Remove nodes that do nothing, that nobody reads, or that another node already computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from autoglm.rewrite.facts import SOURCE, sources, subgraphs
from autoglm.rewrite.values import broadcasts_into, constant, ints, permutation, same_shape, small

_SHARED_BYTES = 1024
_RANDOM = {
    *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
    *("Multinomial", "Bernoulli", "Dropout"),
}


def bypass(node: ir.Node) -> bool:
    """Let readers of the first output read the first input; False where a name forbids it."""
    source, value = node.inputs[0], node.outputs[0]
    graph = node.graph
    if source is None or graph is None:
        return False
    if value.is_graph_output():
        producer = source.producer()
        # The graph's output keeps its name, so its new producer must be free to take that name.
        if producer is None or producer.graph is not graph or source.is_graph_output():
            return False
        value.replace_all_uses_with(source, replace_graph_outputs=True)
        source.name = value.name
    else:
        value.replace_all_uses_with(source)
    if source.shape is None or same_shape(source, value):
        source.shape = value.shape if value.shape is not None else source.shape
    source.type = source.type if source.type is not None else value.type
    graph.remove(node, safe=True)
    return True


def remove_identities(model: ir.Model) -> int:
    """Identity -> nothing."""
    return _bypass_all(model, {"Identity": lambda node: True})


def remove_dropout(model: ir.Model) -> int:
    """Dropout outside training, with its mask unread -> nothing."""
    return _bypass_all(model, {"Dropout": _is_inference_dropout})


def remove_no_ops(model: ir.Model) -> int:
    """Operators whose result is their input for every value -> nothing; see `NO_OPS`."""
    return _bypass_all(model, NO_OPS)


def _bypass_all(model: ir.Model, table: dict[str, Callable[[ir.Node], bool]]) -> int:
    count = 0
    for graph in list(model.graphs()):
        for node in graph:
            idle = table.get(node.op_type)
            if idle is not None and not node.domain and node.inputs and idle(node):
                count += bypass(node)
    return count


def _is_inference_dropout(node: ir.Node) -> bool:
    if any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
        return False
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        training = constant(node.inputs[2])
        return training is not None and not training.any()
    return node.attributes.get_int("is_test", 1) == 1


def _same_dtype(node: ir.Node) -> bool:
    value = node.inputs[0]
    return value is not None and value.dtype is not None and value.dtype == node.outputs[0].dtype


def _keeps_shape(node: ir.Node) -> bool:
    return same_shape(node.inputs[0], node.outputs[0])


def _is_identity_transpose(node: ir.Node) -> bool:
    perm = permutation(node)
    return perm is not None and perm == sorted(perm)


def _pads_nothing(node: ir.Node) -> bool:
    pads = ints(node.inputs[1]) if len(node.inputs) > 1 else node.attributes.get_ints("pads")
    return pads is not None and not any(pads)


def _slices_all(node: ir.Node) -> bool:
    given = [ints(v) for v in node.inputs[1:3]]
    if len(given) < 2 or any(g is None for g in given) or not _keeps_shape(node):
        return False
    steps = [1] if len(node.inputs) < 5 or node.inputs[4] is None else ints(node.inputs[4])
    return steps is not None and all(s == 1 for s in steps)


def _other(node: ir.Node, positions: tuple[int, ...]) -> np.ndarray | None:
    """The second operand where it is a constant that leaves dtype and shape of the first alone."""
    x, c = node.inputs[0], node.inputs[1]
    if x is None or c is None or 1 not in positions or not broadcasts_into(c, x):
        return None
    return small(c)


def _times_one(node: ir.Node) -> bool:
    array = _other(node, (1,))
    return array is not None and bool((array == 1).all())


def _plus_nothing(sign: bool) -> Callable[[ir.Node], bool]:
    # In floats only x + (-0.0) and x - (+0.0) keep the sign of a zero x.
    def idle(node: ir.Node) -> bool:
        array = _other(node, (1,))
        if array is None or not bool((array == 0).all()):
            return False
        kind = node.outputs[0].dtype
        if kind is not None and kind.is_integer():
            return True
        return bool((np.signbit(array.astype(np.float64)) == sign).all())

    return idle


def _is_alone(node: ir.Node) -> bool:
    return len(node.inputs) == 1


def _clips_nothing(node: ir.Node) -> bool:
    return not node.attributes and all(v is None for v in node.inputs[1:])


NO_OPS: dict[str, Callable[[ir.Node], bool]] = {
    "Cast": _same_dtype,
    "Transpose": _is_identity_transpose,
    "Reshape": _keeps_shape,
    "Flatten": _keeps_shape,
    "Expand": _keeps_shape,
    "Pad": _pads_nothing,
    "Slice": _slices_all,
    "Mul": _times_one,
    "Div": _times_one,
    "Pow": _times_one,
    "Add": _plus_nothing(sign=True),
    "Sub": _plus_nothing(sign=False),
    "Concat": _is_alone,
    "Sum": _is_alone,
    "Max": _is_alone,
    "Min": _is_alone,
    "Mean": _is_alone,
    "Clip": _clips_nothing,
}


def resolve_cast_like(model: ir.Model) -> int:
    """CastLike -> Cast, where the dtype of its second input is known."""
    count = 0
    for graph in list(model.graphs()):
        for node in graph:
            like = node.inputs[1] if node.op_type == "CastLike" and not node.domain else None
            if like is None or like.dtype is None or any(v.is_graph_output() for v in node.outputs):
                continue
            attributes = [ir.AttrInt64("to", int(like.dtype)), *node.attributes.values()]
            cast = ir.Node("", "Cast", [node.inputs[0]], attributes, name=node.name)
            cast.metadata_props[SOURCE] = ",".join(sources(node))
            ir.convenience.replace_nodes_and_values(
                graph, node, [node], [cast], node.outputs, cast.outputs
            )
            count += 1
    return count


def remove_dead_code(model: ir.Model) -> int:
    """Nodes, optional outputs and weights that nobody reads."""
    from onnx_ir.passes.common import RemoveUnusedFunctionsPass, RemoveUnusedNodesPass

    before = sum(1 for g in model.graphs() for _ in g)
    RemoveUnusedNodesPass()(model)
    RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
    return before - sum(1 for g in model.graphs() for _ in g)


def share_equal(model: ir.Model) -> int:
    """Equal nodes over equal inputs -> one; small equal weights too."""
    return _share_weights(model.graph) + sum(_share_nodes(g) for g in list(model.graphs()))


def _share_weights(graph: ir.Graph) -> int:
    first: dict[Any, ir.Value] = {}
    count = 0
    for value in list(graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or tensor.nbytes > _SHARED_BYTES or tensor.dtype is ir.DataType.STRING:
            continue
        if value.is_graph_input() or value.is_graph_output():
            continue
        key = (tensor.dtype, tuple(tensor.shape), tensor.tobytes())
        kept = first.setdefault(key, value)
        if kept is not value:
            value.replace_all_uses_with(kept)
            del graph.initializers[str(value.name)]
            count += 1
    return count


def _share_nodes(graph: ir.Graph) -> int:
    first: dict[Any, ir.Node] = {}
    count = 0
    for node in graph:
        # Operators of other domains may have a state; random ones surely give something new.
        if node.domain or node.op_type in _RANDOM or any(True for _ in subgraphs(node)):
            continue
        if any(v.is_graph_output() for v in node.outputs):
            continue
        key = _identity(node)
        kept = first.setdefault(key, node) if key is not None else node
        if kept is node:
            continue
        union = dict.fromkeys((*sources(kept), *sources(node)))
        kept.metadata_props[SOURCE] = ",".join(union)
        for old, new in zip(node.outputs, kept.outputs, strict=True):
            old.replace_all_uses_with(new)
        graph.remove(node, safe=True)
        count += 1
    return count


def _identity(node: ir.Node) -> Any:
    attributes = []
    for name in sorted(node.attributes):
        attribute = node.attributes[name]
        value = attribute.value
        if attribute.is_ref() or attribute.type is ir.AttributeType.TENSORS:
            return None
        if attribute.type is ir.AttributeType.TENSOR:
            if value.nbytes > _SHARED_BYTES:
                return None
            value = (value.dtype, tuple(value.shape), value.tobytes())
        elif isinstance(value, (list, tuple)):
            value = tuple(value)
        attributes.append((name, repr(value)))
    kinds = tuple(bool(v.name) for v in node.outputs)
    inputs = tuple(None if v is None else id(v) for v in node.inputs)
    return node.op_type, inputs, tuple(attributes), kinds
