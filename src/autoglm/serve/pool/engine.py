"""One open engine: how much waits for it, how long a row takes, and whether it can be trusted."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from autoglm.errors import DeadlineError, ExecutionError
from autoglm.messages import tr
from autoglm.spec import Feeds, Value

_WEIGHT = 0.2  # of the newest measurement
_STALE_S = 10.0  # an engine passed over for so long is judged by its best time, and tried again
_STRIKES = 3.0
_FORGIVEN = 0.1  # of a strike, by each answer: one failure in ten and more ends in quarantine
_BUSY_S = 1.0
_OPEN_S = 600.0  # a child that opens its bundle
_LATE = 10.0  # a run that takes so many times what the last one took hangs, as far as one can see
RUN_TIMEOUT_S = 30.0
FIRST_REST_S, LONGEST_REST_S = 1.0, 60.0
_log = logging.getLogger("autoglm.serve.pool")


class Runs(Protocol):
    """What an engine needs of a session."""

    def run(self, feeds: Feeds) -> Mapping[str, Value]:
        """Run once."""

    def close(self) -> None:
        """Give everything back."""


@runtime_checkable
class Limited(Protocol):
    """A session that ends a run by itself when it takes longer than `run_s`."""

    run_s: float


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
        self.late = False  # its session ended a run that took too long, and it was not asked since
        self._session, self._sample = session, sample
        self._ran_at = time.monotonic()
        self._began: float | None = None  # when the present run did
        self._rows = 1  # of the present run
        self._last_s = 0.0
        self._limit_s = RUN_TIMEOUT_S
        self._limited: Limited | None = None
        self._closed = False
        self._lock = threading.Lock()

    @property
    def recent(self) -> list[tuple[str, int, int]]:
        """(partition, begin, end) of those that ran last, by perf_counter_ns; [] where the session
        keeps none.
        """
        return list(getattr(self._session, "recent", ()))

    def run(self, feeds: Feeds, wait_s: float = _BUSY_S) -> Mapping[str, Value]:
        """Run once, timed; ExecutionError for whatever the engine raises that is no error of ours.

        Calls take turns; one that would wait long fails instead, for it may stand on the loop. An
        engine that restarts never does, and what it waits for may be a child that opens.
        """
        if not self._lock.acquire(timeout=_OPEN_S if self.restarts else wait_s):
            raise ExecutionError("Engine {name} is busy with a probe.", name=self.name)
        try:
            if self._closed:
                raise ExecutionError("The session is closed.")
            rows = self._rows = max(rows_of(feeds), 1)
            if self._limited is not None:
                self._limited.run_s = self._most_s
            started = self._began = time.monotonic()
            outputs = self._session.run(feeds)
            self._measured(time.monotonic() - started, rows)
        except DeadlineError:
            self.late = True
            raise
        finally:
            self._began = None
            self._lock.release()
        return outputs

    def probe(self) -> str:
        """Answer the warm-up's question; why it could not, "" where it could."""
        try:
            self.run(self._sample, min(self._most_s, _OPEN_S))
        except BaseException as error:  # an engine may raise anything
            return str(error) or type(error).__name__
        finally:
            self.late = False
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

    def limit_run(self, seconds: float) -> None:
        """From now on a run that takes longer hangs, or ten times as long as its rows take at
        best, where that is more.
        """
        self._limit_s = seconds
        self._limited = self._session if isinstance(self._session, Limited) else None

    def hangs(self) -> str:
        """That the present run takes longer than it may, "" where not. One that limits its runs
        by itself never does.
        """
        began = self._began
        seconds = time.monotonic() - began if began is not None and not self._limited else 0.0
        if seconds <= self._most_s:
            return ""
        return tr(
            "it hangs: a run began {seconds:.0f} s ago, the limit is {limit:.0f} s",
            seconds=seconds,
            limit=self._most_s,
        )

    def answered(self) -> None:
        """It answered a request: a strike fades."""
        self.strikes = max(0.0, self.strikes - _FORGIVEN)

    def failed_alone(self) -> bool:
        """It failed where another engine answered; whether that is once too often."""
        self.strikes += 1.0
        return self.strikes >= _STRIKES

    def close(self) -> None:
        """Close the session, unless it hangs in native code; may be called twice."""
        self._closed = True
        if self._lock.acquire(timeout=_BUSY_S):
            try:
                self._session.close()
            finally:
                self._lock.release()
        elif self.restarts:  # a process can be ended at any time
            self._session.close()

    @property
    def _most_s(self) -> float:
        return max(self._limit_s, _LATE * self.best_row_s * self._rows)

    def _measured(self, run_s: float, rows: int) -> None:
        row_s, self._last_s = run_s / rows, run_s
        self._ran_at = time.monotonic()
        self.best_row_s = min(self.best_row_s, row_s)
        self.row_s = row_s if not self.row_s else self.row_s + _WEIGHT * (row_s - self.row_s)


def close_all(engines: Iterable[Engine]) -> None:
    """Close every engine; what one of them fails at keeps none of the others open."""
    for engine in engines:
        try:
            engine.close()
        except Exception as error:  # a plug-in may raise anything
            _log.warning("engine %s does not close: %s", engine.name, error)


def rows_of(feeds: Feeds) -> int:
    """Rows along the first axis of the first tensor; 1 for a scalar or a sequence."""
    for value in feeds.values():
        if shape := getattr(value, "shape", ()):
            return int(shape[0])
    return 1
