"""Every way to fail is one line and a status; stdout carries results only."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import models
import onnx_ir as ir
import pytest

from autoglm.cli.app import INTERRUPTED, invoke
from autoglm.errors import TABLE

Capture = pytest.CaptureFixture[str]


def start(*words: str, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "autoglm.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environ},
    )


def test_no_words_show_the_help(capsys: Capture) -> None:
    assert invoke([]) == 0
    assert "check" in capsys.readouterr().out


def test_the_version_is_printed(capsys: Capture) -> None:
    assert invoke(["--version"]) == 0
    assert capsys.readouterr().out.startswith("autoglm ")


@pytest.mark.parametrize(
    "words",
    [["chek"], ["check"], ["check", "--nonsense"], ["config"], ["ops"], ["run", "--seed", "x"]],
)
def test_a_command_line_that_does_not_parse_is_a_usage_error(
    words: list[str], capsys: Capture
) -> None:
    assert invoke(words) == TABLE["usage"].exit

    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error[usage]: ")
    assert len(printed.err.splitlines()) <= 2


def test_a_missing_config_file_is_one_line_and_its_status(capsys: Capture) -> None:
    assert invoke(["config", "validate", "no-such.json"]) == TABLE["file"].exit
    assert capsys.readouterr().err == "error[file]: There is no file no-such.json.\n"


def test_every_wrong_option_is_named_at_once(capsys: Capture) -> None:
    words = ["--memory-alignment", "63", "--precision", "int9", "--threads", "two", "--arch", "-x"]

    assert invoke(["config", "show", *words]) == TABLE["config"].exit

    printed = capsys.readouterr().err
    for key in ("memory_alignment", "precision", "threads", "arch"):
        assert f"  {key}: found " in printed


def test_errors_are_json_on_stdout_when_json_is_asked_for(capsys: Capture) -> None:
    assert invoke(["config", "show", "--memory-alignment", "63", "--json"]) == 78

    printed = capsys.readouterr()
    error = json.loads(printed.out)["error"]
    assert printed.err == ""
    assert (error["code"], error["exit"]) == ("config", 78)
    assert error["facts"]["problems"][0]["key"] == "memory_alignment"
    assert "nearest is 64" in error["message"]


def test_a_traceback_is_shown_only_with_debug(capsys: Capture) -> None:
    invoke(["config", "validate", "no-such.json"])
    quiet = capsys.readouterr().err
    invoke(["config", "validate", "no-such.json", "--debug"])
    loud = capsys.readouterr().err

    assert "Traceback" not in quiet
    assert "Traceback" in loud
    assert loud.endswith(quiet)


def test_our_own_mistake_is_said_to_be_one(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def broken() -> None:
        raise ValueError("two\nlines")

    monkeypatch.setattr("autoglm.config.json_schema", broken)

    assert invoke(["config", "schema"]) == TABLE["internal"].exit
    printed = capsys.readouterr().err
    assert printed.startswith("error[internal]: ValueError: two lines\nhint: ")
    assert "Traceback" not in printed


def test_an_interrupt_ends_quietly(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("autoglm.config.json_schema", interrupted)

    assert invoke(["config", "schema"]) == INTERRUPTED
    assert capsys.readouterr().err.strip() == ""


def test_a_terminal_cannot_be_steered_by_an_error(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "a\x1b[31mred.json"

    invoke(["config", "validate", str(path)])

    assert "\x1b" not in capsys.readouterr().err


def test_errors_are_chinese_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("AUTOGLM_LANG", "zh_CN.UTF-8")

    invoke(["config", "show", "--memory-alignment", "63"])

    assert any("\u4e00" <= c <= "\u9fff" for c in capsys.readouterr().err)


def test_a_reader_that_leaves_is_not_an_error() -> None:
    process = start("ops", "--backend", "onnxruntime", "--json")
    assert process.stdout is not None
    assert process.stderr is not None

    process.stdout.readline()
    process.stdout.close()
    noise = process.stderr.read()

    assert process.wait(60) in (0, 141)
    assert noise == ""


def test_what_libraries_print_does_not_reach_stdout() -> None:
    code = (
        "import os, sys, autoglm.cli.app as a, autoglm.cli.output as o, autoglm.config as c\n"
        "def noisy():\n"
        "    print('python noise'); sys.stdout.flush(); os.write(1, b'native noise\\n')\n"
        "    return {'result': 1}\n"
        "c.json_schema = noisy\n"
        "o.protect_stdout()\n"
        "sys.exit(a.invoke(['config', 'schema']))"
    )

    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert json.loads(result.stdout) == {"result": 1}
    assert "python noise" in result.stderr
    assert "native noise" in result.stderr


def test_ctrl_c_ends_the_real_command_with_130() -> None:
    code = (
        "import signal, sys, time, autoglm.cli.app as a, autoglm.config as c\n"
        # A shell starts what runs in the background with Ctrl-C ignored, and so its children.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def slow():\n"
        "    print('started', flush=True); time.sleep(60)\n"
        "c.json_schema = slow\n"
        "sys.exit(a.invoke(['config', 'schema']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline() == "started\n"
    time.sleep(0.05)

    process.send_signal(signal.SIGINT)

    assert process.wait(20) == INTERRUPTED
    assert "Traceback" not in process.stderr.read()


def test_completion_is_offered() -> None:
    process = start("--show-completion", "bash")
    out, _ = process.communicate(timeout=60)

    assert process.returncode == 0
    assert "autoglm" in out


def test_a_check_of_a_chip_says_its_reasons_in_chinese(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("AUTOGLM_LANG", "zh_CN.UTF-8")
    path = tmp_path / "m.onnx"
    ir.save(models.chain("Relu", "Erf", shape=("n", 4)), path)

    invoke(["check", str(path), "--backend", "sophon", "--pin", "Nothing=onnxruntime"])

    text = capsys.readouterr().out
    assert "固定规则 'Nothing' 不匹配任何节点或算子。" in text
    assert "估算开销时，维度 'n' 按 1 计。" in text
