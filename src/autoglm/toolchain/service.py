"""A long-lived program of a toolchain: asked over a pipe, killed when late, started again when
it died.
"""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from autoglm.errors import BackendUnavailableError, ExecutionError
from autoglm.toolchain import tail

ANSWER, FAILURE = b"+", b"-"
_LINGER_S = 5.0


class Service:
    """One program, started at the first question. It is given a file descriptor as its last
    argument and answers each message there with `+` and bytes, or with `-` and what went wrong.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self._argv, self._log, self._env, self._cwd = list(argv), log, env, cwd
        self._child: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._lock = threading.Lock()

    def ask(self, message: bytes, *, timeout_s: float) -> bytes:
        """Its answer; ExecutionError where it fails, dies or is late. The next question starts it
        again.
        """
        with self._lock:
            pipe = self._pipe or self._start()
            try:
                pipe.send_bytes(message)
                if not pipe.poll(timeout_s):
                    self._end()
                    raise self._failure(f"no answer within {timeout_s:g} s")
                reply = pipe.recv_bytes()
            except (EOFError, OSError) as error:
                raise self._failure(self._end()) from error
            except BaseException:
                self._end()
                raise
        if reply[:1] == FAILURE:
            raise self._failure("it answered", reply[1:].decode("utf-8", "replace"))
        return reply[1:]

    def close(self) -> None:
        """End the program; may be called twice."""
        with self._lock:
            self._end()

    def _start(self) -> Connection:
        near, far = mp.Pipe()
        with self._log.open("wb") as sink:
            try:
                self._child = subprocess.Popen(
                    [*self._argv, str(far.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=subprocess.STDOUT,
                    env=dict(self._env) if self._env is not None else None,
                    cwd=self._cwd,
                    pass_fds=(far.fileno(),),
                    start_new_session=True,
                )
            except OSError as error:
                raise BackendUnavailableError(
                    "Program {program} cannot be started: {cause}.",
                    program=self._argv[0],
                    cause=error.strerror or str(error),
                ) from error
            finally:
                far.close()
        self._pipe = near
        return near

    def _end(self) -> str:
        """Stop it and whatever it started; how it had ended by itself, if it had."""
        if self._pipe is not None:
            self._pipe.close()
        child, self._child, self._pipe = self._child, None, None
        if child is None:
            return "it was not running"
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=_LINGER_S if child.poll() is None else 0)
        code = child.poll()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        if code is None:
            return "it was stopped"
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"

    def _failure(self, cause: str, line: str = "") -> ExecutionError:
        last = line or tail(self._log)
        return ExecutionError(
            "{program} failed ({cause}): {line}",
            hint="The whole log is in {log}.",
            program=Path(self._argv[-1]).name,
            cause=cause,
            line=last.splitlines()[-1] if last else "it printed nothing",
            log=str(self._log),
            tail=last,
        )
