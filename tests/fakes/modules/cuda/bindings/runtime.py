"""Stands in for cuda.bindings.runtime (cuda-python 12.8 and 13): every call gives (code, ...)."""

import ctypes
import enum
import itertools
import threading

import numpy as np


class cudaError_t(enum.IntEnum):
    """A few of the codes."""

    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInvalidDevice = 101
    cudaErrorInvalidResourceHandle = 400


class cudaMemcpyKind(enum.IntEnum):
    """Directions."""

    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


OK, BAD = cudaError_t.cudaSuccess, cudaError_t.cudaErrorInvalidValue
DEVICES, MEMORY = 2, 1 << 30
memory: dict = {}
streams: dict = {}
owners: dict = {}  # address or stream -> the GPU that was the thread's when it was made
_thread = threading.local()  # a thread starts on GPU 0
_numbers = itertools.count(0x100000, 0x100000)


def reset():
    """A fresh process."""
    memory.clear()
    owners.clear()
    streams.clear()


def left():
    """What was not given back."""
    return {"memory": len(memory), "streams": len(streams)}


def current():
    """The calling thread's GPU."""
    return getattr(_thread, "device", 0)


def elsewhere(made):
    """Made on another GPU than the calling thread's."""
    return owners.get(made, current()) != current()


def cudaSetDevice(device):
    if not 0 <= device < DEVICES:
        return (cudaError_t.cudaErrorInvalidDevice,)
    _thread.device = device
    return (OK,)


def cudaMalloc(size):
    if not isinstance(size, int) or size <= 0:
        return BAD, 0
    if size > MEMORY:
        return cudaError_t.cudaErrorMemoryAllocation, 0
    made = next(_numbers)
    memory[made], owners[made] = bytearray(size), current()
    return OK, made


def cudaFree(address):
    if elsewhere(address):
        return (BAD,)
    return ((OK if memory.pop(address, None) is not None else BAD),)


def cudaMemcpy(target, source, count, kind):
    if kind is cudaMemcpyKind.cudaMemcpyHostToDevice:
        if count > len(memory.get(target, b"")):
            return (BAD,)
        memory[target][:count] = ctypes.string_at(source, count)
    elif kind is cudaMemcpyKind.cudaMemcpyDeviceToHost:
        if count > len(memory.get(source, b"")):
            return (BAD,)
        ctypes.memmove(target, bytes(memory[source][:count]), count)
    else:
        raise TypeError("cudaMemcpyKind expected")
    return (OK,)


def cudaStreamCreate():
    made = next(_numbers)
    streams[made], owners[made] = [], current()
    return OK, made


def cudaStreamSynchronize(stream):
    if stream not in streams or elsewhere(stream):
        return (cudaError_t.cudaErrorInvalidResourceHandle,)
    for address, array in streams[stream]:
        data = np.ascontiguousarray(array).tobytes()
        memory[address][: len(data)] = data
    streams[stream] = []
    return (OK,)


def cudaStreamDestroy(stream):
    if elsewhere(stream):
        return (cudaError_t.cudaErrorInvalidResourceHandle,)
    return ((OK if streams.pop(stream, None) is not None else BAD),)


def read(address, shape, dtype):
    """What a kernel sees at an address."""
    count = int(np.prod(shape))
    return np.frombuffer(memory[address], dtype, count).reshape(shape)


def enqueue(stream, writes):
    """What a kernel writes, once the stream is waited for."""
    streams[stream].extend(writes)
