"""One open engine: how much waits for it, how long a row takes, and whether it can be trusted."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from autoglm.errors import ExecutionError
from autoglm.spec import Feeds, Value

_WEIGHT = 0.2  # of the newest measurement
_STALE_S = 10.0  # an engine passed over for so long is judged by its best time, and tried again
_STRIKES = 3.0
_FORGIVEN = 0.1  # of a strike, by each answer: one failure in ten and more ends in quarantine
_BUSY_S = 1.0
_LATE = 10.0  # a run that takes so many times what the last one took hangs, as far as one can see
FIRST_REST_S, LONGEST_REST_S = 1.0, 60.0


class Runs(Protocol):
    """What an engine needs of a session."""

    def run(self, feeds: Feeds) -> Mapping[str, Value]:
        """Run once."""

    def close(self) -> None:
        """Give everything back."""


@dataclass(slots=True)
class Quarantine:
    """Why an engine gets no work, and how long until it is tried again."""

    reason: str
    rest_s: float


class Engine:
    """A session with its load, its measured speed and its record. `run` may be called anywhere;
    the rest belongs to the event loop.
    """

    def __init__(self, name: str, session: Runs, sample: Feeds, *, restarts: bool = False) -> None:
        self.name = name
        self.restarts = restarts  # it comes back by itself when its process died
        self.joins = True  # its rows do not influence each other
        self.waiting_rows = 0  # accepted and not answered
        self.row_s = 0.0  # moving average
        self.best_row_s = float("inf")
        self.strikes = 0.0
        self.failures = 0
        self.quarantine: Quarantine | None = None
        self.probing = False
        self._session, self._sample = session, sample
        self._ran_at = time.monotonic()
        self._began: float | None = None  # when the present run did
        self._last_s = 0.0
        self._lock = threading.Lock()

    @property
    def recent(self) -> list[tuple[str, int, int]]:
        """(partition, begin, end) of those that ran last, by perf_counter_ns; [] where the session
        keeps none.
        """
        return list(getattr(self._session, "recent", ()))

    def run(self, feeds: Feeds) -> Mapping[str, Value]:
        """Run once, timed; ExecutionError for whatever the engine raises that is no error of ours.

        Calls take turns; one that would wait long fails instead, for it may stand on the loop.
        """
        if not self._lock.acquire(timeout=_BUSY_S):
            raise ExecutionError("Engine {name} is busy with a probe.", name=self.name)
        try:
            started = self._began = time.monotonic()
            outputs = self._session.run(feeds)
            self._measured(time.monotonic() - started, max(rows_of(feeds), 1))
        finally:
            self._began = None
            self._lock.release()
        return outputs

    def probe(self) -> str:
        """Answer the warm-up's question; why it could not, "" where it could."""
        try:
            self.run(self._sample)
        except Exception as error:  # an engine may raise anything
            return str(error) or type(error).__name__
        return ""

    def expected_s(self, rows: int) -> float:
        """How long `rows` more would take from now: what waits, at the measured speed, and as
        long again as a run that hangs has hung.
        """
        now, began = time.monotonic(), self._began
        stale = now - self._ran_at > _STALE_S and not self.waiting_rows
        row_s = self.best_row_s if stale else self.row_s
        since = now - began if began is not None else 0.0
        return (self.waiting_rows + rows) * row_s + (since if since > _LATE * self._last_s else 0.0)

    def answered(self) -> None:
        """It answered a request: a strike fades."""
        self.strikes = max(0.0, self.strikes - _FORGIVEN)

    def failed_alone(self) -> bool:
        """It failed where another engine answered; whether that is once too often."""
        self.strikes += 1.0
        return self.strikes >= _STRIKES

    def close(self) -> None:
        """Close the session, unless it hangs in native code; may be called twice."""
        if self._lock.acquire(timeout=_BUSY_S):
            try:
                self._session.close()
            finally:
                self._lock.release()
        elif self.restarts:  # a process can be ended at any time
            self._session.close()

    def _measured(self, run_s: float, rows: int) -> None:
        row_s, self._last_s = run_s / rows, run_s
        self._ran_at = time.monotonic()
        self.best_row_s = min(self.best_row_s, row_s)
        self.row_s = row_s if not self.row_s else self.row_s + _WEIGHT * (row_s - self.row_s)


def rows_of(feeds: Feeds) -> int:
    """Rows along the first axis of the first tensor; 1 for a scalar or a sequence."""
    for value in feeds.values():
        if shape := getattr(value, "shape", ()):
            return int(shape[0])
    return 1
