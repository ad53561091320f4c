"""NVML through ctypes, against a stand-in that keeps to the documented calls (nvml.h, driver 590).

The real library was not here to be run.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest
from device_samples import sample

from autoglm.backends.cuda import nvml, probe
from autoglm.backends.cuda.nvml import NvmlError, list_cards
from autoglm.catalog.remarks import listening

NOT_FOUND = 6


class Library:
    """Two GPUs, the second without ECC, power or utilisation; the first cut into one slice."""

    def __init__(self, status: int = 0) -> None:
        self.status = status
        self.closed = False
        texts = {9: b"Driver Not Loaded", 18: b"Driver/library version mismatch"}
        self.nvmlErrorString = lambda status: texts[status]  # a function takes a restype

    def nvmlInit_v2(self) -> int:
        return self.status

    def nvmlShutdown(self) -> int:
        self.closed = True
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        count._obj.value = 2
        return 0

    def nvmlSystemGetDriverVersion(self, buffer: Any, length: int) -> int:
        return text(buffer, b"590.48.01", length)

    def nvmlSystemGetCudaDriverVersion_v2(self, version: Any) -> int:
        version._obj.value = 13010
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, handle: Any) -> int:
        handle._obj.value = 100 + index
        return 0

    def nvmlDeviceGetName(self, handle: Any, buffer: Any, length: int) -> int:
        names = {100: b"NVIDIA H100 80GB HBM3", 101: b"Tesla T4"}
        return text(buffer, names.get(handle.value, b"NVIDIA H100 80GB HBM3 MIG 3g.40gb"), length)

    def nvmlDeviceGetUUID(self, handle: Any, buffer: Any, length: int) -> int:
        return text(buffer, b"MIG-1", length)

    def nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> int:
        memory._obj.total, memory._obj.used = handle.value * 2**30, 2**30
        return 0

    def nvmlDeviceGetPciInfo_v3(self, handle: Any, pci: Any) -> int:
        pci._obj.bus_id = b"00000000:%02X:00.0" % (handle.value - 100 + 0x9D)
        return 0

    def nvmlDeviceGetUtilizationRates(self, handle: Any, busy: Any) -> int:
        busy._obj.gpu = 7
        return 0 if handle.value == 100 else 3

    def nvmlDeviceGetPowerUsage(self, handle: Any, power: Any) -> int:
        power._obj.value = 69850
        return 0 if handle.value == 100 else 3

    def nvmlDeviceGetTemperature(self, handle: Any, sensor: int, value: Any) -> int:
        value._obj.value = 41
        return 0 if sensor == 0 else 2

    def nvmlDeviceGetTotalEccErrors(self, handle: Any, kind: int, counter: int, value: Any) -> int:
        assert (kind, counter) == (1, 0)
        value._obj.value = 0
        return 0 if handle.value == 100 else 3

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Any, count: Any) -> int:
        count._obj.value = 7 if handle.value == 100 else 0
        return 0

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Any, index: int, part: Any) -> int:
        part._obj.value = 40
        return 0 if index == 0 else NOT_FOUND


def text(buffer: Any, value: bytes, length: int) -> int:
    assert len(value) < length
    buffer.value = value
    return 0


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    made = Library()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: made)
    return made


def test_two_gpus_are_listed_with_all_that_nvml_says(library: Library) -> None:
    first, second = list_cards()

    assert (first.name, first.bus_id, first.driver) == (
        *("NVIDIA H100 80GB HBM3", "0000:9d:00.0"),
        "590.48.01",
    )
    assert first.memory_total == 100 * 2**30
    assert (first.power_w, first.utilisation, first.temperature_c) == (69.85, 7, 41)
    assert (first.health, second.health) == ("OK", "")
    assert (second.power_w, second.utilisation) == (None, None)
    assert first.fields == {"cuda": "13.1"}
    assert library.closed


def test_a_slice_is_named_by_its_profile(library: Library) -> None:
    (part,) = list_cards()[0].slices

    assert (part.profile, part.index, part.uuid) == ("3g.40gb", "0", "MIG-1")
    assert part.memory_total == 40 * 2**30


def test_an_old_library_without_a_call_only_says_less(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Library, "nvmlDeviceGetPciInfo_v3")
    monkeypatch.delattr(Library, "nvmlSystemGetCudaDriverVersion_v2")

    card = list_cards()[0]

    assert (card.bus_id, card.fields) == ("", {})


@pytest.mark.parametrize(("status", "reason"), [(9, "Not Loaded"), (18, "version mismatch")])
def test_nvml_that_does_not_start_says_why(status: int, reason: str, library: Library) -> None:
    library.status = status

    with pytest.raises(NvmlError, match=reason):
        list_cards()


def test_without_nvml_the_tool_is_asked_and_both_reasons_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nvml, "_LIBRARY", "libnothing.so.1")
    monkeypatch.setenv("PATH", "/nowhere")

    with listening() as lines:
        assert list(probe.list_devices()) == []

    assert lines == ["libnothing.so.1 does not load; nvidia-smi is not on PATH"]


def test_a_gpu_becomes_a_device(library: Library) -> None:
    device = probe.list_devices()[0]

    assert (device.backend, device.id, device.kind) == ("cuda", "cuda:0", "gpu")
    assert device.facts["chip"] == "H100 SXM"
    assert device.facts["slices"] == "0: 3g.40gb"
    assert device.facts["cuda"] == "13.1"


def put_nvidia_smi(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A nvidia-smi that notes every call, on a machine without NVML."""
    calls = folder / "calls"
    tool = folder / "nvidia-smi"
    tool.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n{script}\n')
    tool.chmod(0o755)
    monkeypatch.setattr(nvml, "_LIBRARY", "libnothing.so.1")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return calls


def test_mig_profiles_come_from_the_list_and_memory_from_the_xml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "xml").write_text(sample("nvidia-smi-q-x-a100"), "utf-8")
    (tmp_path / "list").write_text(sample("nvidia-smi-L__linux-x86_64__nvidia-h100"), "utf-8")
    script = f'if [ "$1" = -L ]; then cat {tmp_path}/list; else cat {tmp_path}/xml; fi'
    calls = put_nvidia_smi(tmp_path, script, monkeypatch)

    (device,) = probe.list_devices()

    assert device.facts["slices"] == "0: 3g.40gb, 1: 2g.20gb, 2: 1g.10gb, 3: 1g.10gb"
    assert calls.read_text().splitlines() == ["-q -x", "-L"]


def test_a_tool_too_old_for_xml_is_asked_for_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "table").write_text(sample("nvidia-smi-table-load__linux-x86_64__nvidia-l40s"))
    script = f'if [ "$1" = -q ]; then echo unknown option; else cat {tmp_path}/table; fi'
    put_nvidia_smi(tmp_path, script, monkeypatch)

    (device,) = probe.list_devices()

    assert device.name == "NVIDIA L40S"


def test_a_tool_that_fails_is_asked_once_and_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver."
    calls = put_nvidia_smi(tmp_path, f"echo '{text}'; exit 9", monkeypatch)

    with listening() as lines:
        assert list(probe.list_devices()) == []

    assert text in lines[0]
    assert len(calls.read_text().splitlines()) == 1
