"""Tensors as bytes between the server and an engine's process: JSON for what they are, then raw
elements. Both ends are ours, and still nothing here can run code.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from autoglm.errors import InputError
from autoglm.spec import Value
from autoglm.tensor.dtype import from_numpy, to_numpy

_LENGTH = struct.Struct("<Q")


def encode(values: Mapping[str, Value], facts: Mapping[str, Any] | None = None) -> bytes:
    """Tensors, sequences, absent optionals and strings, with `facts` beside them."""
    blobs: list[bytes] = []
    rows = {name: _describe(value, blobs) for name, value in values.items()}
    header = json.dumps({"values": rows, "facts": dict(facts or {})}).encode()
    return b"".join((_LENGTH.pack(len(header)), header, *blobs))


def decode(message: bytes) -> tuple[dict[str, Value], dict[str, Any]]:
    """What `encode` wrote; the arrays are the caller's own."""
    (size,) = _LENGTH.unpack_from(message)
    start = _LENGTH.size + size
    header = json.loads(message[_LENGTH.size : start])
    cursor = [start]
    values = {name: _restore(row, message, cursor) for name, row in header["values"].items()}
    return values, header["facts"]


def _describe(value: Value, blobs: list[bytes]) -> Any:
    if value is None:
        return None
    if isinstance(value, list | tuple):
        return [_describe(item, blobs) for item in value]
    array = np.asarray(value)
    if array.dtype.kind in "OUS":
        return {"text": [_text(item) for item in array.reshape(-1)], "shape": array.shape}
    array = np.ascontiguousarray(array).reshape(array.shape)  # it would make a scalar a vector
    blobs.append(array.tobytes())
    return {"dtype": from_numpy(array.dtype), "shape": array.shape}


def _text(item: object) -> str:
    if isinstance(item, bytes):
        return item.decode("utf-8", "replace")
    if isinstance(item, str):
        return item
    raise InputError("Expected texts, found {found}.", found=type(item).__name__)


def _restore(row: Any, message: bytes, cursor: list[int]) -> Value:
    if row is None:
        return None
    if isinstance(row, list):
        return [_restore(item, message, cursor) for item in row]
    if "text" in row:
        return np.array(row["text"], dtype=object).reshape(row["shape"])
    dtype = to_numpy(row["dtype"])
    count = int(np.prod(row["shape"], dtype=np.int64))
    array = np.frombuffer(message, dtype, count, cursor[0]).reshape(row["shape"])
    cursor[0] += array.nbytes
    return array.copy()
