"""Which revisions of an operator say the same of a node and differ only in the dtypes they take."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from autoglm.spec import NodeFacts

# Changed their meaning without changing a name or a default.
_MEANING = frozenset({"GroupNormalization"})
# Values that a later revision added to an attribute.
_LATER = {
    "Pad": ("mode", "wrap"),
    "Resize": ("coordinate_transformation_mode", "half_pixel_symmetric"),
}


def says_same(node: NodeFacts, opset: int) -> bool:
    """Whether the node means at `opset` what it means now, dtypes aside."""
    op, attributes = node.op, node.attributes
    here, there = _schema(op, node.since), _schema(op, opset)
    if here is None or there is None or there.deprecated:
        return False
    if here.since_version == there.since_version:
        return True
    if op in _MEANING or (op == "AveragePool" and attributes.get("ceil_mode")):
        return False
    name, value = _LATER.get(op, ("", None))
    if name and attributes.get(name) == value:
        return False
    return _takes(there, here, node) and not _changed(here, there, attributes)


def extra_attributes(op: str, since: int, opset: int) -> frozenset[str]:
    """Attributes of revision `since` that the one in force at `opset` does not know."""
    here, there = _schema(op, since), _schema(op, opset)
    return (
        frozenset(here.attributes) - frozenset(there.attributes) if here and there else frozenset()
    )


@cache
def _schema(op: str, opset: int) -> Any:
    import onnx

    try:
        return onnx.defs.get_schema(op, opset, "")
    except onnx.defs.SchemaError:
        return None


def _takes(there: Any, here: Any, node: NodeFacts) -> bool:
    """Whether the node's inputs and outputs stand in the same places there."""
    given = len(node.inputs) - next(
        (i for i, value in enumerate(reversed(node.inputs)) if value is not None), len(node.inputs)
    )
    if not there.min_input <= given <= there.max_input or len(node.outputs) > there.max_output:
        return False
    pairs = zip(here.inputs, there.inputs, strict=False)
    variadic = [(a.option.name, b.option.name) for a, b in list(pairs)[:given]]
    return all((a == "Variadic") == (b == "Variadic") for a, b in variadic)


def _changed(here: Any, there: Any, attributes: Mapping[str, Any]) -> bool:
    """Whether an attribute lost or changed its default, or is set and not known there."""
    for name, attribute in there.attributes.items():
        other = here.attributes.get(name)
        if other is None or str(other.default_value) != str(attribute.default_value):
            return True
    extra = {n: a for n, a in here.attributes.items() if n not in there.attributes}
    return any(not _at_default(a, attributes.get(n)) for n, a in extra.items())


def _at_default(attribute: Any, value: Any) -> bool:
    import onnx

    if value is None:
        return True
    default = attribute.default_value
    if not default.name:
        return False
    known = onnx.helper.get_attribute_value(default)
    if isinstance(known, bytes):
        known = known.decode()
    return bool(
        tuple(value) == tuple(known) if isinstance(value, (tuple, list)) else value == known
    )
