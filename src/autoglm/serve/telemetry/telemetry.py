"""Times every request for the price of a few tuples; looks at them a hundred at a time."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from autoglm.errors import TABLE, AutoGLMError, ConfigError
from autoglm.serve.core import Request
from autoglm.serve.telemetry.context import parse_traceparent
from autoglm.serve.telemetry.otlp import export_request
from autoglm.serve.telemetry.record import Mark, Record
from autoglm.serve.telemetry.sinks import Writer, file_sink, otlp_sink
from autoglm.serve.telemetry.totals import Totals

_LOG = logging.getLogger("autoglm.serve.telemetry")
_FOLD = 128  # records; folding them holds the loop up for less than a millisecond
_FOLD_NS = 1_000_000_000
_SLOW_KEPT = 50
_RECENT_KEPT = 1024

Ran = Callable[[str, str], list[tuple[str, int, int]]]
Reading = Iterable[tuple[Mapping[str, str], float]]


@dataclass(frozen=True, slots=True)
class TelemetryOptions:
    """What becomes spans, and where they go. Without `traces` and `otlp` there are none."""

    traces: Path | None = None  # OTLP/JSON, one request a line
    otlp: str = ""  # URL of a collector; /v1/traces is added
    sample: float = 0.01  # share of requests, beside all slow ones and those the caller sampled
    slow_s: float = 0.0  # slower ones are always kept; 0 = above the model's recent p99
    most_per_s: float = (
        50.0  # traces, and lines of failures; nobody can fill the disk by asking for them
    )
    max_bytes: int = 256 << 20
    service: str = "autoglm"


@dataclass(frozen=True, slots=True)
class Watched:
    """A figure that someone else keeps, read when metrics are asked for."""

    name: str
    kind: str  # gauge | counter
    help: str
    read: Callable[[], Reading]


class Telemetry:
    """One per process. `start` and `finish` may be called by any thread."""

    def __init__(self, options: TelemetryOptions | None = None, ran: Ran | None = None) -> None:
        """`ran` gives (name, begin, end) of what a version's engine ran last: a ring that is looked
        into for the few requests that get spans.
        """
        self._ran = ran
        self.options = options = options or TelemetryOptions()
        self.totals = Totals()
        self.watched: list[Watched] = []
        self.recent: deque[Record] = deque(maxlen=_RECENT_KEPT)
        self.slow: deque[Record] = deque(maxlen=_SLOW_KEPT)
        self._pending: list[Record] = []
        self._folded = time.perf_counter_ns()
        self._lock = threading.Lock()
        self._tokens = options.most_per_s
        self.writer = Writer(_sinks(options))
        self.exports = bool(options.traces or options.otlp)

    def start(self, request: Request) -> Record:
        """Begin with the first of the request's marks, or now."""
        marks: list[Mark] = request.marks if request.marks is not None else []
        request.marks = marks
        client = request.client
        transport = client.credentials.transport
        return Record(request.model, transport, client.name, request.traceparent, marks)

    def finish(
        self, record: Record, error: BaseException | None = None, *, version: str = ""
    ) -> None:
        """End now; `error` is what the client gets instead of an answer."""
        record.end = time.perf_counter_ns()
        record.version = version
        record.code = "ok" if error is None else code_of(error)
        self._pending.append(record)
        if len(self._pending) >= _FOLD or record.end - self._folded > _FOLD_NS:
            self.fold()

    def fold(self) -> None:
        """Bring counters, recent and slow requests up to date, and export what is to be."""
        with self._lock:
            pending, self._pending = self._pending, []
            now = time.perf_counter_ns()
            gained = (now - self._folded) * 1e-9 * self.options.most_per_s
            self._tokens = min(self.options.most_per_s, self._tokens + gained)
            self._folded = now
            offset = time.time_ns() - now
            for record in pending:
                self._take(record, offset)
            self.totals.settle()

    def watch(self, name: str, kind: str, help: str, read: Callable[[], Reading]) -> None:
        """Show a figure among the metrics: `read` gives (labels, value) when they are asked for."""
        self.watched.append(Watched(name, kind, help, read))

    def close(self) -> None:
        """Fold and write what waits; may be called twice."""
        self.fold()
        self.writer.close()

    def _take(self, record: Record, offset_ns: int) -> None:
        series = self.totals.add(record)
        self.recent.append(record)
        took = record.end - record.begin
        if self.options.slow_s:
            slow = took > self.options.slow_s * 1e9
        else:
            slow = series is not None and took > series.slow_ns
        if slow:
            self.slow.append(record)
        weight = self._weight(record, slow)
        if not weight:
            return
        if self._ran is not None and self.exports:
            record.marks += record.within_device(self._ran(record.model, record.version))
        if series is not None:
            series.latency.example(record.context.trace_id, record.seconds)
        fault = TABLE[record.code].http >= 500 if record.code != "ok" else False
        if not (self.exports or fault):
            return
        if self._tokens < 1:
            self.writer.dropped += self.exports
            return
        self._tokens -= 1
        if fault:
            _LOG.error("a request failed", extra=_facts(record))
        if self.exports:
            self._export(record, weight, offset_ns)

    def _weight(self, record: Record, slow: bool) -> float:
        """How many requests this one's spans stand for; 0 = it gets none."""
        if slow or record.code != "ok" or self.options.sample >= 1:
            return 1.0
        if self.options.sample > 0 and random.random() < self.options.sample:
            return 1.0 / self.options.sample
        caller = parse_traceparent(record.parent) if record.parent else None
        # It was chosen by its caller, and stands for itself only.
        return 1.0 if caller is not None and caller.sampled else 0.0

    def _export(self, record: Record, weight: float, offset_ns: int) -> None:
        resource = {"service.name": self.options.service}
        self.writer.put(
            partial(export_request, record, offset_ns=offset_ns, weight=weight, resource=resource)
        )


def _facts(record: Record) -> dict[str, object]:
    """What a log line says of a request; never its data."""
    return {
        "trace_id": record.context.trace_id,
        "model": record.model,
        "client": record.client,
        "transport": record.transport,
        "code": record.code,
        "seconds": round(record.seconds, 6),
    }


def code_of(error: BaseException) -> str:
    """The stable code of what went wrong."""
    if isinstance(error, AutoGLMError):
        return error.code
    return "internal" if isinstance(error, Exception) else "cancelled"


def _sinks(options: TelemetryOptions) -> list[Callable[[bytes], None]]:
    sinks = [file_sink(options.traces, options.max_bytes)] if options.traces else []
    if options.otlp:
        try:
            sinks.append(otlp_sink(options.otlp))
        except ValueError as error:
            raise ConfigError("{reason}.", reason=str(error)) from error
    return sinks
