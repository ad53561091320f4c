"""The NVIDIA management library itself, through ctypes: no process, no package."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from autoglm.catalog.cards import Card, Slice, bus

_LIBRARY = "libnvidia-ml.so.1"
_NAME_BYTES = 96
_MOST_DEVICES = 64


class _Memory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


class _Pci(ctypes.Structure):
    _fields_ = [
        ("legacy", ctypes.c_char * 16),
        ("domain", ctypes.c_uint),
        ("bus", ctypes.c_uint),
        ("device", ctypes.c_uint),
        ("pci_device_id", ctypes.c_uint),
        ("pci_subsystem_id", ctypes.c_uint),
        ("bus_id", ctypes.c_char * 32),
    ]


class _Utilization(ctypes.Structure):
    _fields_ = [("gpu", ctypes.c_uint), ("memory", ctypes.c_uint)]


class NvmlError(Exception):
    """NVML is not there, or it refuses."""


def list_cards() -> list[Card]:
    """The GPUs that NVML sees; NvmlError where it does not answer."""
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise NvmlError(f"{_LIBRARY} does not load") from error
    if status := _call(library, "nvmlInit_v2"):
        raise NvmlError(f"NVML does not start: {_reason(library, status)}")
    try:
        return _cards(library)
    finally:
        _call(library, "nvmlShutdown")


def _call(library: Any, name: str, *arguments: Any) -> int:
    """NVML's status; an old library without that function is "function not found"."""
    function: Callable[..., int] | None = getattr(library, name, None)
    return 13 if function is None else function(*arguments)


def _reason(library: Any, status: int) -> str:
    describe = getattr(library, "nvmlErrorString", None)
    if describe is None:
        return f"status {status}"
    describe.restype = ctypes.c_char_p
    text: bytes | None = describe(status)
    return (text or b"").decode("utf-8", "replace") or f"status {status}"


def _cards(library: Any) -> list[Card]:
    count = ctypes.c_uint()
    _call(library, "nvmlDeviceGetCount_v2", ctypes.byref(count))
    driver = ctypes.create_string_buffer(_NAME_BYTES)
    _call(library, "nvmlSystemGetDriverVersion", driver, _NAME_BYTES)
    cuda = ctypes.c_int()
    _call(library, "nvmlSystemGetCudaDriverVersion_v2", ctypes.byref(cuda))
    handles = [_handle(library, i) for i in range(min(count.value, _MOST_DEVICES))]
    # 12040 is 12.4
    fields = {"cuda": f"{cuda.value // 1000}.{cuda.value % 1000 // 10}"} if cuda.value else {}
    cards = [_card(library, h, i) for i, h in enumerate(handles) if h is not None]
    return [
        replace(card, driver=driver.value.decode("utf-8", "replace"), fields=fields)
        for card in cards
    ]


def _handle(library: Any, index: int) -> ctypes.c_void_p | None:
    handle = ctypes.c_void_p()
    status = _call(library, "nvmlDeviceGetHandleByIndex_v2", index, ctypes.byref(handle))
    return handle if status == 0 else None


def _card(library: Any, handle: ctypes.c_void_p, index: int) -> Card:
    memory = _filled(library, handle, "nvmlDeviceGetMemoryInfo", _Memory())
    pci = _filled(library, handle, "nvmlDeviceGetPciInfo_v3", _Pci())
    busy = _filled(library, handle, "nvmlDeviceGetUtilizationRates", _Utilization())
    power = _filled(library, handle, "nvmlDeviceGetPowerUsage", ctypes.c_uint())
    limit = _filled(library, handle, "nvmlDeviceGetEnforcedPowerLimit", ctypes.c_uint())
    return Card(
        index=str(index),
        name=_string(library, handle, "nvmlDeviceGetName"),
        memory_total=memory.total if memory else None,
        memory_used=memory.used if memory else None,
        health=_health(library, handle),
        utilisation=float(busy.gpu) if busy else None,
        power_w=power.value / 1000 if power else None,
        power_limit_w=limit.value / 1000 if limit else None,
        temperature_c=_temperature(library, handle),
        bus_id=bus(pci.bus_id.decode("ascii", "replace")) if pci else "",
        slices=tuple(_slices(library, handle)),
    )


def _filled(library: Any, handle: ctypes.c_void_p, name: str, into: Any) -> Any:
    """`into` as NVML filled it; None where it does not say."""
    return into if _call(library, name, handle, ctypes.byref(into)) == 0 else None


def _string(library: Any, handle: ctypes.c_void_p, name: str) -> str:
    buffer = ctypes.create_string_buffer(_NAME_BYTES)
    status = _call(library, name, handle, buffer, _NAME_BYTES)
    return buffer.value.decode("utf-8", "replace") if status == 0 else ""


def _temperature(library: Any, handle: ctypes.c_void_p) -> float | None:
    value = ctypes.c_uint()
    status = _call(library, "nvmlDeviceGetTemperature", handle, 0, ctypes.byref(value))
    return float(value.value) if status == 0 else None


def _health(library: Any, handle: ctypes.c_void_p) -> str:
    """By uncorrected errors since the driver was loaded; "" on a GPU without ECC."""
    errors = ctypes.c_ulonglong()
    uncorrected, volatile = 1, 0
    status = _call(
        library,
        "nvmlDeviceGetTotalEccErrors",
        handle,
        uncorrected,
        volatile,
        ctypes.byref(errors),
    )
    if status != 0:
        return ""
    return f"{errors.value} uncorrected ECC errors" if errors.value else "OK"


def _slices(library: Any, handle: ctypes.c_void_p) -> list[Slice]:
    most = _filled(library, handle, "nvmlDeviceGetMaxMigDeviceCount", ctypes.c_uint())
    found = []
    for index in range(min(most.value, _MOST_DEVICES) if most else 0):
        part = ctypes.c_void_p()
        if _call(library, "nvmlDeviceGetMigDeviceHandleByIndex", handle, index, ctypes.byref(part)):
            continue
        memory = _filled(library, part, "nvmlDeviceGetMemoryInfo", _Memory())
        profile = _string(library, part, "nvmlDeviceGetName").rpartition("MIG ")[2]
        uuid = _string(library, part, "nvmlDeviceGetUUID")
        found.append(Slice(profile, str(index), uuid, memory.total if memory else None))
    return found
