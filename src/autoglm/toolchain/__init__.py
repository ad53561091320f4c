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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoglm.errors import BackendUnavailableError, CompileError
from autoglm.vendor_errors import explain

_TAIL_BYTES = 4096
_READ_BYTES = 4 << 20  # of each end of a log, for the translator


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
                preexec_fn=_limit(memory_bytes) if memory_bytes else None,
            )
        except FileNotFoundError as error:
            raise BackendUnavailableError(
                "Program {program} is not installed.",
                hint="Install the vendor's toolkit, or put its bin folder on PATH.",
                program=argv[0],
            ) from error
        try:
            code = child.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            _end(child)
            raise _failure(argv, log, f"no end after {timeout_s:g} s") from error
        except BaseException:
            _end(child)
            raise
    if code != 0:
        cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        raise _failure(argv, log, cause)
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


def _limit(memory_bytes: int):  # type: ignore[no-untyped-def]
    def apply() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))

    return apply


def _end(child: subprocess.Popen[bytes]) -> None:
    # The compiler's own children die with it: it leads a session of its own.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
