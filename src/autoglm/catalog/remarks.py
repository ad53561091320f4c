"""How a probe says, in one line, why it found nothing; heard only where someone listens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_heard: ContextVar[list[str] | None] = ContextVar("autoglm_remarks", default=None)


def remark(line: str) -> None:
    """Say why something is not there."""
    lines = _heard.get()
    if lines is not None and line not in lines:
        lines.append(line)


@contextmanager
def listening() -> Iterator[list[str]]:
    """Collect the remarks that this thread makes inside."""
    lines: list[str] = []
    token = _heard.set(lines)
    try:
        yield lines
    finally:
        _heard.reset(token)
