"""What one run of the generator has seen, and the figures it becomes."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

BUSY = 0.9  # of the time: above it, the server may do more than the generator asks
DIFFERENT = "different"  # an answer that does not equal the first
CONNECTION = "connection"
TIMEOUT = "timeout"
_LONGEST = 300
_SCHEDULER = Path("/proc/thread-self/schedstat")  # nanoseconds run, nanoseconds waited, slices


@dataclass(slots=True)
class Fault:
    """How often something went wrong, and what was said the first time."""

    count: int
    message: str


@dataclass(frozen=True, slots=True)
class Load:
    """One concurrency's figures; latencies and `per_s` are of right answers only."""

    concurrency: int
    seconds: float
    requests: int
    per_s: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    errors: int
    faults: dict[str, Fault]  # by code
    sent_bytes: int
    received_bytes: int
    generator_busy: float  # share of the time in which the asking thread ran, or waited for a core

    @property
    def limited(self) -> bool:
        """Whether the generator itself was the limit."""
        return self.generator_busy >= BUSY

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "generator_was_the_limit": self.limited}


@dataclass(slots=True)
class Tally:
    """One run, while it lasts; the one thread that asks writes it."""

    seconds: float
    latencies: list[float] = field(default_factory=list)
    faults: dict[str, Fault] = field(default_factory=dict)
    sent: int = 0
    received: int = 0
    begun: float = 0.0
    end: float = 0.0  # no question leaves after it, in time.perf_counter() seconds
    _busy: float = 0.0

    def start(self) -> None:
        """The clock runs from here; call it in the thread that asks."""
        self._busy = _busy_s()
        self.begun = time.perf_counter()
        self.end = self.begun + self.seconds

    def fault(self, code: str, message: str) -> None:
        """Count one question that was not answered right."""
        seen = self.faults.get(code)
        if seen is None:
            self.faults[code] = Fault(1, " ".join(message.split())[:_LONGEST])
        else:
            seen.count += 1

    def load(self, concurrency: int) -> Load:
        """The figures, once every question is settled."""
        seconds = max(time.perf_counter() - self.begun, 1e-9)
        busy = _busy_s() - self._busy
        took = np.array(self.latencies or [float("nan")]) * 1e3
        p50, p90, p99 = (float(p) for p in np.percentile(took, (50, 90, 99)))
        return Load(
            concurrency,
            seconds,
            len(self.latencies),
            len(self.latencies) / seconds,
            p50,
            p90,
            p99,
            float(took.max()),
            sum(f.count for f in self.faults.values()),
            dict(self.faults),
            self.sent,
            self.received,
            busy / seconds,
        )


def _busy_s() -> float:
    """Seconds in which this thread ran or waited for a core; the first alone where not on Linux."""
    try:
        ran, waited, _ = _SCHEDULER.read_text("ascii").split()
    except (OSError, ValueError):
        return time.thread_time()
    return (int(ran) + int(waited)) / 1e9
