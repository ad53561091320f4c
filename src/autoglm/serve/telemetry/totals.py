"""Counters and histograms of finished requests, folded in from records a hundred at a time."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from autoglm.serve.telemetry.record import Record

# Seconds; a p99 read off them is right within a factor of 2.5.
BOUNDS = (
    *(5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
_BOUNDS_NS = np.array([round(b * 1e9) for b in BOUNDS])
_MOST_MODELS = 500
_WINDOW = 512
_ENOUGH = 100  # requests before a p99 means something


@dataclass(slots=True)
class Histogram:
    """`counts[i]`: values up to BOUNDS[i], and one count more for those above all."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0  # seconds
    # bucket -> (trace id, seconds): a request to look at
    exemplars: dict[int, tuple[str, float]] = field(default_factory=dict)
    waiting: list[int] = field(default_factory=list)  # nanoseconds, not yet counted

    def settle(self) -> None:
        """Count what waits; together, for that costs a fraction of one by one."""
        if not self.waiting:
            return
        places = np.searchsorted(_BOUNDS_NS, self.waiting)
        found = np.bincount(places, minlength=len(self.counts)).tolist()
        self.counts = [old + new for old, new in zip(self.counts, found, strict=True)]
        self.total += sum(self.waiting) * 1e-9
        self.waiting = []

    def example(self, trace_id: str, seconds: float) -> None:
        """Remember a request that has a trace."""
        self.exemplars[bisect_left(BOUNDS, seconds)] = (trace_id, seconds)


@dataclass(slots=True)
class Series:
    """Of one version of one model."""

    latency: Histogram = field(default_factory=Histogram)
    stages: dict[str, Histogram] = field(default_factory=dict)
    recent: deque[int] = field(default_factory=lambda: deque(maxlen=_WINDOW))  # nanoseconds
    slow_ns: float = float("inf")

    def add(self, record: Record) -> None:
        """Take the times of an answered request; `Record.stages`, without its lists."""
        stage, begin = "entry", record.begin
        stages = self.stages
        for mark in record.marks:
            if len(mark) == 2:
                if mark[1] > begin:
                    held = stages.get(stage)
                    if held is None:
                        held = stages[stage] = Histogram()
                    held.waiting.append(mark[1] - begin)
                stage, begin = mark
        held = stages.get(stage)
        if held is None:
            held = stages[stage] = Histogram()
        held.waiting.append(record.end - begin)
        whole = record.end - record.begin
        self.latency.waiting.append(whole)
        self.recent.append(whole)

    def settle(self) -> None:
        """Bring the counts, and what counts as slow, up to date."""
        if not self.latency.waiting:
            return
        for histogram in (self.latency, *self.stages.values()):
            histogram.settle()
        if len(self.recent) >= _ENOUGH:
            self.slow_ns = sorted(self.recent)[int(len(self.recent) * 0.99)]

    def quantile(self, share: float) -> float:
        """Seconds, of the last requests; 0 where there were none."""
        recent = sorted(self.recent)
        return recent[min(int(len(recent) * share), len(recent) - 1)] * 1e-9 if recent else 0.0


@dataclass(slots=True)
class Totals:
    """Keys are label values; models that never answered have none, for anybody may name one."""

    requests: dict[tuple[str, str, str, str], int] = field(default_factory=dict)
    series: dict[tuple[str, str], Series] = field(default_factory=dict)

    def add(self, record: Record) -> Series | None:
        """Count a finished record; its series, or None where it failed."""
        place = (record.model, record.version)
        series = self.series.get(place)
        if series is None and record.code == "ok" and len(self.series) < _MOST_MODELS:
            series = self.series[place] = Series()
        if series is None:
            known = any(model == record.model for model, _ in self.series)
            place = (record.model if known else "", "")
        key = (*place, record.transport, record.code)
        self.requests[key] = self.requests.get(key, 0) + 1
        if record.code != "ok" or series is None:
            return None
        series.add(record)
        return series

    def settle(self) -> None:
        """Bring every series up to date."""
        for series in self.series.values():
            series.settle()
