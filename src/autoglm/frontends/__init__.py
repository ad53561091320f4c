"""What every frontend does last: stable node names, source marks, shapes, bounded sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from autoglm.errors import LimitError, ModelError

if TYPE_CHECKING:
    import onnx_ir as ir

MAX_VALUE_BYTES = 1 << 40  # no machine this runs on holds a larger single tensor


def finish(model: ir.Model) -> ir.Model:
    """Name the nodes, infer types and shapes, refuse tensors beyond any machine; in place."""
    name_nodes(model)
    infer(model)
    check_sizes(model)
    return model


def name_nodes(model: ir.Model) -> None:
    """Give unnamed and duplicate nodes the name `Op_index`, and mark every node with its source.

    The index counts all nodes in file order, bodies after their node, so the same file gives the
    same names. A comma would end a name in `autoglm.source`, so it becomes an underscore.
    """
    nodes = list(all_nodes(model.graph))
    given = {clean(n.name) for n in nodes if n.name}
    used: set[str] = set()
    for index, node in enumerate(nodes):
        name = clean(node.name or "")
        if not name or name in used:
            name = unused(f"{node.op_type}_{index}", given, used)
        used.add(name)
        if node.name != name:
            node.name = name
        node.metadata_props.setdefault("autoglm.source", name)


def clean(name: str) -> str:
    """A node name without the separator of `autoglm.source`."""
    return name.replace(",", "_")


def unused(name: str, *taken: set[str]) -> str:
    """`name`, or `name_2`, `name_3` … where it is taken."""
    candidate, number = name, 1
    while any(candidate in names for names in taken):
        number += 1
        candidate = f"{name}_{number}"
    return candidate


def all_nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    """Every node in file order, the bodies of a node right after it."""
    from autoglm.rewrite.facts import deep_nodes

    for node in graph:
        yield node
        yield from deep_nodes(node)


def infer(model: ir.Model) -> None:
    """Infer types and shapes without copying weights; where onnx cannot, say so in the metadata."""
    import onnx_ir as ir

    from autoglm.rewrite.shapes import infer_in_place

    try:
        infer_in_place(model)
    except ModelError as error:
        model.metadata_props["autoglm.shape_note"] = str(error)
    except ir.serde.SerdeError as error:
        raise ModelError(
            "A node of the model gives a value of a type that ONNX does not define.",
            hint="The file is damaged: export the model again.",
        ) from error


def check_sizes(model: ir.Model) -> None:
    """Refuse a static shape that no machine can hold."""
    from autoglm.rewrite.facts import dims

    values = [*model.graph.inputs, *(v for n in all_nodes(model.graph) for v in n.outputs)]
    for value in values:
        shape = dims(value)
        if shape is None or not all(isinstance(d, int) for d in shape):
            continue
        check_bytes(str(value.name), [d for d in shape if isinstance(d, int)], _bits(value))


def check_bytes(name: str, shape: list[int], bits: int) -> None:
    """Refuse a tensor of that shape where it is beyond `MAX_VALUE_BYTES`."""
    size = bits
    for dim in shape:
        size *= dim
    if size > MAX_VALUE_BYTES * 8:
        raise LimitError(
            "Value {name} of shape {shape} would take {size} bytes; the limit is {limit}.",
            hint="Check the declared dimensions; one tensor cannot be that large.",
            name=shown(name),
            shape=shape,
            size=size // 8,
            limit=MAX_VALUE_BYTES,
        )


def _bits(value: ir.Value) -> int:
    dtype = value.dtype
    if dtype is None or dtype.name in ("STRING", "UNDEFINED"):
        return 8
    return dtype.bitwidth


def shown(text: object, limit: int = 80) -> str:
    """A name from a file as an error may show it: quoted, control characters escaped, shortened."""
    quoted = ascii(text) if not str(text).isprintable() else repr(str(text))
    return quoted if len(quoted) <= limit else f"{quoted[:limit]}…"
