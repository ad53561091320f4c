"""Arrays to wire bytes and back; the dtype names of the Open Inference Protocol.

Row-major and little-endian, no padding; a type below 8 bits takes a byte an element, a string is
its length (4 bytes) and its UTF-8 bytes. Every fault of the sender is an InvalidRequestError.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from autoglm.errors import InvalidRequestError
from autoglm.spec import Value
from autoglm.tensor.dtype import DTYPES, from_numpy

MAX_RANK = 32
OIP_NAMES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "bfloat16": "BF16",
    "string": "BYTES",
}
_FROM_OIP = {oip: ours for ours, oip in OIP_NAMES.items()}


def _little(held: np.dtype) -> np.dtype:
    # Where the machine's own order is that, the same object: the quick checks of a request and of
    # an engine compare dtypes by identity.
    little = held.newbyteorder("<") if held.kind in "iufc" else held
    return held if little == held else little


_WIRE = {name: _little(row.numpy) for name, row in DTYPES.items() if name != "string"}


def oip_name(dtype: str) -> str:
    """Our dtype as the Open Inference Protocol writes it; what it lacks keeps our name, upper."""
    return OIP_NAMES.get(dtype, dtype.upper())


def from_oip(name: str, datatype: str) -> str:
    """The dtype that tensor `name` says it has, as ours."""
    dtype = _FROM_OIP.get(datatype) or datatype.lower()
    if dtype not in DTYPES:
        raise InvalidRequestError(
            "Tensor {name!r} has datatype {found!r}; known: {known}.",
            name=name[:100],
            found=datatype[:100],
            known=", ".join(_FROM_OIP),
        )
    return dtype


def decode(name: str, dtype: str, shape: Sequence[int], raw: bytes | memoryview) -> Value:
    """The array in `raw`; a read-only view, but for strings."""
    if dtype == "string":
        return from_list(name, dtype, shape, list(_strings(name, bytes(raw))))
    wire = _WIRE.get(dtype)
    if wire is None:
        raise _unknown_dtype(name, dtype)
    dims = tuple(shape)
    if min(dims, default=0) < 0 or math.prod(dims) * wire.itemsize != len(raw):
        raise InvalidRequestError(
            "Tensor {name!r} of dtype {dtype} and shape {shape} does not have {found} bytes.",
            hint="raw data are row-major and little-endian, without padding.",
            name=name[:100],
            dtype=dtype,
            shape=_brief(dims),
            found=len(raw),
        )
    array = np.frombuffer(raw, wire)
    if dtype == "bool" and array.size and array.view(np.uint8).max() > 1:
        raise InvalidRequestError(
            "Tensor {name!r} is bool; its bytes are 0 or 1 only.", name=name[:100]
        )
    return _shaped(name, array, dims)


def from_list(name: str, dtype: str, shape: Sequence[int], values: Iterable[object]) -> Value:
    """The array of the elements `values`, in row-major order."""
    row = DTYPES.get(dtype)
    if row is None:
        raise _unknown_dtype(name, dtype)
    try:
        with np.errstate(over="raise"):
            array = np.array(values, row.numpy)
    except (OverflowError, FloatingPointError, ValueError, TypeError) as error:
        raise InvalidRequestError(
            "Tensor {name!r} has a value that {dtype} cannot hold: {reason}.",
            name=name[:100],
            dtype=dtype,
            reason=str(error)[:200],
        ) from error
    return _shaped(name, array, tuple(shape))


def encode(value: Value) -> tuple[str, tuple[int, ...], bytes]:
    """Our dtype, the shape and the wire bytes of an array."""
    array = np.asarray(value)
    if array.dtype.kind in "OUS":
        return "string", array.shape, b"".join(_framed(array.ravel().tolist()))
    dtype = from_numpy(array.dtype)
    return dtype, array.shape, array.astype(_WIRE[dtype], copy=False).tobytes()


def _shaped(name: str, array: Value, dims: tuple[int, ...]) -> Value:
    try:
        if len(dims) <= MAX_RANK and min(dims, default=0) >= 0:
            return array.reshape(dims)
    except (ValueError, OverflowError):
        pass  # said below
    raise InvalidRequestError(
        "Tensor {name!r} has {found} elements, which do not fill shape {shape}.",
        hint="Dimensions are 0 or more, at most {rank} of them.",
        name=name[:100],
        found=array.size,
        shape=_brief(dims),
        rank=MAX_RANK,
    )


def _strings(name: str, raw: bytes) -> Iterator[str]:
    at = 0
    while at < len(raw):
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        if at + 4 > len(raw) or end > len(raw):
            raise InvalidRequestError(
                "Tensor {name!r}: the string at byte {at} runs past the end of the data.",
                hint="Each string is its length (4 bytes, little-endian) and its UTF-8 bytes.",
                name=name[:100],
                at=at,
            )
        yield text(name, raw[at + 4 : end])
        at = end


def text(name: str, raw: bytes) -> str:
    """One element of a string tensor."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            "Tensor {name!r} holds bytes that are not UTF-8.", name=name[:100]
        ) from error


def _framed(values: Iterable[object]) -> Iterator[bytes]:
    for value in values:
        data = value if isinstance(value, bytes) else str(value).encode()
        yield struct.pack("<I", len(data))
        yield data


def _brief(dims: tuple[int, ...]) -> str:
    return "x".join(map(str, dims[:8])) + ("…" if len(dims) > 8 else "") or "()"


def _unknown_dtype(name: str, dtype: str) -> InvalidRequestError:
    return InvalidRequestError(
        "Tensor {name!r} has dtype {found!r}; known: {known}.",
        name=name[:100],
        found=dtype[:100],
        known=", ".join(DTYPES),
    )
