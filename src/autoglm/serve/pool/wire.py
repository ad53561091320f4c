"""Tensors between the server and an engine's process: their elements in memory that both see, what
they are as JSON over a pipe. Both ends are ours, and still nothing here can run code.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from autoglm.errors import InputError
from autoglm.serve.pool.shared import LINE, Shared
from autoglm.spec import Value
from autoglm.tensor.dtype import from_numpy, to_numpy

_SMALL = 1024  # bytes of a message


def encode(
    values: Mapping[str, Value],
    shared: Shared,
    *,
    begin: int = 0,
    facts: Mapping[str, Any] | None = None,
) -> bytes:
    """Tensors, sequences, absent optionals and strings, with `facts` beside them. Elements go to
    the shared memory from `begin` on; the message says where.
    """
    writing = _Writing(begin)
    rows = {name: writing.describe(value) for name, value in values.items()}
    writing.copy(shared)
    return json.dumps({"values": rows, "facts": dict(facts or {}), "end": writing.end}).encode()


def decode(
    message: bytes, shared: Shared, *, copy: bool
) -> tuple[dict[str, Value], dict[str, Any], int]:
    """What `encode` wrote, and where it ends. Without `copy`, arrays lie in the shared memory, and
    hold until the next message.
    """
    told = _known(message) if len(message) <= _SMALL else json.loads(message)
    view = shared.view(told["end"]) if told["end"] else memoryview(b"")
    values = {name: _restore(row, view, copy) for name, row in told["values"].items()}
    return values, told["facts"], told["end"]


@lru_cache(maxsize=256)
def _known(message: bytes) -> Any:
    return json.loads(message)  # most questions are of the same few shapes


class _Writing:
    """Arrays that are to be copied, each with its place."""

    def __init__(self, begin: int) -> None:
        self.end = begin
        self._arrays: list[tuple[int, np.ndarray]] = []

    def describe(self, value: Value) -> Any:
        if value is None:
            return None
        if isinstance(value, list | tuple):
            return [self.describe(item) for item in value]
        array = np.asarray(value)
        if array.dtype.kind in "OUS":
            return {"text": [_text(item) for item in array.reshape(-1)], "shape": array.shape}
        at = -(-self.end // LINE) * LINE
        self._arrays.append((at, array))
        self.end = at + array.nbytes
        return {"dtype": from_numpy(array.dtype), "shape": array.shape, "at": at}

    def copy(self, shared: Shared) -> None:
        view = shared.view(self.end) if self.end else memoryview(b"")
        for at, array in self._arrays:
            place = np.frombuffer(view, array.dtype, array.size, at) if array.size else array
            np.copyto(place.reshape(array.shape), array)


def _text(item: object) -> str:
    if isinstance(item, bytes):
        return item.decode("utf-8", "replace")
    if isinstance(item, str):
        return item
    raise InputError("Expected texts, found {found}.", found=type(item).__name__)


def _restore(row: Any, view: memoryview, copy: bool) -> Value:
    if row is None:
        return None
    if isinstance(row, list):
        return [_restore(item, view, copy) for item in row]
    if "text" in row:
        return np.array(row["text"], dtype=object).reshape(row["shape"])
    dtype, shape = to_numpy(row["dtype"]), tuple(row["shape"])
    count = math.prod(shape)
    if not count:
        return np.empty(shape, dtype)
    array = np.frombuffer(view, dtype, count, row["at"]).reshape(shape)
    return array.copy() if copy else array
