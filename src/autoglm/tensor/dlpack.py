"""Tensors in and out without a copy: DLPack and the buffer protocol, the read-only mark kept.

NumPy speaks DLPack for its own dtypes only. bfloat16 and the 8-bit floats cross as integers of the
same width in a capsule whose element type is then corrected; the memory is never touched.
Elements below 8 bits do not cross: NumPy keeps one a byte, DLPack packs them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from autoglm.errors import InputError
from autoglm.tensor.dtype import bits, from_numpy, is_native, to_numpy

_CPU = 1
_VERSION = (1, 0)  # of DLPack; the first that can say "read-only"
_VERSIONED = np.lib.NumpyVersion(np.__version__) >= "2.1.0"
# DLDataTypeCode of dlpack.h 1.1.
_UINT, _BFLOAT = 1, 4
_CODES = {
    "bfloat16": _BFLOAT,
    "float8_e4m3fn": 10,
    "float8_e4m3fnuz": 11,
    "float8_e5m2": 12,
    "float8_e5m2fnuz": 13,
    "float8_e8m0fnu": 14,
}
_NAMES = {code: name for name, code in _CODES.items()}


class _Type(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("dtype", _Type),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
    ]


class _Versioned(ctypes.Structure):
    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    ]


class Exchange:
    """An array as a DLPack producer, for `torch.from_dlpack` and its like; nothing is copied."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array
        self._code = _code(array)

    def __dlpack_device__(self) -> tuple[int, int]:
        """The CPU."""
        return _CPU, 0

    def __dlpack__(
        self,
        *,
        stream: object = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """The capsule; BufferError for a read-only array that an old consumer could not know."""
        array = self._array
        if self._code is not None:
            array = array.view(np.uint16 if array.itemsize == 2 else np.uint8)
        if not _VERSIONED or max_version is None or max_version < _VERSION:
            capsule = array.__dlpack__(stream=stream)
        else:
            capsule = array.__dlpack__(
                stream=stream, max_version=max_version, dl_device=dl_device, copy=copy
            )
        if self._code is not None:
            _tensor(capsule).dtype.code = self._code
        return capsule


class _Retyped:
    """A capsule whose element type NumPy does not know, shown as unsigned integers."""

    def __init__(self, capsule: Any, device: tuple[int, int]) -> None:
        self._capsule = capsule
        self._device = device

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device

    def __dlpack__(self, **_: object) -> Any:
        return self._capsule


def to_dlpack(array: np.ndarray) -> Exchange:
    """`array` for another framework, uncopied; its memory lives as long as anyone needs it."""
    return Exchange(array)


def from_dlpack(source: Any) -> np.ndarray:
    """An array over the memory of another framework's CPU tensor, read-only where that says so."""
    try:
        device = source.__dlpack_device__()
        capsule = _capsule(source)
    except (AttributeError, TypeError, BufferError, RuntimeError) as error:
        raise InputError(
            "A {found} does not give its memory by DLPack: {reason}.",
            found=type(source).__name__,
            reason=str(error)[:200],
        ) from error
    if int(device[0]) != _CPU:
        raise InputError(
            "The tensor lies on DLPack device {device}; only CPU memory can be shared.",
            hint="Copy it to the CPU first.",
            device=tuple(map(int, device)),
        )
    described = _tensor(capsule)
    kind = described.dtype
    name = _NAMES.get(kind.code) if kind.bits >= 8 and kind.lanes == 1 else None
    if name is not None:
        kind.code = _UINT
    try:
        array = np.from_dlpack(_Retyped(capsule, (_CPU, int(device[1]))))
    except (BufferError, RuntimeError, TypeError) as error:
        raise InputError(
            "NumPy has no dtype for DLPack code {code} of {bits} bits.",
            code=kind.code,
            bits=kind.bits,
        ) from error
    return array if name is None else array.view(to_numpy(name))


def to_buffer(array: np.ndarray) -> memoryview:
    """The array's memory by the buffer protocol; dtypes that it lacks show as unsigned integers."""
    name = from_numpy(array.dtype)
    if name == "string":
        raise InputError("Text has no memory of its own to share.")
    if not is_native(name):
        array = array.view(np.uint16 if bits(name) == 16 else np.uint8)
    return array.data


def from_buffer(buffer: Any, dtype: str = "", shape: Sequence[int] | None = None) -> np.ndarray:
    """An array over the memory of `buffer`, read-only where that is.

    `dtype` and `shape` default to the buffer's own.
    """
    try:
        view = memoryview(buffer)
        array = np.asarray(view)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise InputError(
            "A {found} does not give its memory as a buffer: {reason}.",
            found=type(buffer).__name__,
            reason=str(error)[:200],
        ) from error
    try:
        if dtype:
            array = array.view(to_numpy(dtype))
        result = array if shape is None else array.reshape(tuple(shape))
    except (TypeError, ValueError) as error:
        raise InputError(
            "{bytes} bytes of memory do not make a {dtype} {shape}.",
            bytes=view.nbytes,
            dtype=dtype or str(array.dtype),
            shape=list(array.shape if shape is None else shape),
        ) from error
    if result.size and not np.shares_memory(result, array):
        raise InputError("Strided memory cannot take another shape without a copy.")
    return result


def _code(array: np.ndarray) -> int | None:
    """What DLPack calls the dtype, where NumPy cannot say it; None where it can."""
    name = from_numpy(array.dtype)
    if name == "string" or bits(name) < 8 or (not is_native(name) and name not in _CODES):
        raise InputError(
            "DLPack cannot carry {dtype} without a copy.",
            hint="Convert the array to int8, float16 or float32 first.",
            dtype=name,
        )
    return _CODES.get(name)


def _capsule(source: Any) -> Any:
    try:
        return source.__dlpack__(max_version=_VERSION) if _VERSIONED else source.__dlpack__()
    except TypeError:  # a producer from before DLPack 1.0
        return source.__dlpack__()


def _tensor(capsule: Any) -> _Tensor:
    """The DLTensor inside a capsule, to be changed in place."""
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype = ctypes.c_char_p
    api.PyCapsule_GetName.argtypes = [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    name = api.PyCapsule_GetName(capsule)
    pointer = api.PyCapsule_GetPointer(capsule, name)
    if name == b"dltensor_versioned":
        inner: _Tensor = ctypes.cast(pointer, ctypes.POINTER(_Versioned)).contents.tensor
        return inner
    return ctypes.cast(pointer, ctypes.POINTER(_Tensor)).contents
