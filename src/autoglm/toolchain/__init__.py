"""The one door to outside programs: a child process with its own environment, log, time and
memory limit.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from autoglm.errors import BackendUnavailableError, CompileError
from autoglm.vendor_errors import explain

_TAIL_BYTES = 4096
_READ_BYTES = 4 << 20  # of each end of a log, for the translator
_PR_SET_PDEATHSIG = 1
live: set[int] = set()  # each leads the session of one program that runs now
os.register_at_fork(after_in_child=live.clear)


@dataclass(frozen=True, slots=True)
class Completed:
    """What came of one program: exit status, wall seconds, the log's path and its last lines."""

    argv: tuple[str, ...]
    returncode: int
    seconds: float
    log: Path
    tail: str


def run(
    argv: Sequence[str],
    *,
    log: Path,
    timeout_s: float = 600.0,
    memory_bytes: int | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Completed:
    """Run `argv` (never through a shell) to its end; CompileError with argv, status, log and tail
    otherwise.
    """
    started = time.monotonic()
    with log.open("wb") as sink:
        try:
            child = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=dict(env) if env is not None else None,
                cwd=cwd,
                start_new_session=True,
                preexec_fn=before_exec(memory_bytes, with_thread=True),
            )
        except OSError as error:
            raise _not_started(argv[0], error, cwd) from error
        live.add(child.pid)
        try:
            code = child.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            _end(child)
            raise _failure(argv, log, f"no end after {timeout_s:g} s") from error
        except BaseException:
            _end(child)
            raise
        finally:
            live.discard(child.pid)
    if code != 0:
        raise _failure(argv, log, ending(code))
    return Completed(tuple(argv), code, time.monotonic() - started, log, tail(log))


def tail(log: Path) -> str:
    """The last lines of a log, at most 4 KiB."""
    with log.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - _TAIL_BYTES))
        return stream.read().decode("utf-8", "replace").strip()


def read_ends(log: Path) -> str:
    """A log as text; of a very long one the first and the last 4 MiB."""
    with log.open("rb") as stream:
        head = stream.read(2 * _READ_BYTES)
        rest = stream.seek(0, os.SEEK_END) - len(head)
        if rest > 0:
            stream.seek(rest + _READ_BYTES)
            head = head[:_READ_BYTES] + b"\n" + stream.read()
    return head.decode("utf-8", "replace")


def _failure(argv: Sequence[str], log: Path, cause: str) -> CompileError:
    last = tail(log)
    facts = {
        "program": Path(argv[0]).name,
        "cause": cause,
        "line": last.splitlines()[-1] if last else "it printed nothing",
        "log": str(log),
        "argv": list(argv),
        "tail": last,
    }
    known = explain(read_ends(log))
    if not known:
        return CompileError(
            "{program} failed ({cause}): {line}", hint="The whole log is in {log}.", **facts
        )
    facts |= {"line": known[0].text, "meaning": known[0].cause, "next": known[0].next}
    return CompileError(
        "{program} failed ({cause}): {line}",
        hint="{meaning} {next} The whole log is in {log}.",
        **facts,
        explained=[e.code for e in known],
        nodes=[node for e in known for node in e.nodes],
    )


def _not_started(program: str, error: OSError, cwd: Path | None) -> BackendUnavailableError:
    if isinstance(error, FileNotFoundError) and (cwd is None or cwd.is_dir()):
        return BackendUnavailableError(
            "Program {program} is not installed.",
            hint="Install the vendor's toolkit, or put its bin folder on PATH.",
            program=program,
        )
    return BackendUnavailableError(
        "Program {program} cannot be started: {cause}.", program=program, cause=str(error)
    )


def ending(code: int) -> str:
    """A return code in words; most real-time signals have no name."""
    if code >= 0:
        return f"exit status {code}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-code).name}"
    return f"signal {-code}"


def kill_all() -> None:
    """Kill every program that runs now, for a process that is about to end without cleaning up."""
    for leader in list(live):
        kill_session(leader)


def kill_session(leader: int) -> None:
    """Kill a program and whatever it started, also what it gave process groups of their own."""
    with contextlib.suppress(OSError):
        os.killpg(leader, signal.SIGKILL)
    for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
        with contextlib.suppress(OSError):
            if os.getsid(pid) == leader:
                os.kill(pid, signal.SIGKILL)


def before_exec(memory_bytes: int | None, *, with_thread: bool) -> Callable[[], None] | None:
    """What a child does between fork and exec: little, for other threads' locks are held there.

    `with_thread`: it dies with the thread that started it, which is what the kernel calls parent.
    """
    if not memory_bytes and not with_thread:
        return None
    prctl, parent = _prctl(), os.getpid()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = memory_bytes or hard
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)

    def apply() -> None:
        if memory_bytes:
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
        if with_thread:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:  # it died before the line above
                os._exit(1)

    return apply


@cache
def _prctl() -> Callable[..., Any]:
    import ctypes

    function: Callable[..., Any] = ctypes.CDLL(None).prctl
    return function


def _end(child: subprocess.Popen[bytes]) -> None:
    kill_session(child.pid)
    child.wait()
