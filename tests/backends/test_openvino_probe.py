"""Intel's GPUs as OpenVINO lists them, with what Intel's xpu-smi adds."""

from __future__ import annotations

from pathlib import Path

import pytest
from device_samples import sample

from autoglm.backends.openvino import engine, probe
from autoglm.spec import Device


class Core:
    """A machine with a CPU and an Arc A770, as openvino.Core tells it."""

    available_devices = ("CPU", "GPU", "NPU")

    def get_property(self, device: str, name: str) -> object:
        names = {"CPU": "Xeon", "GPU": "Intel(R) Arc(TM) A770 Graphics (dGPU)", "NPU": "AI Boost"}
        return names[device] if name == "FULL_DEVICE_NAME" else ["FP32", "FP16"]


@pytest.fixture(autouse=True)
def _arc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "hinted", lambda backends: True)
    monkeypatch.setattr(engine, "core", Core)


def put_xpu_smi(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "out.txt").write_text(text, "utf-8")
    tool = folder / "xpu-smi"
    tool.write_text(f"#!/bin/sh\n/bin/cat {folder}/out.txt\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def listed() -> dict[str, Device]:
    return {device.id: device for device in probe.list_devices()}


def test_intels_tool_adds_memory_and_address(tmp_path: Path, monkeypatch) -> None:
    put_xpu_smi(tmp_path, sample("xpu-smi-intel"), monkeypatch)

    found = listed()

    assert found["GPU"].memory_bytes == 16288 * 2**20
    assert found["GPU"].facts["pci"] == "0000:03:00.0"
    assert found["GPU"].facts["capabilities"] == "FP16 FP32"
    assert found["CPU"].memory_bytes is None
    assert found["NPU"].kind == "npu"


def test_kunluns_tool_of_the_same_name_adds_nothing(tmp_path: Path, monkeypatch) -> None:
    put_xpu_smi(tmp_path, sample("xpu-smi-kunlun"), monkeypatch)

    assert listed()["GPU"].memory_bytes is None


def test_without_a_hint_openvino_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "hinted", lambda backends: False)
    monkeypatch.setattr(engine, "core", None)

    assert list(listed()) == ["CPU"]
