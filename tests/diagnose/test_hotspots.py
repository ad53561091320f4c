"""Planted causes are found, and what costs nobody anything is not blamed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.cli.app import invoke
from autoglm.diagnose.hotspots import (
    SWITCHES,
    Span,
    Trace,
    critical_path,
    hotspots,
    read_traces,
    traces_of,
)
from autoglm.errors import FileMissingError
from autoglm.serve.core import Request
from autoglm.serve.telemetry import STAGES, Telemetry, TelemetryOptions

MS = 1_000_000


def trace(
    *spans: tuple[str, str, int, int], weight: float = 1.0, model: str = "m", at: int = 0
) -> Trace:
    """Spans as (name, parent's name, begin, end); the first is the root."""
    made = [Span(n, p, n, at + b, at + e) for n, p, b, e in spans]
    children: dict[str, tuple[Span, ...]] = {}
    for span in made[1:]:
        children[span.parent] = (*children.get(span.parent, ()), span)
    return Trace(made[0], children, weight, model)


def served(at: int, weight: float = 1.0, model: str = "m", **took: int) -> Trace:
    """A request of our own stages, each as long as said, else 1 ms."""
    spans, now = [], 0
    for stage in STAGES:
        length = took.get(stage, MS)
        spans.append((stage, "root", now, now + length))
        now += length
    return trace(("root", "", 0, now), *spans, weight=weight, model=model, at=at * 1000 * MS)


def sums(found: Sequence[tuple[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for name, length in found:
        total[name] = total.get(name, 0) + length
    return total


@pytest.mark.parametrize("stage", STAGES)
def test_the_planted_stage_is_first_and_its_switch_is_named(stage: str) -> None:
    traces = [served(i) for i in range(990)] + [served(i, **{stage: 60 * MS}) for i in range(10)]

    (report,) = hotspots(traces)

    spot = report.spots[0]
    assert (spot.name, spot.switch) == (stage, SWITCHES[stage][0])
    assert spot.excess_s == pytest.approx(0.059)
    assert spot.share == pytest.approx(1.0)
    assert report.p50_s == pytest.approx(0.005)
    assert (report.p99_s, report.tail) == (pytest.approx(0.064), 10)


def test_what_is_always_slow_makes_no_tail() -> None:
    usual = [served(i, device=50 * MS) for i in range(980)]
    slow = [served(i, device=50 * MS, queue=20 * MS) for i in range(20)]

    (report,) = hotspots([*usual, *slow])

    assert report.spots[0].name == "queue"
    device = next(s for s in report.spots if s.name == "device")
    assert device.excess_s == pytest.approx(0.0)
    assert report.tail == 10


def test_what_runs_beside_the_path_or_after_the_answer_is_not_blamed() -> None:
    found = trace(
        ("root", "", 0, 100),
        ("short", "root", 10, 40),
        ("long", "root", 10, 90),
        ("audit", "root", 50, 900),
    )

    assert sums(critical_path(found)) == {"root": 20, "long": 80}


def test_a_nested_operator_takes_its_own_share() -> None:
    found = trace(("root", "", 0, 100), ("device", "root", 20, 90), ("Conv", "device", 30, 80))

    assert sums(critical_path(found)) == {"root": 30, "device": 20, "Conv": 50}


def test_a_clock_a_little_off_is_forgiven() -> None:
    found = trace(("root", "", 0, 1000), ("a", "root", -5, 500), ("b", "root", 497, 1004))

    assert sums(critical_path(found)) == {"a": 497, "b": 503}


def test_zero_length_and_outside_spans_change_nothing() -> None:
    found = trace(("root", "", 0, 100), ("zero", "root", 50, 50), ("before", "root", -50, -10))

    assert critical_path(found) == [("root", 100)]


@st.composite
def trees(draw: st.DrawFn) -> Trace:
    spans = [("0", "", 0, draw(st.integers(0, 1000)))]
    for number in range(1, draw(st.integers(1, 12))):
        begin = draw(st.integers(-200, 1200))
        end = begin + draw(st.integers(0, 700))
        parent = str(draw(st.integers(0, number - 1)))
        spans.append((str(number), parent, begin, end))
    return trace(*spans)


@given(trees())
def test_the_path_is_exactly_as_long_as_the_request(found: Trace) -> None:
    path = critical_path(found)

    assert sum(length for _, length in path) == found.root.end - found.root.begin
    assert all(length > 0 for _, length in path)


@given(trees())
def test_a_span_off_the_path_may_go_without_changing_it(found: Trace) -> None:
    path = sums(critical_path(found))
    off = {s.id for group in found.children.values() for s in group} - set(path)
    # Only a whole branch is off the path: what has a child on it is on it too, if for no time.
    leaves = {i for i in off if not found.children.get(i)}
    held = {p: tuple(s for s in g if s.id not in leaves) for p, g in found.children.items()}

    assert sums(critical_path(replace(found, children=held))) == path


def test_a_sampled_trace_stands_for_the_requests_it_was_drawn_from() -> None:
    usual = [served(i, weight=100.0) for i in range(100)]
    slow = [served(i, queue=30 * MS) for i in range(60)]
    slowest = [served(i, queue=90 * MS) for i in range(60)]

    (report,) = hotspots([*usual, *slow, *slowest])

    assert report.requests == 10_120
    assert report.p99_s == pytest.approx(0.034)
    assert (report.p50_s, report.tail) == (pytest.approx(0.005), 102)


def test_a_cold_start_is_a_case_for_preloading() -> None:
    traces = [served(0, device=900 * MS)] + [served(i + 1) for i in range(99)]

    (report,) = hotspots(traces)

    assert (report.spots[0].name, report.spots[0].switch) == ("device", "preload")


def test_each_model_is_judged_by_its_own_requests() -> None:
    large = [served(i, model="large", device=500 * MS) for i in range(100)]
    small = [served(i, model="small") for i in range(97)]
    small += [served(i, model="small", queue=9 * MS) for i in range(3)]

    first, second = hotspots([*large, *small])

    assert (first.model, second.model) == ("large", "small")
    assert first.spots[0].excess_s == 0
    assert second.spots[0].name == "queue"


def test_the_servers_own_file_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "traces.json"
    telemetry = Telemetry(TelemetryOptions(traces=path, sample=1.0, most_per_s=1e9))
    for number in range(300):
        request = Request("m", {})
        record = telemetry.start(request)
        record.begin = 10**9 + number * 10**7
        late = 40 * MS if number in (150, 200, 250, 280) else 0
        begins = [0, MS, 2 * MS + late, 3 * MS + late, 6 * MS + late]
        record.marks[:] = [(s, record.begin + b) for s, b in zip(STAGES, begins, strict=True)]
        record.marks.append(("Gemm_3", record.begin + 4 * MS + late, record.begin + 5 * MS + late))
        record.end = record.begin + 7 * MS + late
        record.version, record.code = "1", "ok"
        telemetry._pending.append(record)
    telemetry.close()

    traces, skipped = read_traces(path)
    (report,) = hotspots(traces)

    assert (len(traces), skipped, report.model) == (300, 0, "m")
    assert report.p50_s == pytest.approx(0.007)
    assert report.spots[0].name == "queue"
    assert report.spots[0].excess_s == pytest.approx(0.04)
    operator = next(s for s in report.spots if s.name == "Gemm_3")
    assert operator.body_s == pytest.approx(0.001)


def export(*spans: dict[str, Any]) -> str:
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]})


def raw(number: int, parent: str = "", **changes: Any) -> dict[str, Any]:
    times = {"startTimeUnixNano": "0", "endTimeUnixNano": str(5 * MS)}
    return {"traceId": "t", "spanId": str(number), "parentSpanId": parent, "name": "x"} | {
        **times,
        **changes,
    }


def test_what_is_no_trace_is_counted_not_fatal(tmp_path: Path) -> None:
    path = tmp_path / "traces.json"
    bad = [raw(2, endTimeUnixNano="-1"), raw(3, startTimeUnixNano="x"), {"name": "y"}, raw(4, "4")]
    lines = [
        export(raw(1), *bad),
        "[" * 50_000,
        "",
        "null",
        '{"resourceSpans": 3}',
        export(raw(1))[:-9],
    ]
    path.write_text("\n".join(lines))

    traces, skipped = read_traces(path)

    assert [t.root.id for t in traces] == ["1"]
    assert skipped == 5


def test_two_roots_of_one_trace_are_two_requests() -> None:
    traces, _ = traces_of([json.loads(export(raw(1), raw(2, "elsewhere")))])

    assert sorted(t.root.id for t in traces) == ["1", "2"]


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "resourceSpans",
                        "scopeSpans",
                        "spans",
                        "spanId",
                        "traceId",
                        "name",
                        "startTimeUnixNano",
                        "endTimeUnixNano",
                        "attributes",
                        "key",
                        "value",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=20,
    )
)
def test_any_json_is_read_without_a_traceback(row: Any) -> None:
    traces, _ = traces_of([row])

    hotspots(traces)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileMissingError):
        read_traces(tmp_path / "none.json")


def test_the_command_ranks_and_names_the_switch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "traces.json"
    lines = []
    for number in range(200):
        late = 80 * MS if number > 195 else 0
        times = {"startTimeUnixNano": str(MS), "endTimeUnixNano": str(4 * MS + late)}
        root = {**raw(1), "endTimeUnixNano": str(5 * MS + late)}
        root["attributes"] = [{"key": "autoglm.model", "value": {"stringValue": "bert"}}]
        lines.append(export(root, raw(2, "1", name="queue", **times)).replace('"t"', f'"{number}"'))
    path.write_text("\n".join(lines))

    assert invoke(["hotspots", str(path), "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert report["model"] == "bert"
    assert report["spots"][0]["switch"] == "more engines"
    assert invoke(["hotspots", str(path)]) == 0
    assert "more engines" in capsys.readouterr().out
    assert invoke(["hotspots", str(path), "--model", "other"]) == 65
    assert "bert" in capsys.readouterr().err
