"""How to read a node of one operator version, from onnx's schema: the `Layout` that a pack
carries.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from autoglm.catalog.features import Layout

if TYPE_CHECKING:
    import onnx


@cache
def layout_of(op: str, since: int) -> Layout:
    """The layout of `domain::Op` at its since-version; a plain one where onnx has no schema."""
    schema = _schema(op, since)
    if schema is None:
        return Layout(("i0",), ("input",), 1)
    variadic = bool(schema.inputs) and schema.inputs[-1].option == schema.inputs[-1].option.Variadic
    names = tuple(i.name for i in schema.inputs)
    required = sum(1 for i in schema.inputs if i.option != i.option.Optional)
    return Layout(_typed(schema), names, required, variadic, _defaults(schema))


def _schema(op: str, since: int) -> onnx.defs.OpSchema | None:
    import onnx

    domain, _, name = op.rpartition("::")
    try:
        return onnx.defs.get_schema(name, since, domain)
    except onnx.defs.SchemaError:
        return None


def _typed(schema: onnx.defs.OpSchema) -> tuple[str, ...]:
    """One position per type variable: the first required input, else the first output, that it
    types.
    """
    variable = {c.type_param_str for c in schema.type_constraints if len(c.allowed_type_strs) > 1}
    positions: dict[str, str] = {}
    for side, formals in (("i", schema.inputs), ("o", schema.outputs)):
        for index, formal in enumerate(formals):
            optional = formal.option == formal.option.Optional
            mixed = formal.option == formal.option.Variadic and not formal.is_homogeneous
            if formal.type_str in variable and not optional and not mixed:
                positions.setdefault(formal.type_str, f"{side}{index}")
    return tuple(positions.values())


def _defaults(schema: onnx.defs.OpSchema) -> dict[str, Any]:
    import onnx

    found: dict[str, Any] = {}
    for name, attribute in schema.attributes.items():
        if not attribute.default_value.name:
            continue
        value = onnx.helper.get_attribute_value(attribute.default_value)
        if isinstance(value, bytes):
            value = value.decode()
        if isinstance(value, (str, int, float)) or (
            isinstance(value, list) and all(isinstance(v, (int, float)) for v in value)
        ):
            found[name] = value
    return found
