"""One message between the two processes: a JSON header, then the arrays' bytes. No pickle."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

# Name, dtype name, shape and bytes of one array.
Blob = tuple[str, str, tuple[int, ...], Any]
_LENGTH = struct.Struct("<Q")


def pack(header: dict[str, Any], blobs: Sequence[Blob] = ()) -> bytes:
    """A message as bytes."""
    rows = [[name, dtype, list(shape), len(data)] for name, dtype, shape, data in blobs]
    text = json.dumps({**header, "blobs": rows}).encode()
    return b"".join([_LENGTH.pack(len(text)), text, *(data for _, _, _, data in blobs)])


def unpack(message: bytes) -> tuple[dict[str, Any], list[Blob]]:
    """The header and the arrays, which share the message's memory."""
    view = memoryview(message)
    at = _LENGTH.size + _LENGTH.unpack(view[: _LENGTH.size])[0]
    header = json.loads(bytes(view[_LENGTH.size : at]))
    blobs: list[Blob] = []
    for name, dtype, shape, length in header.pop("blobs"):
        blobs.append((name, dtype, tuple(shape), view[at : at + length]))
        at += length
    return header, blobs
