"""4-bit and 2-bit elements: one per byte in NumPy, packed in model files and engines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from autoglm.tensor.dtype import dtype

Array = np.ndarray[Any, Any]


def to_bytes(array: Array, name: str) -> Array:
    """The elements as ONNX stores them, as flat uint8; those below a byte are packed."""
    flat = np.ascontiguousarray(array.reshape(-1)).view(np.uint8)
    bits = dtype(name).bits
    return flat if bits >= 8 else pack(flat, bits)


def from_bytes(raw: Array, name: str, shape: Sequence[int]) -> Array:
    """An array in memory of its own, from flat uint8 as ONNX stores it."""
    row = dtype(name)
    if row.bits >= 8:
        return raw.copy().view(row.numpy).reshape(shape)
    count = int(np.prod(shape, dtype=np.int64))
    low = unpack(raw, row.bits)[:count]
    if row.kind == "int":
        sign = 1 << (row.bits - 1)
        signed: Array = (low ^ sign).astype(np.int8) - np.int8(sign)
        return signed.astype(row.numpy).reshape(shape)
    held: Array = low.view(row.numpy) if row.kind == "float" else low.astype(row.numpy)
    return held.reshape(shape)


def pack(flat: Array, bits: int) -> Array:
    """Several elements to a byte, the first in the lowest bits; the rest is zeros."""
    each = 8 // bits
    padded = np.zeros(-(-flat.size // each) * each, np.uint8)
    padded[: flat.size] = flat & ((1 << bits) - 1)
    shifts = np.arange(each, dtype=np.uint8) * bits
    packed: Array = np.bitwise_or.reduce(padded.reshape(-1, each) << shifts, axis=1)
    return packed.astype(np.uint8)


def unpack(raw: Array, bits: int) -> Array:
    """One element to a byte, its high bits zero; the filling of the last byte included."""
    shifts = np.arange(8 // bits, dtype=np.uint8) * bits
    low: Array = ((raw.reshape(-1, 1) >> shifts) & ((1 << bits) - 1)).reshape(-1)
    return low.astype(np.uint8)
