"""A bound on time and memory for a whole command: an engine that never returns cannot be
interrupted from Python.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from autoglm.errors import LimitError
from autoglm.toolchain import kill_all

_PERIOD_S = 0.05
_CLEAN_UP_S = 2.0
_PAGE = os.sysconf("SC_PAGE_SIZE")


@contextmanager
def watchdog(
    seconds: float | None,
    memory_bytes: int | None,
    *,
    report: Callable[[LimitError], None],
) -> Iterator[None]:
    """End the process with LimitError's exit status once a limit is passed, after calling `report`.

    An engine stuck in native code ignores exceptions and signals' Python handlers, so this ends
    the process itself. Outputs are written to temporary names and renamed, so nothing half is
    left behind.
    """
    if not seconds and not memory_bytes:
        yield
        return
    done = threading.Event()
    thread = threading.Thread(
        target=_watch, args=(done, seconds, memory_bytes, report), daemon=True, name="watchdog"
    )
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def resident_bytes() -> int:
    """Anonymous resident memory of this process in bytes; mapped files do not count against a
    limit.
    """
    with open("/proc/self/statm", encoding="ascii") as stream:
        fields = stream.read().split()
    return (int(fields[1]) - int(fields[2])) * _PAGE


def _watch(
    done: threading.Event,
    seconds: float | None,
    memory_bytes: int | None,
    report: Callable[[LimitError], None],
) -> None:
    deadline = time.monotonic() + seconds if seconds else None
    while not done.wait(_PERIOD_S):
        error = _passed(deadline, seconds, memory_bytes)
        if error is not None:
            report(error)
            _clean_up()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(error.row.exit)


def _clean_up() -> None:
    """End programs and remove temporary folders, as a normal exit would; bounded, for an engine
    may hang in its own.
    """
    kill_all()
    exits = threading.Thread(target=atexit._run_exitfuncs, daemon=True)
    exits.start()
    exits.join(_CLEAN_UP_S)
    kill_all()  # the main thread went on meanwhile, and may have started another


def _passed(
    deadline: float | None, seconds: float | None, memory_bytes: int | None
) -> LimitError | None:
    if deadline is not None and time.monotonic() > deadline:
        return LimitError(
            "No answer after {seconds:g} s, the limit of this run.",
            hint="Raise it with --timeout-s, or look for an endless Loop in the model.",
            seconds=seconds,
        )
    if memory_bytes:
        used = resident_bytes()
        if used > memory_bytes:
            return LimitError(
                "The model took {used} MiB of memory, more than the limit of {limit} MiB.",
                hint="Raise it with --memory-limit-bytes, or give smaller input shapes.",
                used=used >> 20,
                limit=memory_bytes >> 20,
            )
    return None
