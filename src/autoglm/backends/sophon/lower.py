"""Nodes as TPU-MLIR 1.30.2 reads them rightly: what it does not read, or reads as something else,
is said in other words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoglm.errors import CompileError

if TYPE_CHECKING:
    import onnx_ir as ir

# Its own defaults are others than ONNX's.
_DEFAULTS = {
    "Elu": {"alpha": 1.0},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
    "LeakyRelu": {"alpha": 0.01},
}
# Over no axis they give what they are given; the others still square, or take a logarithm.
_PLAIN_REDUCTIONS = {"ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"}


def lower(node: ir.Node) -> None:
    """Rewrite one node of ONNX's own in place; nodes that it needs go before it."""
    import onnx_ir as ir

    for name, value in _DEFAULTS.get(node.op_type, {}).items():
        if name not in node.attributes:
            node.attributes[name] = ir.AttrFloat32(name, value)
    if node.op_type.startswith("Reduce"):
        _reduction(node)
    elif node.op_type == "Sum" and len(node.inputs) > 1:
        _additions(node)
    elif node.op_type == "Split":
        _split(node)
    elif node.op_type == "Transpose":
        _transpose(node)


def _additions(node: ir.Node) -> None:
    """Its Sum takes no constant."""
    total, *others = node.inputs
    for other in others[:-1]:
        total = _before(node, "Add", total, other)
    _become(node, "Add", total, others[-1])


def _split(node: ir.Node) -> None:
    """An even one without its count, as before 18."""
    from autoglm.rewrite.values import static

    shape = static(node.inputs[0])
    axis = node.attributes.get_int("axis", 0)
    if "num_outputs" in node.attributes and shape and shape[axis] % len(node.outputs) == 0:
        node.attributes.pop("num_outputs")


def _transpose(node: ir.Node) -> None:
    """Without its permutation one dies of a segmentation fault."""
    import onnx_ir as ir

    from autoglm.rewrite.values import permutation

    order = permutation(node)
    if order is not None:
        node.attributes["perm"] = ir.AttrInt64s("perm", order)


def _reduction(node: ir.Node) -> None:
    """Axes as an attribute again, as before 18."""
    import onnx_ir as ir

    from autoglm.rewrite.values import ints

    axes = node.inputs[1] if len(node.inputs) > 1 else None
    found = ints(axes)
    if axes is not None and found is None:
        return
    if not found and node.attributes.get_int("noop_with_empty_axes", False):
        # TPU-MLIR does not know the attribute and would reduce over everything.
        if node.op_type not in _PLAIN_REDUCTIONS:
            raise CompileError(
                "TPU-MLIR takes no {op} that reduces over no axis; found one in {name!r}.",
                op=node.op_type,
                name=node.name or "",
            )
        node.op_type = "Identity"
        node.resize_inputs(1)
        node.attributes.clear()
        return
    if node.op_type == "ReduceSum":
        return  # takes its axes as an input in OPSETS too
    if found:
        node.attributes["axes"] = ir.AttrInt64s("axes", found)
    node.resize_inputs(1)
    node.attributes.pop("noop_with_empty_axes", None)


def _before(node: ir.Node, op: str, *inputs: ir.Value | None, **attributes: list[int]) -> ir.Value:
    import onnx_ir as ir

    from autoglm.rewrite.facts import SOURCE, sources

    made = ir.node(op, inputs, attributes=attributes)
    made.metadata_props[SOURCE] = ",".join(sources(node))
    assert node.graph is not None
    node.graph.insert_before(node, made)
    return made.outputs[0]


def _become(node: ir.Node, op: str, *inputs: ir.Value | None) -> None:
    node.op_type = op
    node.resize_inputs(len(inputs))
    for index, value in enumerate(inputs):
        node.replace_input_with(index, value)
