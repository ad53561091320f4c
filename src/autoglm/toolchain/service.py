"""A long-lived program of a toolchain: asked over a pipe, killed when late, started again when
it died.
"""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from autoglm.errors import BackendUnavailableError, ExecutionError
from autoglm.toolchain import before_exec, ending, kill_session, live, tail

ANSWER, FAILURE = b"+", b"-"
_LINGER_S = 5.0
_LOOK_S = 0.05


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
        memory_bytes: int | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self._argv, self._log, self._env, self._cwd = list(argv), log, env, cwd
        self._memory_bytes = memory_bytes
        self._pass_fds = tuple(pass_fds)
        self._child: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._lock = threading.Lock()
        self._due: float | None = None  # when the question asked now is late
        self._due_lock = threading.Lock()

    def ask(self, message: bytes, *, timeout_s: float) -> bytes:
        """Its answer; ExecutionError where it fails, dies or is late. The next question starts it
        again.
        """
        with self._lock:
            pipe = self._pipe or self._start()
            due = time.monotonic() + timeout_s
            self._set_due(due)
            try:
                pipe.send_bytes(message)
                reply = pipe.recv_bytes()
            except (EOFError, OSError) as error:
                late = time.monotonic() > due
                ended = self._end()
                cause = f"no answer within {timeout_s:g} s" if late else ended
                raise self._failure(cause) from error
            except BaseException:
                self._end()
                raise
            finally:
                self._set_due(None)
            if time.monotonic() > due:  # it may have been killed just after it answered
                self._end()
                raise self._failure(f"no answer within {timeout_s:g} s")
        if reply[:1] == FAILURE:
            raise self._failure("it answered", reply[1:].decode("utf-8", "replace"))
        return reply[1:]

    def close(self) -> None:
        """End the program, also while it is asked; may be called twice."""
        while not self._lock.acquire(timeout=_LOOK_S):
            self._kill()
        try:
            self._end()
        finally:
            self._lock.release()

    def _kill(self) -> None:
        child = self._child
        if child is not None and child.returncode is None:
            kill_session(child.pid)

    def _set_due(self, due: float | None) -> None:
        with self._due_lock:
            self._due = due

    def _watch(self, child: subprocess.Popen[bytes]) -> None:
        """Neither sending nor receiving has a limit of its own; the program's death ends both.

        One thread for all questions: to start one for each would take longer than a short answer.
        """
        while self._child is child:
            with self._due_lock:
                if self._due is not None and time.monotonic() > self._due:
                    kill_session(child.pid)
                    return
            time.sleep(_LOOK_S)

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
                    pass_fds=(far.fileno(), *self._pass_fds),
                    start_new_session=True,
                    # It outlives the thread that asks first; it sees the pipe close.
                    preexec_fn=before_exec(self._memory_bytes, with_thread=False),
                )
            except OSError as error:
                raise BackendUnavailableError(
                    "Program {program} cannot be started: {cause}.",
                    program=self._argv[0],
                    cause=error.strerror or str(error),
                ) from error
            finally:
                far.close()
        live.add(self._child.pid)
        threading.Thread(target=self._watch, args=(self._child,), daemon=True).start()
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
        kill_session(child.pid)
        child.wait()
        live.discard(child.pid)
        return "it was stopped" if code is None else ending(code)

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
