"""`autoglm doctor`: a machine judged, a log explained."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from autoglm.cli.app import invoke

WRONG = {"torch": "2.5.1", "torch_npu": "2.7.1", "cann": "8.3.RC1"}
LOG = "noise\nRuntimeError: CUDA error: no kernel image is available for execution on the device\n"


def saved(tmp_path: Path, facts: dict[str, str]) -> str:
    path = tmp_path / "facts.json"
    path.write_text(json.dumps(facts))
    return str(path)


def test_this_machine_is_judged_and_its_facts_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = invoke(["doctor", "--json", "--save-facts", str(tmp_path / "facts.json")])
    shown = json.loads(capsys.readouterr().out)

    assert status == int(not shown["consistent"])
    assert json.loads((tmp_path / "facts.json").read_text())["facts"] == shown["facts"]
    assert shown["facts"]["python"]


def test_a_wrong_pair_ends_with_1_and_says_what_to_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["doctor", "--facts", saved(tmp_path, WRONG)]) == 1
    out = capsys.readouterr().out

    assert "needs PyTorch 2.7.1.*; found 2.5.1" in out
    assert "pip install torch==2.7.1" in out
    assert "source: Ascend/pytorch" in out


def test_the_same_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["doctor", "--facts", saved(tmp_path, WRONG), "--json"]) == 1
    shown = json.loads(capsys.readouterr().out)

    assert shown["conflicts"][0][0]["components"] == {"torch_npu": "2.7.1", "torch": "2.5.1"}
    assert shown["changes"][0]["to"] == "2.7.1"


def test_what_cannot_be_mended_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"open-autoglm": "0.1.0", "python": "3.11.4", "kunlun-chip": "P800"}
    assert invoke(["doctor", "--facts", saved(tmp_path, {**facts, "paddlepaddle-xpu": "3.0"})]) == 1

    assert "No set of known versions was found" in capsys.readouterr().out


def test_a_log_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "err.log").write_text(LOG)

    assert invoke(["doctor", "--text", str(tmp_path / "err.log")]) == 0
    out = capsys.readouterr().out
    assert "cuda-no-kernel-image" in out
    assert "line 2" in out
    assert "pytorch/pytorch#31285" in out


def test_a_log_comes_from_stdin(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(LOG.encode())))

    assert invoke(["doctor", "--text", "-", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["explanations"]
    assert found["code"] == "cuda-no-kernel-image"


def test_an_unknown_log_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "err.log").write_text("all is well\n")

    assert invoke(["doctor", "--text", str(tmp_path / "err.log"), "--vendor", "cuda"]) == 1
    assert "No message in it is known" in capsys.readouterr().out


def test_a_wrong_vendor_and_a_missing_log_are_one_line_each(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert invoke(["doctor", "--text", "-", "--vendor", "acme"]) == 64
    assert "known: ascend, cambricon, cuda" in capsys.readouterr().err
    assert invoke(["doctor", "--text", "/no/such.log"]) == 66
    assert "Traceback" not in capsys.readouterr().err
