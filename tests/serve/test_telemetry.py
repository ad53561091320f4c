"""Stages that add up, spans that OpenTelemetry reads, and only where somebody wants them."""

from __future__ import annotations

import base64
import http.server
import io
import json
import logging
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.errors import ConfigError, OverloadedError
from autoglm.serve.core import Client, Credentials, Request
from autoglm.serve.telemetry import (
    STAGES,
    Record,
    Telemetry,
    TelemetryOptions,
    configure_logs,
    parse_traceparent,
)
from autoglm.serve.telemetry.logs import redact
from autoglm.serve.telemetry.otlp import export_request
from autoglm.serve.telemetry.sinks import Writer

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
BEGIN = 1_000_000_000


def asked(parent: str = "") -> Request:
    client = Client("alice", Credentials("http"))
    return Request("m", {}, client=client, traceparent=parent)


def finished(took_ns: int = 1_000_000, parent: str = "", code: str = "ok") -> Record:
    """A request whose stages took a fifth each."""
    marks: list[Any] = [(s, BEGIN + i * took_ns // 5) for i, s in enumerate(STAGES)]
    record = Record("m", "http", "alice", parent, marks)
    record.version, record.code, record.end = "1", code, BEGIN + took_ns
    return record


def spans(line: str | bytes) -> list[dict[str, Any]]:
    (resource,) = json.loads(line)["resourceSpans"]
    (scope,) = resource["scopeSpans"]
    return list(scope["spans"])


def test_stages_follow_each_other_and_are_the_whole_time() -> None:
    telemetry = Telemetry()
    record = telemetry.start(asked())
    for stage in STAGES[1:]:
        record.mark(stage)
    telemetry.finish(record)

    stages = record.stages()
    assert [s[0] for s in stages] == list(STAGES)
    assert sum(end - begin for _, begin, end in stages) == record.end - record.begin


def test_a_retry_shows_its_stages_twice() -> None:
    record = Record("m", "http", "a", "", [("entry", 0), ("device", 10), ("queue", 20)])
    record.marks += [("device", 30), ("Conv_1", 12, 15)]
    record.end = 40

    assert record.stages() == [
        ("entry", 0, 10),
        ("device", 10, 20),
        ("queue", 20, 30),
        ("device", 30, 40),
    ]
    assert record.operators() == [("Conv_1", 12, 15)]


def test_a_transport_may_have_begun_before_the_gateway() -> None:
    request = asked()
    request.marks = [("entry", 5)]

    record = Telemetry().start(request)

    assert record.begin == 5
    assert record.marks is request.marks


@given(st.text(max_size=80) | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}.*"))
def test_trace_context_is_read_as_opentelemetry_reads_it(line: str) -> None:
    from opentelemetry.trace import get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    ours = parse_traceparent(line)
    found = TraceContextTextMapPropagator().extract({"traceparent": line})
    theirs = get_current_span(found).get_span_context()

    if ours is not None:
        assert theirs.is_valid
        assert f"{theirs.trace_id:032x}" == ours.trace_id
        assert f"{theirs.span_id:016x}" == ours.span_id
        assert bool(theirs.trace_flags & 1) == ours.sampled


@pytest.mark.parametrize(
    "line",
    [
        PARENT.replace("00-", "ff-"),
        PARENT.upper(),
        PARENT + "-x",
        "00-" + "0" * 32 + "-b7ad6b7169203331-01",
        PARENT[:36] + "0" * 16 + "-01",
        "",
        "x" * 10_000,
    ],
)
def test_a_line_that_is_invalid_is_ignored(line: str) -> None:
    assert parse_traceparent(line) is None
    assert Record("m", "http", "a", line, []).context.trace_id


def test_a_line_of_a_later_version_is_read_as_far_as_known() -> None:
    found = parse_traceparent("01" + PARENT[2:] + "-more")

    assert found is not None
    assert found.line() == PARENT


def test_our_spans_join_the_callers_trace() -> None:
    record = finished(parent=PARENT)
    root = spans(json.dumps(export(record)))[0]

    assert root["traceId"] == "0af7651916cd43dd8448eb211c80319c"
    assert root["parentSpanId"] == "b7ad6b7169203331"
    assert record.context.line().split("-")[1] == root["traceId"]
    assert record.context.line().split("-")[2] == root["spanId"]


def export(record: Record) -> dict[str, Any]:
    resource = {"service.name": "autoglm"}
    return export_request(record, offset_ns=7, weight=100.0, resource=resource)


def test_what_is_exported_is_otlp() -> None:
    from google.protobuf.json_format import ParseDict
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    record = finished(parent=PARENT, code="overloaded")
    record.marks.append(("Conv_1", BEGIN + 650_000, BEGIN + 700_000))
    made = export(record)
    for span in made["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        # OTLP/JSON writes ids in hexadecimal, where plain Protobuf JSON has base64.
        for field in [f for f in ("traceId", "spanId", "parentSpanId") if f in span]:
            span[field] = base64.b64encode(bytes.fromhex(span[field])).decode()
    parsed = ParseDict(made, ExportTraceServiceRequest())  # refuses a field it does not know

    found = parsed.resource_spans[0].scope_spans[0].spans
    root, device = found[0], next(s for s in found if s.name == "device")
    operator = next(s for s in found if s.name == "Conv_1")
    assert root.end_time_unix_nano - root.start_time_unix_nano == 1_000_000
    assert root.status.code == 2
    assert root.kind == 2
    assert operator.parent_span_id == device.span_id
    assert {s.name for s in found} == {"infer m", "Conv_1", *STAGES}


def feed(telemetry: Telemetry, records: list[Record]) -> None:
    telemetry._pending.extend(records)
    telemetry.fold()


def test_slow_requests_get_spans_and_ordinary_ones_none(tmp_path: Path) -> None:
    telemetry = Telemetry(TelemetryOptions(traces=tmp_path / "traces.json", sample=0.0))
    feed(telemetry, [finished(1_000_000 + i) for i in range(200)])
    feed(telemetry, [finished(1_000_000), finished(50_000_000)])
    telemetry.close()

    (line,) = (tmp_path / "traces.json").read_text().splitlines()
    root = spans(line)[0]
    assert int(root["endTimeUnixNano"]) - int(root["startTimeUnixNano"]) == 50_000_000
    assert [r.seconds for r in telemetry.slow] == [0.05]


def test_failed_requests_and_those_the_caller_sampled_get_spans(tmp_path: Path) -> None:
    telemetry = Telemetry(TelemetryOptions(traces=tmp_path / "traces.json", sample=0.0))
    feed(telemetry, [finished(), finished(parent=PARENT), finished(code="overloaded")])
    telemetry.close()

    assert len((tmp_path / "traces.json").read_text().splitlines()) == 2


def test_sampled_traces_say_how_many_requests_they_stand_for(tmp_path: Path) -> None:
    options = TelemetryOptions(traces=tmp_path / "t", sample=0.5, most_per_s=1000)
    telemetry = Telemetry(options)
    feed(telemetry, [finished() for _ in range(400)])
    telemetry.close()

    lines = (tmp_path / "t").read_text().splitlines()
    weights = [
        a["value"]["doubleValue"]
        for line in lines
        for a in spans(line)[0]["attributes"]
        if a["key"] == "autoglm.weight"
    ]
    assert set(weights) == {2.0}
    assert 100 < len(lines) < 300


def test_nobody_can_fill_the_disk_by_asking_for_traces(tmp_path: Path) -> None:
    telemetry = Telemetry(TelemetryOptions(traces=tmp_path / "t", sample=0.0, most_per_s=10))
    feed(telemetry, [finished(parent=PARENT) for _ in range(500)])
    telemetry.close()

    assert len((tmp_path / "t").read_text().splitlines()) <= 11
    assert telemetry.writer.dropped >= 489


def test_the_file_of_traces_is_bounded(tmp_path: Path) -> None:
    options = TelemetryOptions(
        traces=tmp_path / "t", sample=1.0, most_per_s=10_000, max_bytes=20_000
    )
    telemetry = Telemetry(options)
    feed(telemetry, [finished() for _ in range(100)])
    telemetry.close()

    sizes = {p.name: p.stat().st_size for p in tmp_path.iterdir()}
    assert set(sizes) == {"t", "t.1"}
    assert max(sizes.values()) <= 20_000
    assert all(spans(line) for line in (tmp_path / "t").read_text().splitlines())


def test_a_full_disk_costs_traces_not_requests(caplog: pytest.LogCaptureFixture) -> None:
    telemetry = Telemetry(TelemetryOptions(traces=Path("/dev/full"), sample=1.0))
    with caplog.at_level(logging.WARNING):
        feed(telemetry, [finished() for _ in range(20)])
        telemetry.close()

    assert telemetry.writer.dropped == 20
    assert len([r for r in caplog.records if "cannot be written" in r.getMessage()]) == 1


@pytest.fixture
def collector() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """A real HTTP server that takes what OTLP exporters post."""
    got: list[tuple[str, bytes]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.path, body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", got
    server.shutdown()
    server.server_close()


def test_a_collector_gets_the_same(collector: tuple[str, list[tuple[str, bytes]]]) -> None:
    url, got = collector
    telemetry = Telemetry(TelemetryOptions(otlp=url, sample=1.0))
    feed(telemetry, [finished()])
    telemetry.close()

    ((path, body),) = got
    assert path == "/v1/traces"
    assert spans(body)[0]["name"] == "infer m"


def test_a_port_that_speaks_another_protocol_costs_its_traces_only(tmp_path: Path) -> None:
    settings_frame = bytes.fromhex("000000040000000000")  # what a gRPC port says first

    class Other(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1 << 16)
            self.request.sendall(settings_frame)

    with socketserver.TCPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        path = tmp_path / "traces.json"
        telemetry = Telemetry(TelemetryOptions(path, url, sample=1.0))
        feed(telemetry, [finished(), finished(), finished()])
        telemetry.close()
        server.shutdown()

    assert len(path.read_bytes().splitlines()) == 3


def test_a_trace_that_cannot_be_made_costs_itself_only() -> None:
    lines: list[bytes] = []
    writer = Writer([lines.append])

    writer.put(dict)
    writer.put(lambda: {}["no such key"])
    writer.put(dict)
    writer.close()

    assert (lines, writer.written, writer.dropped) == ([b"{}\n", b"{}\n"], 2, 1)


def test_a_sink_that_hangs_with_a_full_queue_does_not_hold_up_the_end() -> None:
    hanging, begun = threading.Event(), threading.Event()

    def hang(line: bytes) -> None:
        begun.set()
        hanging.wait(60)

    writer = Writer([hang])
    writer.put(dict)
    assert begun.wait(10)
    while not writer.dropped:
        writer.put(dict)
    closing = threading.Thread(target=writer.close, args=(0.1,), daemon=True)
    closing.start()
    closing.join(10)

    assert not closing.is_alive()
    hanging.set()


def test_an_endpoint_that_is_no_url_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigError):
        Telemetry(TelemetryOptions(otlp="file:///etc/passwd"))


def test_memory_is_bounded() -> None:
    telemetry = Telemetry(TelemetryOptions(slow_s=1e-9))
    for _ in range(30):
        feed(telemetry, [finished() for _ in range(100)])

    assert len(telemetry.recent) == 1024
    assert len(telemetry.slow) == 50


def test_log_lines_are_json_without_secrets() -> None:
    stream = io.StringIO()
    log = logging.getLogger("autoglm")
    before = (log.handlers[:], log.level, log.propagate)
    configure_logs(stream=stream)
    try:
        secret = "agk_0011_s3cr3t-_x"
        log.warning("refused %s", f"Bearer {secret}", extra={"client": f"x {secret}", "rows": 3})
        try:
            raise OverloadedError("{text}", text=f"redis://u:{secret}@h")
        except OverloadedError:
            log.exception("failed")
    finally:
        log.handlers[:], log.level, log.propagate = before

    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["level"], first["rows"]) == ("warning", 3)
    assert "OverloadedError" in second["exception"]
    assert "s3cr3t" not in stream.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer abc.SECRET",
        "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJTRUNSRVQifQ.SECRET",
        "redis://:SECRET@host:6379",
        "password=SECRET&x=1",
        "agk_00ff_SECRET",
    ],
)
def test_secrets_are_blanked_out(text: str) -> None:
    assert "SECRET" not in redact(text)


def test_a_failure_of_the_server_is_one_log_line_with_its_trace() -> None:
    stream = io.StringIO()
    log = logging.getLogger("autoglm")
    before = (log.handlers[:], log.level, log.propagate)
    configure_logs(stream=stream)
    try:
        failed = finished(code="execution", parent=PARENT)
        feed(Telemetry(TelemetryOptions(most_per_s=5)), [failed] * 100 + [finished(code="input")])
    finally:
        log.handlers[:], log.level, log.propagate = before

    rows = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert 1 <= len(rows) <= 5
    assert rows[0]["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert (rows[0]["code"], rows[0]["level"]) == ("execution", "error")
