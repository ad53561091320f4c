"""What is here, without importing onnxruntime."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path

from autoglm.spec import Device

_CPUINFO = Path("/proc/cpuinfo")
# What the engine chooses kernels and weight layouts by.
_FEATURES = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "asimddp",
    "i8mm",
    "asimdhp",
)


def version() -> str:
    """Version of the installed onnxruntime; "" where it is not installed."""
    for distribution in ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"):
        try:
            return installed(distribution)
        except PackageNotFoundError:
            continue
    return ""


def list_devices() -> Sequence[Device]:
    """The CPU; [] where onnxruntime is not installed."""
    if not version():
        return []
    facts = {"arch": platform.machine(), "features": " ".join(sorted(cpu_features()))}
    return [Device("cpu", "CPU through ONNX Runtime", "onnxruntime", "cpu", facts=facts)]


@cache
def cpu_features() -> frozenset[str]:
    """The CPU features that decide which kernels run; empty where they cannot be read."""
    try:
        lines = _CPUINFO.read_text("utf-8", "replace").splitlines()
    except OSError:
        return frozenset()
    row = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return frozenset(row.partition(":")[2].split()) & frozenset(_FEATURES)


def cpu_identity() -> str:
    """Machines with the same text take each other's optimised models."""
    return " ".join([platform.machine(), *sorted(cpu_features())])
