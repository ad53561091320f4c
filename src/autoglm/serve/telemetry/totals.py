"""Counters and histograms of finished requests, folded in from records a hundred at a time."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field

from autoglm.serve.telemetry.record import Record

# Seconds; a p99 read off them is right within a factor of 2.5.
BOUNDS = (
    *(5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
_MOST_MODELS = 500
_WINDOW = 512
_ENOUGH = 100  # requests before a p99 means something


@dataclass(slots=True)
class Histogram:
    """`counts[i]`: values up to BOUNDS[i], and one count more for those above all."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0
    # bucket -> (trace id, value): a request to look at
    exemplars: dict[int, tuple[str, float]] = field(default_factory=dict)

    def add(self, seconds: float) -> int:
        """Count one value; the number of its bucket."""
        place = bisect_left(BOUNDS, seconds)
        self.counts[place] += 1
        self.total += seconds
        return place


@dataclass(slots=True)
class Totals:
    """Keys are label values; models that never answered have none, for anybody may name one."""

    requests: dict[tuple[str, str, str, str], int] = field(default_factory=dict)
    latency: dict[tuple[str, str], Histogram] = field(default_factory=dict)
    stages: dict[tuple[str, str, str], Histogram] = field(default_factory=dict)
    _recent: dict[str, deque[float]] = field(default_factory=dict)
    _slow: dict[str, float] = field(default_factory=dict)

    def add(self, record: Record) -> int:
        """Count a finished record; its bucket in `latency`, or -1 where it failed."""
        model, version = self._label(record)
        key = (model, version, record.transport, record.code)
        self.requests[key] = self.requests.get(key, 0) + 1
        if record.code != "ok":
            return -1
        histogram = self.latency.get((model, version))
        if histogram is None:
            histogram = self.latency[model, version] = Histogram()
            self._recent.setdefault(model, deque(maxlen=_WINDOW))
        for stage, begin, end in record.stages():
            of_stage = self.stages.get((model, version, stage))
            if of_stage is None:
                of_stage = self.stages[model, version, stage] = Histogram()
            of_stage.add((end - begin) * 1e-9)
        seconds = record.seconds
        self._recent[model].append(seconds)
        return histogram.add(seconds)

    def refresh(self) -> None:
        """Look again at what is slow, by the last requests of each model."""
        for model, recent in self._recent.items():
            if len(recent) >= _ENOUGH:
                self._slow[model] = sorted(recent)[int(len(recent) * 0.99)]

    def slow_above(self, model: str) -> float:
        """The model's recent p99 in seconds; infinite before there were enough requests."""
        return self._slow.get(model, float("inf"))

    def quantile(self, model: str, share: float) -> float:
        """Of the model's last requests; 0 where there were none."""
        recent = sorted(self._recent.get(model, ()))
        return recent[min(int(len(recent) * share), len(recent) - 1)] if recent else 0.0

    def _label(self, record: Record) -> tuple[str, str]:
        if record.code == "ok" and len(self.latency) < _MOST_MODELS:
            return record.model, record.version
        if (record.model, record.version) in self.latency:
            return record.model, record.version
        known = record.model in self._recent
        return (record.model if known else ""), ""
