"""Values that NumPy cannot name (bfloat16, fp8, 4 and 2 bit) as the engine's, and back."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from autoglm.spec import TensorInfo, Value
from autoglm.tensor.dtype import dtype, from_onnx
from autoglm.tensor.feeds import is_exotic
from autoglm.tensor.packing import from_bytes, to_bytes

if TYPE_CHECKING:
    import onnxruntime as ort


def unreachable(infos: Sequence[TensorInfo]) -> TensorInfo | None:
    """The first value that the engine's Python interface cannot carry in this company, or None.

    Sequences and texts go only through plain `run`, exotic dtypes only through OrtValues.
    """
    if not any(map(is_exotic, infos)):
        return None
    return next((i for i in infos if i.kind == "sequence" or i.dtype == "string"), None)


def to_ort(info: TensorInfo, array: np.ndarray[Any, Any]) -> ort.OrtValue:
    """A typed value that holds a copy of the array; a native dtype is borrowed, not copied."""
    import onnxruntime as ort

    if not is_exotic(info):
        return ort.OrtValue.ortvalue_from_numpy(array)
    shape = list(array.shape)
    value = ort.OrtValue.ortvalue_from_shape_and_type(shape, dtype(info.dtype).onnx)
    raw = to_bytes(array, info.dtype)
    if raw.nbytes:
        ctypes.memmove(value.data_ptr(), raw.ctypes.data, raw.nbytes)
    return value


def from_ort(value: ort.OrtValue) -> Value:
    """What an output holds, in memory of its own."""
    if not value.has_value():
        return None
    name = from_onnx(value.element_type())
    if not is_exotic(TensorInfo("", name, None)):
        return value.numpy().copy()
    size = value.tensor_size_in_bytes()
    raw = ctypes.string_at(value.data_ptr(), size) if size else b""
    return from_bytes(np.frombuffer(raw, np.uint8), name, tuple(value.shape()))
