"""An answer as bytes, checked when it comes back: whatever is not whole is no answer.

    magic "AGA1" | SHA-256 of (key, rest) | length of the head (4, LE) | head as JSON | tensor bytes

The key is part of the checksum, so that a value stored under another key is none. Only numbers and
texts come out of it; nothing in it is ever executed.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import numpy as np

from autoglm.errors import InputError
from autoglm.serve.core import Response
from autoglm.tensor.dtype import to_numpy

_MAGIC = b"AGA1"
_HEAD = len(_MAGIC) + 32 + 4


def encode(key: bytes, answer: Response) -> bytes | None:
    """None for an answer that is not made of tensors."""
    rows, parts = [], []
    for name, value in answer.outputs.items():
        if not isinstance(value, np.ndarray):
            return None
        part = _pack(value)
        rows.append([name, str(value.dtype), list(value.shape), len(part)])
        parts.append(part)
    facts = [answer.model, answer.version, dict(answer.parameters), rows]
    head = json.dumps(facts).encode()
    rest = b"".join([len(head).to_bytes(4, "little"), head, *parts])
    return _MAGIC + hashlib.sha256(key + rest).digest() + rest


def decode(key: bytes, data: bytes) -> Response | None:
    """The answer, or None where a byte of it is missing or changed."""
    if len(data) < _HEAD or not data.startswith(_MAGIC):
        return None
    if hashlib.sha256(key + data[_HEAD - 4 :]).digest() != data[len(_MAGIC) : _HEAD - 4]:
        return None
    try:
        return _parse(data)
    except (ValueError, TypeError, RecursionError, InputError):
        return None  # made by another version of this program


def _parse(data: bytes) -> Response:
    size = int.from_bytes(data[_HEAD - 4 : _HEAD], "little")
    model, version, parameters, rows = json.loads(data[_HEAD : _HEAD + size])
    outputs, at = {}, _HEAD + size
    for name, dtype, shape, length in rows:
        outputs[name] = _unpack(dtype, shape, data[at : at + length])
        at += length
    if at != len(data):
        raise ValueError("bytes are left over")
    return Response(model, version, outputs, "", parameters)


def _pack(value: np.ndarray) -> bytes:
    if value.dtype == object:
        return json.dumps([str(item) for item in value.ravel()]).encode()
    return np.ascontiguousarray(value).tobytes()


def _unpack(dtype: str, shape: list[int], part: bytes) -> Any:
    if dtype == "object":
        texts = np.empty(math.prod(shape), dtype=object)
        texts[:] = json.loads(part)
        return texts.reshape(shape)
    return np.frombuffer(part, dtype=to_numpy(dtype)).reshape(shape)
