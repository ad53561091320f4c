"""W3C Trace Context: the one line that joins our spans to those of whoever called."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

_LINE = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_SAMPLED = 1


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Ids as lower-case hexadecimal."""

    trace_id: str
    span_id: str
    sampled: bool = False

    def line(self) -> str:
        """As the header `traceparent` (MQTT: user property) says it."""
        return f"00-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}"


def parse_traceparent(line: str) -> TraceContext | None:
    """None for what the recommendation calls invalid: such a line is ignored, never an error."""
    found = _LINE.fullmatch(line.strip()) if len(line) <= 512 else None
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if version == "ff" or (version == "00" and rest):
        return None
    if not int(trace_id, 16) or not int(span_id, 16):
        return None
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


def new_trace_id() -> str:
    """128 random bits. Ids are no secrets, so the fast generator is the right one."""
    return f"{random.getrandbits(128) or 1:032x}"


def new_span_id() -> str:
    """64 random bits."""
    return f"{random.getrandbits(64) or 1:016x}"
