"""Declared types and shapes of values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoglm.errors import InputError, ModelError
from autoglm.frontends import check_bytes, shown
from autoglm.frontends.onnx.tensors import check_dims

if TYPE_CHECKING:
    import onnx


def check_value(value: onnx.ValueInfoProto) -> None:
    """Refuse negative or impossible dimensions, unknown element types, and maps."""
    if value.HasField("type"):
        check_type(value.name, value.type)


def check_type(name: str, kind: onnx.TypeProto) -> None:
    """`check_value`, on the type alone."""
    which = kind.WhichOneof("value")
    while which in ("sequence_type", "optional_type"):
        kind = getattr(kind, which).elem_type
        which = kind.WhichOneof("value")
    if which == "map_type":
        raise ModelError(
            "Value {name} is a map; maps are not supported.",
            hint="Export without the map (skl2onnx: zipmap=False).",
            name=shown(name),
        )
    if which not in ("tensor_type", "sparse_tensor_type"):
        return
    tensor = getattr(kind, which)
    bits = _bits(name, tensor.elem_type)
    shape = tensor.shape.dim if tensor.HasField("shape") else ()
    static = [d.dim_value for d in shape if d.WhichOneof("value") == "dim_value"]
    check_dims(name, static)
    if len(static) == len(shape):
        check_bytes(name, static, bits or 8)


def _bits(name: str, number: int) -> int:
    from autoglm.tensor.dtype import bits, from_onnx

    try:
        dtype = from_onnx(number)
    except InputError as error:
        raise ModelError(
            "Value {name} has element type {number}, which ONNX does not define.",
            hint="The file is damaged, or written by a newer ONNX than the one installed.",
            name=shown(name),
            number=number,
        ) from error
    return bits(dtype) if dtype else 0
