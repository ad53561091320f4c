"""Stored tensors: declared dims against the bytes that are there, and arrays over mapped bytes."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from autoglm.errors import InputError, ModelError
from autoglm.frontends import check_bytes, shown
from autoglm.frontends.onnx.external import regions, safe_parts

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

_MAX_RANK = 64  # NumPy's own limit
_INT32_BITS = {"int32", "int16", "int8", "uint16", "uint8", "bool", "float16", "bfloat16"}
_FIELDS = {
    "float32": ("float_data", 1),
    "complex64": ("float_data", 2),
    "int64": ("int64_data", 1),
    "float64": ("double_data", 1),
    "complex128": ("double_data", 2),
    "uint32": ("uint64_data", 1),
    "uint64": ("uint64_data", 1),
    "string": ("string_data", 1),
}
_DATA_FIELDS = (
    "float_data",
    "int32_data",
    "string_data",
    "int64_data",
    "double_data",
    "uint64_data",
)


def check_dims(name: str, dims: list[int]) -> int:
    """The element count of a declared shape; refuses negative dims and absurd ranks."""
    if any(d < 0 for d in dims):
        raise ModelError(
            "Tensor {name} declares the shape {dims}; a dimension is at least 0.",
            hint="Only inputs may be dynamic; there, give the dimension a name instead of -1.",
            name=shown(name),
            dims=dims[:_MAX_RANK],
        )
    if len(dims) > _MAX_RANK:
        raise ModelError(
            "Tensor {name} has {rank} dimensions; at most {limit} are allowed.",
            name=shown(name),
            rank=len(dims),
            limit=_MAX_RANK,
        )
    return prod(dims)


def dtype_of(tensor: onnx.TensorProto, name: str) -> str:
    """The tensor's dtype by our name; ModelError where ONNX has none of that number."""
    from autoglm.tensor.dtype import from_onnx

    try:
        dtype = from_onnx(tensor.data_type)
    except InputError:
        dtype = ""
    if not dtype:
        raise ModelError(
            "Tensor {name} has element type {number}, which ONNX does not define.",
            hint="The file is damaged, or written by a newer ONNX than the one installed.",
            name=shown(name),
            number=tensor.data_type,
        )
    return dtype


def check_tensor(tensor: onnx.TensorProto, raw_bytes: int | None = None) -> None:
    """Compare what a TensorProto declares with what it holds; external files are opened later.

    `raw_bytes` is the length of raw data that was left in the file.
    """
    from autoglm.tensor.dtype import bits, nbytes

    name = tensor.name
    count = check_dims(name, list(tensor.dims))
    dtype = dtype_of(tensor, name)
    check_bytes(name, list(tensor.dims), bits(dtype) or 8)
    held = {f: n for f in _DATA_FIELDS if (n := len(getattr(tensor, f)))}
    raw = len(tensor.raw_data) if raw_bytes is None else raw_bytes
    external = tensor.data_location == tensor.EXTERNAL
    if len(held) + bool(raw) + external > 1:
        raise ModelError(
            "Tensor {name} stores its values more than once ({where}).",
            name=shown(name),
            where=", ".join([*held, *["raw_data"] * bool(raw), *["external data"] * external]),
        )
    if external:
        if dtype == "string":
            raise ModelError("Tensor {name}: strings cannot be external data.", name=shown(name))
        region = regions(tensor)
        safe_parts(region.location, name)
        if region.length is not None:
            need = nbytes(dtype, count)
            _match(name, list(tensor.dims), dtype, need, region.length, "bytes of external data")
        return
    if raw or tensor.HasField("raw_data") or raw_bytes is not None:
        if dtype == "string":
            raise ModelError("Tensor {name}: strings cannot be raw data.", name=shown(name))
        _match(name, list(tensor.dims), dtype, nbytes(dtype, count), raw, "bytes of raw data")
        return
    field, need = _typed(dtype, count)
    strange = [f for f in held if f != field]
    if strange:
        raise ModelError(
            "Tensor {name} is {dtype}, whose values belong in {field}; found {found}.",
            name=shown(name),
            dtype=dtype,
            field=field,
            found=strange[0],
        )
    _match(name, list(tensor.dims), dtype, need, held.get(field, 0), f"entries of {field}")


def _typed(dtype: str, count: int) -> tuple[str, int]:
    # The typed field that holds `count` values, and how many entries it then has (onnx.proto).
    from autoglm.tensor.dtype import bits, nbytes

    if dtype in _FIELDS:
        field, factor = _FIELDS[dtype]
        return field, count * factor
    if dtype in _INT32_BITS or bits(dtype) in (6, 8):
        return "int32_data", count
    return "int32_data", nbytes(dtype, count)


def _match(name: str, dims: list[int], dtype: str, need: int, found: int, what: str) -> None:
    if need != found:
        raise ModelError(
            "Tensor {name} of shape {dims} and type {dtype} needs {need} {what}, found {found}.",
            hint="The model is damaged: download or export it again.",
            name=shown(name),
            dims=dims,
            dtype=dtype,
            need=need,
            what=what,
            found=found,
        )


def mapped_tensor(data: memoryview, dtype: int, dims: list[int], name: str) -> ir.TensorProtocol:
    """An IR tensor over bytes that stay where they are; sub-byte types stay packed."""
    import numpy as np
    import onnx_ir as ir

    from autoglm.tensor.dtype import bits, from_onnx, to_numpy

    kind = ir.DataType(dtype)
    width = bits(from_onnx(dtype))
    if width < 8:
        packed = np.frombuffer(data, np.uint8)
        return ir.PackedTensor(packed, kind, shape=dims, name=name)
    array: Any = np.frombuffer(data, to_numpy(from_onnx(dtype))) if len(data) else None
    if array is None:
        array = np.empty(0, to_numpy(from_onnx(dtype)))
    return ir.Tensor(array.reshape(dims), kind, name=name)
