"""One table of dtypes: our name, the NumPy type that holds it, ONNX's enum, and its width in bits.

Names are NumPy's and ml_dtypes'. `string` is held as an object array of `str`. A sub-byte element
takes a whole byte in a NumPy array and `bits` bits once packed (in a model file).
"""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from autoglm.errors import InputError


@dataclass(frozen=True, slots=True)
class Dtype:
    """One row: `kind` is float, int, uint, bool, complex or string."""

    name: str
    numpy: np.dtype
    onnx: int
    bits: int  # packed; 0 for strings
    kind: str


def _row(name: str, held: object, onnx: int, bits: int, kind: str) -> Dtype:
    return Dtype(name, np.dtype(held), onnx, bits, kind)  # type: ignore[call-overload]


DTYPES: dict[str, Dtype] = {
    row.name: row
    for row in (
        _row("float32", np.float32, 1, 32, "float"),
        _row("uint8", np.uint8, 2, 8, "uint"),
        _row("int8", np.int8, 3, 8, "int"),
        _row("uint16", np.uint16, 4, 16, "uint"),
        _row("int16", np.int16, 5, 16, "int"),
        _row("int32", np.int32, 6, 32, "int"),
        _row("int64", np.int64, 7, 64, "int"),
        _row("string", object, 8, 0, "string"),
        _row("bool", np.bool_, 9, 8, "bool"),
        _row("float16", np.float16, 10, 16, "float"),
        _row("float64", np.float64, 11, 64, "float"),
        _row("uint32", np.uint32, 12, 32, "uint"),
        _row("uint64", np.uint64, 13, 64, "uint"),
        _row("complex64", np.complex64, 14, 64, "complex"),
        _row("complex128", np.complex128, 15, 128, "complex"),
        _row("bfloat16", ml_dtypes.bfloat16, 16, 16, "float"),
        _row("float8_e4m3fn", ml_dtypes.float8_e4m3fn, 17, 8, "float"),
        _row("float8_e4m3fnuz", ml_dtypes.float8_e4m3fnuz, 18, 8, "float"),
        _row("float8_e5m2", ml_dtypes.float8_e5m2, 19, 8, "float"),
        _row("float8_e5m2fnuz", ml_dtypes.float8_e5m2fnuz, 20, 8, "float"),
        _row("uint4", ml_dtypes.uint4, 21, 4, "uint"),
        _row("int4", ml_dtypes.int4, 22, 4, "int"),
        _row("float4_e2m1fn", ml_dtypes.float4_e2m1fn, 23, 4, "float"),
        _row("float8_e8m0fnu", ml_dtypes.float8_e8m0fnu, 24, 8, "float"),
        _row("uint2", ml_dtypes.uint2, 25, 2, "uint"),
        _row("int2", ml_dtypes.int2, 26, 2, "int"),
        _row("float6_e2m3fn", ml_dtypes.float6_e2m3fn, 27, 6, "float"),
        _row("float6_e3m2fn", ml_dtypes.float6_e3m2fn, 28, 6, "float"),
    )
}
_BY_ONNX = {row.onnx: row.name for row in DTYPES.values()}
_BY_NUMPY = {row.numpy: row.name for row in DTYPES.values()}


def dtype(name: str) -> Dtype:
    """The row of that name; InputError lists the names."""
    row = DTYPES.get(name)
    if row is None:
        raise InputError(
            "Unknown dtype {name!r}; known: {known}.", name=name, known=", ".join(sorted(DTYPES))
        )
    return row


def to_numpy(name: str) -> np.dtype:
    """The NumPy dtype that holds `name`."""
    return dtype(name).numpy


def from_numpy(held: object) -> str:
    """The name of a NumPy dtype (or of anything `np.dtype` takes); text of any kind is `string`."""
    kind = np.dtype(held)  # type: ignore[call-overload]
    if kind.kind in "OUST":
        return "string"
    name = _BY_NUMPY.get(kind) or _BY_NUMPY.get(kind.newbyteorder("="))
    if name is None:
        raise InputError(
            "dtype {found} has no ONNX counterpart; known: {known}.",
            found=str(kind),
            known=", ".join(sorted(DTYPES)),
        )
    return name


def to_onnx(name: str) -> int:
    """ONNX's TensorProto.DataType number of `name`."""
    return dtype(name).onnx


def from_onnx(number: int) -> str:
    """The name of an ONNX TensorProto.DataType number; "" for 0 (undefined)."""
    if number == 0:
        return ""
    name = _BY_ONNX.get(int(number))
    if name is None:
        raise InputError(
            "Unknown ONNX element type {number}; known: 1 to {last}.",
            number=int(number),
            last=max(_BY_ONNX),
        )
    return name


def bits(name: str) -> int:
    """Width of one element once packed; 0 for strings, whose size is not fixed."""
    return dtype(name).bits


def nbytes(name: str, count: int) -> int:
    """Bytes of `count` packed elements, as a model file stores them."""
    return (count * bits(name) + 7) // 8


def is_native(name: str) -> bool:
    """Whether plain NumPy (and so .npy files and the buffer protocol) knows this dtype."""
    # The kind does not tell: ml_dtypes registers float8_e5m2 as "f".
    held = dtype(name).numpy
    return held.isbuiltin == 1 and held.kind != "O"
