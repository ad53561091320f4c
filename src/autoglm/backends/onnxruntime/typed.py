"""Values that NumPy cannot name (bfloat16, fp8, 4 and 2 bit), as the engine's own typed values and back."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from autoglm.spec import TensorInfo, Value
from autoglm.tensor.dtype import dtype, from_onnx
from autoglm.tensor.feeds import is_plain

if TYPE_CHECKING:
    import onnxruntime as ort

Array = np.ndarray[Any, Any]


def is_exotic(info: TensorInfo) -> bool:
    """Whether the value needs a typed OrtValue to reach the engine."""
    return info.dtype != "string" and not is_plain(TensorInfo(info.name, info.dtype, info.shape))


def unreachable(infos: Sequence[TensorInfo]) -> TensorInfo | None:
    """The first value that the engine's Python interface cannot carry in this company, or None.

    Sequences and texts go only through plain `run`, exotic dtypes only through OrtValues.
    """
    if not any(map(is_exotic, infos)):
        return None
    return next((i for i in infos if i.kind == "sequence" or i.dtype == "string"), None)


def to_ort(info: TensorInfo, array: Array) -> ort.OrtValue:
    """A typed value that holds a copy of the array; a native dtype is borrowed, not copied."""
    import onnxruntime as ort

    row = dtype(info.dtype)
    if not is_exotic(info):
        return ort.OrtValue.ortvalue_from_numpy(array)
    value = ort.OrtValue.ortvalue_from_shape_and_type(list(array.shape), row.onnx)
    raw = pack(array, row.bits) if row.bits < 8 else array.reshape(-1).view(np.uint8)
    if raw.nbytes:
        ctypes.memmove(value.data_ptr(), raw.ctypes.data, raw.nbytes)
    return value


def from_ort(value: ort.OrtValue) -> Value:
    """What an output holds, in memory of its own."""
    if not value.has_value():
        return None
    row = dtype(from_onnx(value.element_type()))
    if not is_exotic(TensorInfo("", row.name, None)):
        return value.numpy().copy()
    shape = tuple(value.shape())
    size = value.tensor_size_in_bytes()
    raw = np.frombuffer(ctypes.string_at(value.data_ptr(), size) if size else b"", np.uint8)
    if row.bits < 8:
        return unpack(raw, row.name, shape)
    return raw.copy().view(row.numpy).reshape(shape)


def pack(array: Array, bits: int) -> Array:
    """One element per byte -> ONNX's packing: the first element in the lowest bits."""
    each = 8 // bits
    low = array.reshape(-1).view(np.uint8) & ((1 << bits) - 1)
    padded = np.zeros(-(-low.size // each) * each, np.uint8)
    padded[: low.size] = low
    shifts = np.arange(each, dtype=np.uint8) * bits
    packed: Array = np.bitwise_or.reduce(padded.reshape(-1, each) << shifts, axis=1)
    return packed.astype(np.uint8)


def unpack(raw: Array, name: str, shape: tuple[int, ...]) -> Array:
    """ONNX's packing -> one element per byte, in the dtype of that name."""
    row = dtype(name)
    shifts = np.arange(8 // row.bits, dtype=np.uint8) * row.bits
    flat = ((raw[:, None] >> shifts) & ((1 << row.bits) - 1)).reshape(-1)
    flat = flat[: int(np.prod(shape, dtype=np.int64))]
    if row.kind == "float":
        return flat.view(row.numpy).reshape(shape)
    if row.kind == "int":
        sign = 1 << (row.bits - 1)
        return ((flat ^ sign).astype(np.int8) - sign).astype(row.numpy).reshape(shape)
    return flat.astype(row.numpy).reshape(shape)
