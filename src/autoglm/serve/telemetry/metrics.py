"""The counters as Prometheus reads them; exemplars where the reader speaks OpenMetrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from autoglm.serve.telemetry.totals import BOUNDS, Histogram

if TYPE_CHECKING:
    from autoglm.serve.batch import Batcher
    from autoglm.serve.cache import Cache
    from autoglm.serve.telemetry.telemetry import Reading, Telemetry

Batchers = Callable[[], Iterable[tuple[str, str, "Batcher"]]]


def exposition(telemetry: Telemetry, accept: str = "") -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of GET /metrics; `accept` is the request's header."""
    from prometheus_client.exposition import choose_encoder

    telemetry.fold()
    encode, content_type = choose_encoder(accept)
    return 200, {"content-type": content_type}, encode(_Collector(telemetry))


def watch_batchers(telemetry: Telemetry, batchers: Batchers) -> None:
    """Show queues, batches and padding; `batchers` gives (model, version, batcher) of each."""

    def read(figure: Callable[[Batcher], float]) -> Callable[[], Reading]:
        def reading() -> Reading:
            # Engines of one version are one series.
            sums: dict[tuple[str, str], float] = {}
            for model, version, batcher in batchers():
                key = (model, version)
                sums[key] = sums.get(key, 0.0) + figure(batcher)
            return [({"model": m, "version": v}, value) for (m, v), value in sums.items()]

        return reading

    for name, kind, text, figure in _BATCHER_FIGURES:
        telemetry.watch(name, kind, text, read(figure))


_BATCHER_FIGURES: tuple[tuple[str, str, str, Callable[[Any], float]], ...] = (
    ("autoglm_queue_rows", "gauge", "Rows that wait.", lambda b: b.queued_rows),
    ("autoglm_batches", "counter", "Runs of the engine.", lambda b: b.stats.batches),
    ("autoglm_batch_rows", "counter", "Rows in these runs.", lambda b: b.stats.rows),
    ("autoglm_batch_padded_rows", "counter", "Rows of padding.", lambda b: b.stats.padded_rows),
    ("autoglm_refused", "counter", "Refused, the queue was full.", lambda b: b.stats.refused),
    ("autoglm_dropped", "counter", "Dropped before they ran.", lambda b: b.stats.dropped),
    ("autoglm_engine_seconds", "counter", "Time in the engine.", lambda b: b.stats.run_s),
)


def watch_cache(telemetry: Telemetry, cache: Cache) -> None:
    """Show hits and misses, and what the cache holds."""

    def questions() -> Reading:
        stats = cache.stats
        how = {"hit": stats.hits, "shared_hit": stats.shared_hits, "joined": stats.joined}
        return [({"how": name}, n) for name, n in {**how, "miss": stats.misses}.items()]

    telemetry.watch("autoglm_cache_questions", "counter", "How they were answered.", questions)
    telemetry.watch(
        "autoglm_cache_bytes", "gauge", "Held in memory.", lambda: [({}, cache.memory.nbytes)]
    )


class _Collector:
    """What prometheus_client encodes: it asks a registry for `collect()`."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        totals, writer = self._telemetry.totals, self._telemetry.writer
        labels = ("model", "version", "transport", "code")
        requests = CounterMetricFamily("autoglm_requests", "Answered.", labels=labels)
        for key, count in totals.requests.items():
            requests.add_metric(key, count)
        yield requests
        names: tuple[str, ...] = ("model", "version")
        latency = {key: series.latency for key, series in totals.series.items()}
        yield _histograms("autoglm_request_seconds", "Whole time.", names, latency)
        names = (*names, "stage")
        stages = {(*k, n): h for k, s in totals.series.items() for n, h in s.stages.items()}
        yield _histograms("autoglm_stage_seconds", "Time in a stage.", names, stages)
        traces = CounterMetricFamily("autoglm_traces", "Exported traces.", labels=("fate",))
        traces.add_metric(("written",), writer.written)
        traces.add_metric(("dropped",), writer.dropped)
        yield traces
        for watched in self._telemetry.watched:
            readings = list(watched.read())
            keys = tuple(readings[0][0]) if readings else ()
            family = GaugeMetricFamily if watched.kind == "gauge" else CounterMetricFamily
            metric = family(watched.name, watched.help, labels=keys)
            for values, value in readings:
                metric.add_metric(tuple(values.values()), value)
            yield metric


def _histograms(name: str, text: str, labels: tuple[str, ...], held: dict[Any, Histogram]) -> Any:
    from prometheus_client.core import HistogramMetricFamily

    family = HistogramMetricFamily(name, text, labels=labels)
    for key, histogram in held.items():
        family.add_metric(key, _buckets(histogram), histogram.total)
    return family


def _buckets(histogram: Histogram) -> list[Any]:
    from prometheus_client.samples import Exemplar

    bounds = [*map(str, BOUNDS), "+Inf"]
    rows: list[Any] = []
    for place, count in enumerate(accumulate(histogram.counts)):
        found = histogram.exemplars.get(place)
        exemplar = Exemplar({"trace_id": found[0]}, found[1]) if found else None
        rows.append((bounds[place], count, exemplar))
    return rows
