"""Arrays to tensors and back, for every ONNX dtype that torch can hold."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

from autoglm.tensor.dtype import from_numpy, to_numpy

TORCH: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "uint8": torch.uint8,
    "int8": torch.int8,
    "uint16": torch.uint16,
    "int16": torch.int16,
    "uint32": torch.uint32,
    "int32": torch.int32,
    "uint64": torch.uint64,
    "int64": torch.int64,
    "bool": torch.bool,
    "complex64": torch.complex64,
    "complex128": torch.complex128,
    "float8_e4m3fn": torch.float8_e4m3fn,
    "float8_e4m3fnuz": torch.float8_e4m3fnuz,
    "float8_e5m2": torch.float8_e5m2,
    "float8_e5m2fnuz": torch.float8_e5m2fnuz,
    "float8_e8m0fnu": torch.float8_e8m0fnu,
    # Torch has no arithmetic on these; the values travel in a wider dtype, narrowed at the edge.
    "int4": torch.int8,
    "uint4": torch.uint8,
    "int2": torch.int8,
    "uint2": torch.uint8,
    "float4_e2m1fn": torch.float32,
}
NARROW = {
    "int4": np.int8,
    "uint4": np.uint8,
    "int2": np.int8,
    "uint2": np.uint8,
    "float4_e2m1fn": np.float32,
}
# Dtypes whose bits travel under an integer of the same width: what NumPy and torch do not share.
_BITS = {
    "bfloat16": (np.int16, torch.int16),
    "float8_e4m3fn": (np.uint8, torch.uint8),
    "float8_e4m3fnuz": (np.uint8, torch.uint8),
    "float8_e5m2": (np.uint8, torch.uint8),
    "float8_e5m2fnuz": (np.uint8, torch.uint8),
    "float8_e8m0fnu": (np.uint8, torch.uint8),
}
NAMES = {held: name for name, held in TORCH.items() if name not in NARROW}


def _warn_once() -> None:
    # torch warns once per process of read-only arrays; ours may be, and are never written.
    array = np.zeros(1, np.float32)
    array.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.from_numpy(array)


_warn_once()


def to_tensor(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """The array as a CPU tensor; shares its memory where the dtype allows it."""
    name = from_numpy(array.dtype)
    if any(stride < 0 for stride in array.strides) or not array.dtype.isnative:
        array = array.astype(to_numpy(name), order="C")
    if name in NARROW:
        return torch.from_numpy(array.astype(NARROW[name]))
    if name in _BITS:
        bits = array if array.flags.c_contiguous else array.copy(order="C")
        return torch.from_numpy(bits.view(_BITS[name][0])).view(TORCH[name])
    return torch.from_numpy(array)


def to_array(tensor: torch.Tensor, declared: str) -> np.ndarray[Any, Any]:
    """The tensor as an array of the declared dtype; "" keeps the tensor's own."""
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    name = declared or NAMES[tensor.dtype]
    if tensor.dtype is not TORCH[name]:
        tensor = tensor.to(TORCH[name])
    if name in _BITS:
        bits: np.ndarray[Any, Any] = tensor.contiguous().view(_BITS[name][1]).numpy()
        return bits.view(to_numpy(name))
    array: np.ndarray[Any, Any] = tensor.numpy()
    return array.astype(to_numpy(name)) if name in NARROW else array


def blank(tensor: torch.Tensor, declared: str) -> np.ndarray[Any, Any]:
    """What a dry run gives for an output: its shape and dtype, NaN (or 0) for every number."""
    held = to_numpy(declared or NAMES[tensor.dtype])
    number = np.nan if tensor.dtype.is_floating_point else 0
    return np.full(tuple(tensor.shape), number, np.float32).astype(held)


def lowest(dtype: torch.dtype) -> float | int:
    """The value that never wins a maximum."""
    if dtype.is_floating_point:
        return float("-inf")
    return False if dtype is torch.bool else torch.iinfo(dtype).min


def highest(dtype: torch.dtype) -> float | int:
    """The value that never wins a minimum."""
    if dtype.is_floating_point:
        return float("inf")
    return True if dtype is torch.bool else torch.iinfo(dtype).max


__all__ = ["NAMES", "NARROW", "TORCH", "blank", "highest", "lowest", "to_array", "to_tensor"]
