"""Where slow requests lose their time, and which switch would help.

Ranked is the excess: mean self time on the critical path of tail requests (the slowest 1 %) minus
that of ordinary ones (the faster half). What is slow always does not make a tail; what runs
beside the critical path costs nobody anything. The critical path is found as CRISP does (Zhang et
al., USENIX ATC 2022): from the end of a span backwards, always through the child that ended last.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoglm.errors import FileMissingError, InputError

_MOST_BYTES = 2 << 30
_MOST_SPANS = 10_000  # of one trace
_SKEW = 0.01  # by which a child may pass its parent's end and still be waited for
_COLD = 0.5  # of a spot's time: so much of it in first requests is a cold start


@dataclass(frozen=True, slots=True)
class Span:
    """Times in nanoseconds."""

    id: str
    parent: str
    name: str
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Trace:
    """One request: its root, the spans below it, and how many requests it stands for."""

    root: Span
    children: Mapping[str, tuple[Span, ...]]
    weight: float = 1.0
    model: str = ""

    @property
    def seconds(self) -> float:
        """Of the whole request."""
        return (self.root.end - self.root.begin) * 1e-9


@dataclass(frozen=True, slots=True)
class Spot:
    """One stage or operator: self time on the critical path, in seconds, mean of each group."""

    name: str
    tail_s: float
    body_s: float
    share: float  # of the tail's whole excess
    switch: str  # what would help: one of SWITCHES, "" = nothing of the server's
    figure: str  # what that is judged on, before and after

    @property
    def excess_s(self) -> float:
        """By which the tail is slower here."""
        return self.tail_s - self.body_s


@dataclass(frozen=True, slots=True)
class Hotspots:
    """Of one model; spots by excess, largest first."""

    model: str
    traces: int
    requests: float  # that the traces stand for
    p50_s: float
    p99_s: float
    tail: int  # traces of the slowest 1 % of requests
    spots: tuple[Spot, ...]


_STAGE = 'p99 of autoglm_stage_seconds{{stage="{name}"}}'
# Stage -> the switch, and the figure.
SWITCHES: Mapping[str, tuple[str, str]] = {
    "entry": ("gRPC", _STAGE),
    "queue": ("more engines", _STAGE),
    "batch": ("batching", "autoglm_batch_padded_rows_total / autoglm_batch_rows_total"),
    "device": ("cache", 'share of autoglm_cache_questions_total{{how!="miss"}}'),
    "reply": ("gRPC", _STAGE),
}
_PRELOAD = ("preload", "p99 of the first request after the start")


def read_traces(path: Path) -> tuple[list[Trace], int]:
    """Traces of an OTLP/JSON file, one `ExportTraceServiceRequest` a line or one in all; and how
    many lines and spans were none (the last line may have been cut).
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(
                "{path} has more than {limit} bytes.", path=str(path), limit=_MOST_BYTES
            )
        text = path.read_text("utf-8", errors="replace")
    except OSError as error:
        raise FileMissingError(
            "{path} cannot be read: {reason}.", path=str(path), reason=error.strerror or str(error)
        ) from error
    rows, skipped = _documents(text)
    traces, lost = traces_of(rows)
    return traces, skipped + lost


def traces_of(rows: Iterable[Any]) -> tuple[list[Trace], int]:
    """Traces of export requests, and how many spans were none.

    A root is a span whose parent is not among the trace's spans: the caller's is not here.
    """
    groups: dict[str, dict[str, tuple[Span, Mapping[str, Any]]]] = defaultdict(dict)
    lost = 0
    for raw in (span for row in rows for span in _raw_spans(row)):
        found = _span(raw)
        if found is None or len(groups[found[0]]) >= _MOST_SPANS:
            lost += 1
            continue
        trace_id, span, attributes = found
        groups[trace_id].setdefault(span.id, (span, attributes))
    return [trace for group in groups.values() for trace in _roots(group)], lost


def critical_path(trace: Trace) -> list[tuple[str, int]]:
    """(name, nanoseconds) of each segment; disjoint, and together exactly the root's duration.

    A child that goes on after its parent's end held nobody up. Of children side by side the one
    that ended last counts, and before it those that had ended when it began.
    """
    segments: list[tuple[str, int]] = []
    todo = [(trace.root, trace.root.begin, trace.root.end)]
    while todo:
        span, begin, now = todo.pop()
        late = span.end + (span.end - span.begin) * _SKEW
        for child in sorted(trace.children.get(span.id, ()), key=lambda c: c.end, reverse=True):
            allowed = late if now == span.end else now + (child.end - child.begin) * _SKEW
            end, start = min(child.end, now), max(child.begin, begin)
            if child.end > allowed or start >= end:
                continue
            segments.append((span.name, now - end))
            todo.append((child, start, end))
            now = start
        segments.append((span.name, now - begin))
    return [(name, length) for name, length in segments if length]


def hotspots(traces: Sequence[Trace]) -> list[Hotspots]:
    """One report a model, the one with the longest p99 first."""
    models: dict[str, list[Trace]] = defaultdict(list)
    for trace in traces:
        models[trace.model].append(trace)
    return sorted((_of_model(m, t) for m, t in models.items()), key=lambda h: -h.p99_s)


def _of_model(model: str, traces: list[Trace]) -> Hotspots:
    ordered = sorted(traces, key=lambda t: t.seconds)
    body, tail = _first(ordered, 0.5), _first(ordered[::-1], 0.01)
    slow, usual = _mean(tail), _mean(body)
    first = min(traces, key=lambda t: t.root.begin)
    excess = sum(max(slow[n] - usual.get(n, 0.0), 0.0) for n in slow)
    spots = [
        _spot(name, slow.get(name, 0.0), usual.get(name, 0.0), excess, _cold(name, tail, first))
        for name in {**slow, **usual}
    ]
    ranked = tuple(sorted(spots, key=lambda s: -s.excess_s))
    requests = sum(t.weight for t in traces)
    p50, p99 = body[-1].seconds, tail[-1].seconds
    return Hotspots(model, len(traces), requests, p50, p99, len(tail), ranked)


def _spot(name: str, slow: float, usual: float, excess: float, cold: bool) -> Spot:
    switch, figure = _PRELOAD if cold else SWITCHES.get(name, ("", ""))
    share = max(slow - usual, 0.0) / excess if excess else 0.0
    return Spot(name, slow, usual, share, switch, figure.format(name=name))


def _cold(name: str, tail: list[Trace], first: Trace) -> bool:
    """Whether most of the tail's time here was spent in the model's very first request."""
    own = {id(t): sum(n for at, n in critical_path(t) if at == name) * t.weight for t in tail}
    return own.get(id(first), 0.0) > _COLD * sum(own.values())


def _mean(traces: list[Trace]) -> dict[str, float]:
    """Name -> mean self time on the critical path, in seconds."""
    sums: dict[str, float] = defaultdict(float)
    for trace in traces:
        for name, length in critical_path(trace):
            sums[name] += length * trace.weight
    total = sum(t.weight for t in traces)
    return {name: value * 1e-9 / total for name, value in sums.items()}


def _first(ordered: list[Trace], share: float) -> list[Trace]:
    """So many traces from the start that they stand for that share of requests; at least one."""
    wanted, passed = share * sum(t.weight for t in ordered) * (1 - 1e-12), 0.0
    for number, trace in enumerate(ordered, 1):
        passed += trace.weight
        if passed >= wanted:
            return ordered[:number]
    return ordered


def _documents(text: str) -> tuple[list[Any], int]:
    with suppress(ValueError, RecursionError):
        return [json.loads(text)], 0
    rows, skipped = [], 0
    for line in text.splitlines():
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError):
            skipped += bool(line.strip())
    return rows, skipped


def _raw_spans(row: Any) -> Iterator[Any]:
    for resource in _list(row, "resourceSpans"):
        for scope in _list(resource, "scopeSpans"):
            yield from _list(scope, "spans")


def _list(row: Any, key: str) -> list[Any]:
    found = row.get(key) if isinstance(row, dict) else None
    return found if isinstance(found, list) else []


def _span(raw: Any) -> tuple[str, Span, Mapping[str, Any]] | None:
    try:
        begin, end = int(raw["startTimeUnixNano"]), int(raw["endTimeUnixNano"])
        span = Span(
            str(raw["spanId"]), str(raw.get("parentSpanId") or ""), str(raw["name"]), begin, end
        )
        pairs = {a["key"]: next(iter(a["value"].values())) for a in raw.get("attributes") or ()}
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration):
        return None
    # A clock that went back in between: no time passed that could be ranked.
    return (str(raw.get("traceId")), span, pairs) if end >= begin else None


def _roots(group: Mapping[str, tuple[Span, Mapping[str, Any]]]) -> Iterator[Trace]:
    children: dict[str, list[Span]] = defaultdict(list)
    for span, _ in group.values():
        children[span.parent].append(span)
    held = {parent: tuple(spans) for parent, spans in children.items() if parent}
    for span, attributes in group.values():
        if span.parent not in group:
            weight = attributes.get("autoglm.weight", 1.0)
            usable = isinstance(weight, int | float) and 0 < weight < 1e9
            model = str(attributes.get("autoglm.model", ""))
            yield Trace(span, held, float(weight) if usable else 1.0, model)
