"""Blocking work in a thread that keeps nobody from ending.

A thread cannot be stopped from outside. The loop's own executor, and the interpreter, wait for
their threads at the end: one that hangs in native code would keep the process for ever.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")
PREFIX = "engine "  # names of threads that may be in native code; those of the batchers too


async def in_thread(
    work: Callable[..., T], *given: Any, undo: Callable[[T], object] | None = None
) -> T:
    """`work(*given)` in a daemon thread of its own. Cancelling leaves the thread to itself: what it
    makes after all is given to `undo`.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if not done.done():
            done.set_result((result, error))
        elif error is None and undo is not None:
            _start(undo, result)

    def whole() -> None:
        result, error = None, None
        try:
            result = work(*given)
        except BaseException as raised:  # it is the caller's, whatever it is
            error = raised
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:  # the loop has ended meanwhile
            if error is None and undo is not None:
                undo(result)  # type: ignore[arg-type]

    _start(whole)
    result, error = await done
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


def hanging(wait_s: float = 0.5) -> list[str]:
    """Names of the threads that still work for an engine after so long."""
    end = time.monotonic() + wait_s
    for thread in _engines():
        with suppress(RuntimeError):  # it is this thread
            thread.join(max(end - time.monotonic(), 0.0))
    return [thread.name for thread in _engines()]


def _engines() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith(PREFIX)]


def _start(work: Callable[..., object], *given: Any) -> None:
    name = PREFIX + getattr(work, "__name__", "work")
    threading.Thread(target=work, args=given, name=name, daemon=True).start()
