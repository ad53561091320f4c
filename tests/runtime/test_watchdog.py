"""The watchdog ends a process that native code holds, with the one table's exit status."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from autoglm.errors import TABLE

HEAD = """
import sys, time
from autoglm.runtime.watchdog import watchdog
def report(error): print("error:", error, file=sys.stderr)
"""


def run(body: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", HEAD + body], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_passed_deadline_ends_the_process_with_one_line() -> None:
    done = run("with watchdog(0.3, None, report=report): time.sleep(30)")

    assert done.returncode == TABLE["limit"].exit
    assert done.stderr.strip() == "error: No answer after 0.3 s, the limit of this run."


def test_a_memory_bomb_ends_the_process() -> None:
    body = """
with watchdog(60, 200 << 20, report=report):
    held = []
    while True:
        held.append(bytearray(b'x' * (10 << 20)))
        time.sleep(0.01)
"""
    done = run(body)

    assert done.returncode == TABLE["limit"].exit
    assert "more than the limit of 200 MiB" in done.stderr


@pytest.mark.parametrize("limits", ["5, None", "None, 4 << 30", "None, None"])
def test_work_within_the_limits_is_left_alone(limits: str) -> None:
    done = run(f"with watchdog({limits}, report=report): print('done')")

    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_a_passed_deadline_ends_a_compiler_and_what_it_started(tmp_path: Path) -> None:
    beat = tmp_path / "beat"
    inner = f"import time\nwhile True: open({str(beat)!r}, 'a').write('.'); time.sleep(0.05)"
    # As a wrapper script does, and in a process group of its own, as some do.
    middle = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {inner!r}], process_group=0)
"""
    done = run(f"""
from pathlib import Path
from autoglm import toolchain
with watchdog(3, None, report=report):
    toolchain.run([sys.executable, "-c", {middle!r}], log=Path({str(tmp_path / "log")!r}))
""")

    assert done.returncode == TABLE["limit"].exit
    assert done.stderr.strip() == "error: No answer after 3 s, the limit of this run."
    size = beat.stat().st_size
    time.sleep(0.5)
    assert beat.stat().st_size == size
