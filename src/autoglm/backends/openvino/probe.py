"""What OpenVINO sees here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path

from autoglm.catalog import smi
from autoglm.catalog.cards import to_device
from autoglm.catalog.cpu import here
from autoglm.catalog.evidence import hinted
from autoglm.catalog.remarks import remark
from autoglm.spec import Device
from autoglm.toolchain.tool import ask

_CPUINFO = Path("/proc/cpuinfo")

# Features of a CPU with bfloat16 arithmetic.
BF16 = frozenset({"avx512_bf16", "amx_bf16", "avx512_core_amx"})


def version() -> str:
    """Version of the installed openvino; "" where it is not installed."""
    try:
        return installed("openvino")
    except PackageNotFoundError:
        return ""


def list_devices() -> Sequence[Device]:
    """The CPU and any GPU or NPU; [] where openvino is not installed or does not load."""
    if not version():
        remark("openvino is not installed")
        return []
    if not hinted(["openvino"]):  # loading it takes half a second
        return [Device("cpu", here().model or "CPU", "openvino", "CPU")]
    try:
        return _devices()
    except Exception as error:  # a driver may raise anything; a probe never does
        remark(f"openvino cannot list its devices: {type(error).__name__}: {error}")
        return []


def _devices() -> list[Device]:
    from autoglm.backends.openvino.engine import core

    found = []
    for device in core().available_devices:
        kind = device.partition(".")[0].lower()
        name = str(core().get_property(device, "FULL_DEVICE_NAME"))
        can = core().get_property(device, "OPTIMIZATION_CAPABILITIES")
        facts = {"capabilities": " ".join(sorted(map(str, can)))}
        family = kind if kind in ("cpu", "gpu", "npu") else "npu"
        found.append(Device(family, name, "openvino", device, facts=facts))
    return _with_cards(found)


def _with_cards(found: list[Device]) -> list[Device]:
    """GPUs with what Intel's xpu-smi says of them; as OpenVINO says it where that is not here."""
    gpus = [device for device in found if device.kind == "gpu"]
    cards = smi.intel(ask(["xpu-smi"]).text) if gpus else []
    if len(cards) != len(gpus):
        return found
    told = {g.id: to_device(c, "openvino", "gpu", g.id) for g, c in zip(gpus, cards, strict=True)}
    return [_joined(device, told.get(device.id)) for device in found]


def _joined(device: Device, card: Device | None) -> Device:
    if card is None:
        return device
    facts = {**device.facts, **card.facts}
    return replace(device, memory_bytes=card.memory_bytes, facts=facts)


@cache
def cpu_flags() -> frozenset[str]:
    """Every feature the CPU names; empty where they cannot be read."""
    try:
        lines = _CPUINFO.read_text("utf-8", "replace").splitlines()
    except OSError:
        return frozenset()
    row = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return frozenset(row.partition(":")[2].split())
