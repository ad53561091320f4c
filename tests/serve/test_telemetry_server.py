"""A real server's traces, from HTTP requests to the ranking."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from models import Builder
from served_bundles import bundle

from autoglm import api
from autoglm.diagnose.hotspots import critical_path, hotspots, read_traces
from autoglm.serve.cache import CacheOptions
from autoglm.serve.guard import GuardOptions
from autoglm.serve.guard.keys import add_key
from autoglm.serve.http import envelope, oip
from autoglm.serve.http.numbers import parse
from autoglm.serve.server import ServeOptions, Server
from autoglm.serve.telemetry import STAGES, TelemetryOptions

PARENT = "00-0af7651916cd43dd8448eb211c80319c-{number:016x}-01"


def play(story: Callable[[], Awaitable[Any]]) -> Any:
    return asyncio.run(asyncio.wait_for(story(), 120))


def server(folder: Path, **options: Any) -> Server:
    bundle(folder / "models" / "double" / "1", 2.0)
    return Server(ServeOptions([str(folder / "models")], {"http": "127.0.0.1:0"}, **options))


async def ask(http: httpx.AsyncClient, number: int, **headers: str) -> httpx.Response:
    body = {"model_name": "double", "data": [[float(number), 1, 2, 3]]}
    return await http.post("/v1/infer", json=body, headers=headers)


def test_traces_of_real_requests_are_ranked(tmp_path: Path) -> None:
    path = tmp_path / "traces.json"

    async def story() -> None:
        options = TelemetryOptions(path, sample=1.0, most_per_s=1e6)
        async with (
            server(tmp_path, telemetry=options) as running,
            httpx.AsyncClient(base_url=running.urls["http"]) as http,
        ):
            for number in range(40):
                parent = PARENT.format(number=number + 1)
                assert (await ask(http, number, traceparent=parent)).status_code == 200
            batcher = next(iter(running.pool.batchers()))[2]
            plain = batcher.run

            def slow(feeds: Any) -> Any:
                time.sleep(0.2)
                return plain(feeds)

            batcher.run = slow
            assert (await ask(http, 99)).status_code == 200

    play(story)

    traces, skipped = read_traces(path)
    (report,) = hotspots(traces)
    assert (len(traces), skipped) == (41, 0)
    assert {t.root.parent for t in traces} == {"", *(f"{n + 1:016x}" for n in range(40))}
    assert report.spots[0].name == "device"
    assert report.spots[0].excess_s > 0.19
    assert report.spots[0].switch == "cache"
    for trace in traces:
        path_length = sum(length for _, length in critical_path(trace))
        assert path_length == trace.root.end - trace.root.begin
        assert {n for n, _ in critical_path(trace)} <= {*STAGES, "infer double"}


def test_the_advice_taken_the_figure_falls(tmp_path: Path) -> None:
    async def story() -> None:
        async with (
            server(tmp_path, cache=CacheOptions()) as running,
            httpx.AsyncClient(base_url=running.urls["http"]) as http,
        ):
            answers = [(await ask(http, 1)).json()["result"] for _ in range(10)]
            metrics = (await http.get("/metrics")).text

        assert all(a == answers[0] for a in answers)
        np.testing.assert_allclose(answers[0], [[2, 2, 4, 6]])
        assert 'autoglm_cache_questions_total{how="hit"} 9.0' in metrics
        assert 'autoglm_batches_total{model="double",version="1"} 1.0' in metrics

    play(story)


def test_refusals_are_counted_by_their_code(tmp_path: Path) -> None:
    _, key = add_key(tmp_path / "keys.json", "alice", models=("other",))
    _, scraper = add_key(tmp_path / "keys.json", "prometheus")

    async def story() -> None:
        guard = GuardOptions(keys=tmp_path / "keys.json")
        async with (
            server(tmp_path, guard=guard) as running,
            httpx.AsyncClient(base_url=running.urls["http"]) as http,
        ):
            nobody = await ask(http, 1)
            stranger = await ask(http, 1, authorization=f"Bearer {key}")
            metrics = await http.get("/metrics", headers={"authorization": f"Bearer {scraper}"})

        assert (nobody.status_code, stranger.status_code) == (401, 403)
        assert 'code="forbidden"' in metrics.text
        assert key not in metrics.text

    play(story)


def test_a_bad_traceparent_harms_nobody(tmp_path: Path) -> None:
    lines = ["", "garbage", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "ä", "0" * 4000]

    async def story() -> None:
        options = TelemetryOptions(tmp_path / "t", sample=1.0)
        async with (
            server(tmp_path, telemetry=options) as running,
            httpx.AsyncClient(base_url=running.urls["http"]) as http,
        ):
            got = [
                await http.post(
                    "/v1/infer",
                    json={"model_name": "double", "data": [[1, 2, 3, 4]]},
                    headers=[(b"traceparent", line.encode())],
                )
                for line in lines
            ]

        assert [r.status_code for r in got] == [200] * len(lines)

    play(story)
    traces, _ = read_traces(tmp_path / "t")
    assert [t.root.parent for t in traces] == [""] * len(lines)


def test_the_partitions_of_a_slow_request_are_spans_of_its_own(tmp_path: Path) -> None:
    build = Builder()
    x = build.input("x", ["n", 4])
    y = build.op("Abs", build.op("Exp", x, name="first"), name="second")
    onnx.save(build.proto(y), tmp_path / "model.onnx")
    pins = {"first": "numpy", "second": "reference"}
    place = tmp_path / "models" / "double" / "1"
    api.compile(tmp_path / "model.onnx", place, backend="numpy", pins=pins)
    path = tmp_path / "traces.json"

    async def story() -> None:
        options = ServeOptions(
            [str(tmp_path / "models")],
            {"http": "127.0.0.1:0"},
            telemetry=TelemetryOptions(path, sample=1.0),
        )
        async with (
            Server(options) as running,
            httpx.AsyncClient(base_url=running.urls["http"]) as http,
        ):
            for number in range(3):
                assert (await ask(http, number)).status_code == 200

    play(story)

    traces, _ = read_traces(path)
    assert len(traces) == 3
    for trace in traces:
        (device,) = [s for s in trace.children[trace.root.id] if s.name == "device"]
        parts = sorted(trace.children[device.id], key=lambda s: s.begin)
        assert [p.name for p in parts] == ["p0 numpy", "p1 reference"]
        assert device.begin <= parts[0].begin <= parts[1].end <= device.end


def test_reading_a_body_of_json_is_part_of_the_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(body: bytes) -> Any:
        time.sleep(0.2)
        return parse(body)

    for module in (envelope, oip):
        monkeypatch.setattr(module, "parse", slow)
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}

    async def story() -> None:
        async with (
            server(tmp_path) as running,
            httpx.AsyncClient(base_url=running.urls["http"]) as http,
        ):
            assert (await ask(http, 1)).status_code == 200
            answer = await http.post("/v2/models/double/infer", json={"inputs": [tensor]})
            assert answer.status_code == 200
            running.telemetry.fold()
            for record in running.telemetry.recent:
                stage, begin, end = record.stages()[0]
                assert (stage, end - begin > 150_000_000) == ("entry", True)
            assert len(running.telemetry.recent) == 2

    play(story)
