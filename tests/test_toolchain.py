"""Outside programs: success, failure, hang, missing, killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autoglm import toolchain
from autoglm.errors import BackendUnavailableError, CompileError


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_output_goes_to_the_log_and_its_tail_comes_back(tmp_path: Path) -> None:
    done = toolchain.run(python("print('one'); print('two')"), log=tmp_path / "log")

    assert (tmp_path / "log").read_text() == "one\ntwo\n"
    assert done.tail.endswith("two")


def test_a_failing_program_is_an_error_with_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"exit status 3.*no such op") as caught:
        toolchain.run(python("print('no such op'); raise SystemExit(3)"), log=tmp_path / "log")

    assert caught.value.facts["argv"][0] == sys.executable
    assert str(tmp_path / "log") in caught.value.hint


def test_a_known_message_is_explained_and_its_nodes_named(tmp_path: Path) -> None:
    line = "E19010: No parser is registered for Op [Find_3, optype [ai.onnx::11::FindMax]]."
    code = f"print({line!r}); print('noise'); raise SystemExit(1)"
    with pytest.raises(CompileError, match=r"E19010.*Find_3") as caught:
        toolchain.run(python(code), log=tmp_path / "log")

    assert caught.value.facts["explained"] == ["ascend-no-parser"]
    assert caught.value.facts["nodes"] == ["Find_3"]
    assert "fallback_policy" in caught.value.hint
    assert str(tmp_path / "log") in caught.value.hint


def test_of_a_long_log_both_ends_are_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"first\n" + b"x" * (9 << 20) + b"\nlast")

    text = toolchain.read_ends(log)

    assert text.startswith("first\n")
    assert text.endswith("\nlast")
    assert len(text) == (8 << 20) + 1


def test_an_abort_names_the_signal(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="SIGABRT"):
        toolchain.run(python("import os; os.abort()"), log=tmp_path / "log")


def test_a_hanging_program_is_ended_with_its_children(tmp_path: Path) -> None:
    started = time.monotonic()
    sleep = "'import time; time.sleep(60)'"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {sleep}])"
    with pytest.raises(CompileError, match="no end after 1 s"):
        toolchain.run(python(code), log=tmp_path / "log", timeout_s=1)

    assert time.monotonic() - started < 20


def test_a_missing_program_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailableError, match="no-such-compiler"):
        toolchain.run(["no-such-compiler"], log=tmp_path / "log")


def test_a_memory_limit_stops_a_greedy_program(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="MemoryError"):
        toolchain.run(python("bytearray(2 << 30)"), log=tmp_path / "log", memory_bytes=512 << 20)


def test_arguments_are_never_read_by_a_shell(tmp_path: Path) -> None:
    done = toolchain.run(
        [*python("import sys; print(sys.argv[1])"), "$(touch x); `id`"], log=tmp_path / "log"
    )

    assert done.tail == "$(touch x); `id`"


def test_a_file_that_is_no_program_says_why_it_does_not_start(tmp_path: Path) -> None:
    program = tmp_path / "atc"
    program.write_bytes(b"\x7fELF broken")
    program.chmod(0o755)

    with pytest.raises(BackendUnavailableError, match=r"cannot be started.*Exec format error"):
        toolchain.run([str(program)], log=tmp_path / "log")


def test_a_missing_folder_is_not_taken_for_a_missing_program(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailableError, match=r"cannot be started.*nowhere"):
        toolchain.run(python(""), log=tmp_path / "log", cwd=tmp_path / "nowhere")


def test_a_signal_without_a_name_is_given_by_its_number(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"\(signal 40\)"):
        toolchain.run(python("import os; os.kill(os.getpid(), 40)"), log=tmp_path / "log")


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGKILL])
def test_a_program_dies_with_whoever_runs_it(tmp_path: Path, stop: signal.Signals) -> None:
    beat = tmp_path / "beat"
    inner = f"import time\nwhile True: open({str(beat)!r}, 'a').write('.'); time.sleep(0.05)"
    outer = f"""
import sys
from pathlib import Path
from autoglm import toolchain
toolchain.run([sys.executable, "-c", {inner!r}], log=Path({str(tmp_path / "log")!r}))
"""
    owner = subprocess.Popen(python(outer))
    try:
        until = time.monotonic() + 60
        while not beat.exists() and time.monotonic() < until:
            time.sleep(0.05)
        assert beat.exists()
    finally:
        owner.send_signal(stop)
        owner.wait()

    time.sleep(0.5)
    size = beat.stat().st_size
    time.sleep(0.5)
    assert beat.stat().st_size == size
