"""A device tool that is missing, slow, failing or odd is an answer, never an exception."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autoglm.toolchain.tool import ask


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put a shell script of that name on PATH."""

    def make(name: str, script: str) -> None:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return make


def test_what_a_tool_prints_is_its_answer(tool) -> None:
    tool("npu-smi", "echo NPU $1; echo warning >&2")

    answer = ask(["npu-smi", "info"])

    assert "NPU info" in answer.text
    assert answer.problem == ""


def test_a_tool_that_is_not_there_says_so() -> None:
    answer = ask(["npu-smi-that-nobody-has"])

    assert answer.text == ""
    assert answer.problem == "npu-smi-that-nobody-has is not on PATH"


def test_a_tool_that_hangs_is_ended(tool) -> None:
    tool("cnmon", "echo begun; sleep 60")

    answer = ask(["cnmon"], timeout_s=0.3)

    assert "no end after 0.3 s" in answer.problem
    assert answer.text == "begun\n"


def test_a_tool_that_fails_keeps_what_it_printed(tool) -> None:
    tool("nvidia-smi", "echo 'couldn'\\''t communicate with the NVIDIA driver'; exit 9")

    answer = ask(["nvidia-smi"])

    assert "NVIDIA driver" in answer.text
    assert "exit status 9" in answer.problem


def test_bytes_that_are_no_text_are_replaced(tool) -> None:
    tool("xpu-smi", "printf '\\377\\376ok'")

    assert ask(["xpu-smi"]).text.endswith("ok")


def test_a_file_that_is_no_program_says_so(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "bm-smi"
    path.write_bytes(b"\x7fELF broken")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert ask(["bm-smi"]).problem


def test_an_output_file_is_read_instead_of_the_screen(tool) -> None:
    tool("bm-smi", 'echo curses; echo table > "$1"')

    assert ask(["bm-smi", "{folder}/x.txt"], output="{folder}/x.txt").text == "table\n"
    assert ask(["bm-smi", "/dev/null"], output="{folder}/x.txt").text == ""
