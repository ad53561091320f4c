"""What Prometheus gets, read back by Prometheus's own parsers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from autoglm.serve.cache import Cache
from autoglm.serve.telemetry import Telemetry, TelemetryOptions, exposition
from autoglm.serve.telemetry.metrics import watch_batchers, watch_cache
from autoglm.serve.telemetry.record import STAGES, Record

OPEN = "application/openmetrics-text; version=1.0.0"


def finished(
    took_ns: int, code: str = "ok", model: str = "m", version: str = "1", parent: str = ""
) -> Record:
    marks: list[Any] = [(s, 1000 + i * took_ns // 5) for i, s in enumerate(STAGES)]
    record = Record(model, "http", "a", parent, marks)
    record.version, record.code, record.end = version, code, 1000 + took_ns
    return record


def fed(*records: Record, **options: Any) -> Telemetry:
    telemetry = Telemetry(TelemetryOptions(**{"sample": 0.0, **options}))
    telemetry._pending.extend(records)
    return telemetry


def read(telemetry: Telemetry, accept: str = OPEN) -> dict[str, Any]:
    status, headers, body = exposition(telemetry, accept)
    assert status == 200
    if "openmetrics" in headers["content-type"]:
        from prometheus_client.openmetrics.parser import text_string_to_metric_families
    else:
        from prometheus_client.parser import text_string_to_metric_families
    return {f.name: f.samples for f in text_string_to_metric_families(body.decode())}


@pytest.mark.parametrize("accept", ["", OPEN])
def test_requests_are_counted_by_model_transport_and_code(accept: str) -> None:
    found = read(fed(finished(10**6), finished(10**6), finished(10**6, "overloaded")), accept)

    counts = {
        s.labels["code"]: s.value for s in found["autoglm_requests"] if s.name.endswith("_total")
    }
    assert counts == {"ok": 2, "overloaded": 1}


def test_latency_is_a_histogram_of_every_stage() -> None:
    found = read(fed(finished(10**6), finished(10**9)))

    whole = {s.labels.get("le"): s.value for s in found["autoglm_request_seconds"]}
    assert (whole["0.001"], whole["0.5"], whole["1.0"], whole["+Inf"]) == (1, 1, 2, 2)
    sums = [s.value for s in found["autoglm_request_seconds"] if s.name.endswith("_sum")]
    assert sums == [pytest.approx(1.001)]
    stages = {s.labels["stage"] for s in found["autoglm_stage_seconds"]}
    assert stages == set(STAGES)


def test_an_exemplar_leads_to_a_slow_requests_trace() -> None:
    slow = finished(10**9)
    found = read(fed(finished(10**6), slow, slow_s=0.5))

    exemplars = [s.exemplar for s in found["autoglm_request_seconds"] if s.exemplar]
    assert [e.labels["trace_id"] for e in exemplars] == [slow.context.trace_id]


def test_names_that_clients_invent_make_no_labels() -> None:
    invented = [finished(1, "model-not-served", f"x{i}", "") for i in range(1000)]
    found = read(fed(finished(10**6), *invented))

    assert {s.labels["model"] for s in found["autoglm_requests"]} == {"m", ""}


@dataclass
class Stats:
    batches: int = 2
    rows: int = 6
    padded_rows: int = 2
    refused: int = 1
    dropped: int = 0
    run_s: float = 0.5


@dataclass
class Queue:
    queued_rows: int = 3
    stats: Stats = field(default_factory=Stats)


def test_engines_of_one_version_are_one_series() -> None:
    telemetry = fed()
    queues = [("m", "1", Queue()), ("m", "1", Queue()), ("n", "2", Queue())]
    watch_batchers(telemetry, lambda: queues)  # type: ignore[arg-type,return-value]
    found = read(telemetry)

    assert [s.value for s in found["autoglm_queue_rows"]] == [6, 3]
    totals = [s.value for s in found["autoglm_batch_padded_rows"] if s.name.endswith("_total")]
    assert totals == [4, 2]


def test_the_cache_says_how_often_it_helped() -> None:
    telemetry, cache = fed(), Cache()
    cache.stats.hits, cache.stats.misses = 3, 1
    watch_cache(telemetry, cache)
    found = read(telemetry)

    how = {s.labels["how"]: s.value for s in found["autoglm_cache_questions"]}
    assert how == {"hit": 3, "shared_hit": 0, "joined": 0, "miss": 1}
    assert cache.stats.hit_rate == 0.75


def test_a_fold_in_the_middle_loses_nothing() -> None:
    telemetry = fed()
    for number in range(1000):
        telemetry._pending.append(finished(10**6 + number))
        if number % 7 == 0:
            telemetry.fold()
    found = read(telemetry)

    (count,) = [s.value for s in found["autoglm_request_seconds"] if s.name.endswith("_count")]
    assert count == 1000
