"""A child process that may crash or hang: it is asked one question at a time, killed when late,
and respawned.
"""

from __future__ import annotations

import importlib
import math
import multiprocessing as mp
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any


@dataclass(frozen=True, slots=True)
class Lost:
    """What became of a question whose worker died: `crash` or `timeout`, and the detail."""

    kind: str
    detail: str


def _serve(target: str, setup: tuple[Any, ...], pipe: Connection) -> None:
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    module, _, name = target.partition(":")
    answer = getattr(importlib.import_module(module), name)(*setup)
    while True:
        question = pipe.recv()
        if question is None:
            return
        pipe.send(answer(question))


class Worker:
    """One child. `target` is `module:factory`; the factory's result answers questions in the
    child.
    """

    def __init__(
        self, target: str, *setup: Any, timeout_s: float = 30.0, start_s: float = 180.0
    ) -> None:
        self._target, self._setup = target, setup
        self._timeout_s, self._start_s = timeout_s, start_s
        self._process: Any = None
        self._pipe: Any = None
        self._fresh = True

    def ask(self, question: Any) -> Any:
        """The child's answer, or `Lost`."""
        self._start()
        limit = self._timeout_s + (self._start_s if self._fresh else 0.0)
        try:
            self._pipe.send(question)
            if not self._pipe.poll(limit):
                self._kill()
                return Lost("timeout", f"no answer within {self._timeout_s:g} s")
            answer = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join(5)
            code = self._process.exitcode
            self._kill()
            return Lost("crash", f"the process ended with status {code}")
        self._fresh = False
        return answer

    def _start(self) -> None:
        if self._process is not None:
            return
        context = mp.get_context("spawn")
        self._pipe, far = context.Pipe()
        args = (self._target, self._setup, far)
        self._process = context.Process(target=_serve, args=args, daemon=True)
        self._process.start()
        far.close()
        self._fresh = True

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join(5)
            self._pipe.close()
        self._process = None

    def close(self) -> None:
        """End the child; may be called twice."""
        self._kill()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def ask_all(
    target: str,
    setup: Sequence[Any],
    questions: Sequence[Any],
    *,
    jobs: int = 1,
    timeout_s: float = 30.0,
    progress: Callable[[int, int], None] | None = None,
    limit_s: float | None = None,
) -> list[Any]:
    """Every answer in the order of the questions, from `jobs` children; None for those that were
    not asked before `limit_s` had passed.
    """
    end = math.inf if limit_s is None else time.monotonic() + limit_s
    waiting: queue.Queue[int] = queue.Queue(len(questions) + 1)
    for index in range(len(questions)):
        waiting.put(index)
    answers: list[Any] = [None] * len(questions)
    lock = threading.Lock()
    done = 0

    def work() -> None:
        nonlocal done
        with Worker(target, *setup, timeout_s=timeout_s) as worker:
            while time.monotonic() < end:
                try:
                    index = waiting.get_nowait()
                except queue.Empty:
                    return
                answers[index] = worker.ask(questions[index])
                with lock:
                    done += 1
                    if progress is not None:
                        progress(done, len(questions))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(max(1, jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers
