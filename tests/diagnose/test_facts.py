"""Facts from files as vendors write them, and from other machines."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from autoglm.diagnose.facts import gather, read_facts
from autoglm.errors import ConfigError, FileMissingError

# Hand-made in the form of each vendor's own file.
FILES = {
    "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  "
    "Sat Aug 19 01:15:15 UTC 2023\nGCC version:  gcc version 12.3.0\n",
    "usr/local/Ascend/ascend-toolkit/latest/aarch64-linux/ascend_toolkit_install.info": (
        "package_name=Ascend-cann-toolkit\nversion=8.0.RC2\ninnerversion=V100R001C18SPC001B256\n"
    ),
    "usr/local/Ascend/driver/version.info": "Version=24.1.rc2\nascendhal_version=7.35.19\n",
    "usr/local/Ascend/firmware/version.info": "Version=7.3.0.1.231\n",
    "usr/local/cuda/version.json": '{\n "cuda" : {\n  "name" : "CUDA SDK",\n'
    '  "version" : "12.4.1"\n }\n}\n',
    "usr/local/neuware/version.txt": "Neuware Version 3.7.2\n",
    "proc/1/cgroup": "12:memory:/kubepods/burstable/pod1234\n",
}


def test_every_vendors_files_are_read(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    facts = gather(tmp_path)

    assert facts["nvidia-driver"] == "535.104.05"
    assert facts["cann"] == "8.0.RC2"
    assert facts["ascend-driver"] == "24.1.rc2"
    assert facts["ascend-firmware"] == "7.3.0.1.231"
    assert facts["cuda"] == "12.4.1" or facts["cuda"].count(".") == 2  # a wheel's own wins
    assert facts["neuware"] == "3.7.2"
    assert facts["container"] == "kubepods"


def test_the_open_kernel_module_names_its_version_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "proc/driver/nvidia/version"
    path.parent.mkdir(parents=True)
    path.write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build\n"
    )

    assert gather(tmp_path)["nvidia-driver"] == "570.124.06"


def test_a_bare_machine_still_has_python_numpy_and_autoglm(tmp_path: Path) -> None:
    facts = gather(tmp_path)

    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"numpy", "open-autoglm", "onnxruntime"} <= set(facts)
    assert "cann" not in facts
    assert all(facts.values())


def test_damaged_files_are_read_without_an_exception(tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\xff\x00Version=\n" * 100)

    assert "ascend-driver" not in gather(tmp_path)


def test_facts_of_another_machine_are_read_flat_or_as_they_were_saved(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    for table in ({"cann": "8.0.0"}, {"facts": {"cann": "8.0.0"}}):
        path.write_text(json.dumps(table))
        assert read_facts(path) == {"cann": "8.0.0"}


def test_facts_that_are_no_texts_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    path.write_text('{"cann": 8}')

    with pytest.raises(ConfigError, match="component = version"):
        read_facts(path)
    with pytest.raises(FileMissingError):
        read_facts(tmp_path / "none.json")


def test_what_only_a_tool_says_is_asked_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Programs that print what the real ones do: the first lines of the recorded outputs.
    says = {
        "nvidia-smi": "590.48.01, 9.0",
        "npu-smi": "| npu-smi 25.5.2                 Version: 25.5.2          |",
        "xpu-smi": "| XPU-SMI               Driver Version: 515.58    XPU-RT Version: N/A |\n"
        "|   0  P800 OAM           N/A |",
    }
    for name, text in says.items():
        (tmp_path / name).write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    facts = gather(tmp_path)

    assert facts["nvidia-driver"] == "590.48.01"
    assert facts["compute-capability"] == "9.0"
    assert facts["ascend-driver"] == "25.5.2"
    assert facts["kunlun-chip"] == "P800"
