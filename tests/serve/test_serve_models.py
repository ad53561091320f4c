"""Which model answers a JSON request, and which models a client learns of: over REST and gRPC."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import onnx
from grpc_health.v1 import health_pb2, health_pb2_grpc
from onnx import TensorProto, helper
from served_bundles import bundle

import autoglm
from autoglm.errors import DrainingError, ModelNotServedError
from autoglm.serve.core import Request
from autoglm.serve.gateway import routed
from autoglm.serve.guard import GuardOptions
from autoglm.serve.guard.keys import add_key
from autoglm.serve.pool import Pool, repository
from autoglm.serve.routes import Route
from autoglm.serve.routes.table import Limits
from autoglm.serve.server import ServeOptions, Server

ROW = [[1.0, 2, 3, 4]]
Scene = Callable[[Server, httpx.AsyncClient], Awaitable[None]]


def play(options: ServeOptions, scene: Scene) -> None:
    async def whole() -> None:
        async with (
            asyncio.timeout(60),
            Server(options) as server,
            httpx.AsyncClient(base_url=server.urls["http"]) as http,
        ):
            await scene(server, http)

    asyncio.run(whole())


def options(folder: Path, **said: Any) -> ServeOptions:
    return ServeOptions([str(folder)], {"http": "127.0.0.1:0"}, **said)


def asked(model: str, data: Any = ROW, **said: Any) -> dict[str, Any]:
    return {"model_name": model, "data": data, **said}


def counting_bundle(folder: Path) -> None:
    """`out = count + count`, of int64 and another input's name."""
    folder.mkdir(parents=True)
    graph = helper.make_graph(
        [helper.make_node("Add", ["count", "count"], ["out"])],
        "g",
        [helper.make_tensor_value_info("count", TensorProto.INT64, ["n", 4])],
        [helper.make_tensor_value_info("out", TensorProto.INT64, ["n", 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "m.onnx")
    autoglm.compile(folder / "m.onnx", folder / "1", backend="numpy")
    (folder / "m.onnx").unlink()


def test_a_model_that_does_not_fit_is_loaded_for_a_json_request(tmp_path: Path) -> None:
    for name in "ab":
        bundle(tmp_path / f"r/{name}", 2.0, weights=30_000)

    async def scene(server: Server, http: httpx.AsyncClient) -> None:
        for _ in range(2):  # the second time both were evicted once
            for name in "ab":
                reply = await http.post("/v1/infer", json=asked(name))
                assert (reply.status_code, reply.json()["result"]) == (200, [[2.0, 4, 6, 8]])
        assert server.pool.evictions >= 3

    play(options(tmp_path / "r", memory_bytes=150_000), scene)


def test_json_is_read_as_the_model_that_its_route_names(tmp_path: Path) -> None:
    bundle(tmp_path / "r/real", 2.0)
    counting_bundle(tmp_path / "r/counts")
    rules = [
        {"name": "a", "match": {"models": ["nowhere"]}, "model": "counts"},
        {"name": "b", "match": {"models": ["real"]}, "model": "counts"},
    ]
    table = tmp_path / "table.json"
    table.write_text(json.dumps({"rules": rules}))

    async def scene(server: Server, http: httpx.AsyncClient) -> None:
        for name in ("nowhere", "real"):
            for data in ([[1, 2, 3, 4]], {"count": [[1, 2, 3, 4]]}):
                reply = await http.post("/v1/infer", json=asked(name, data))
                assert reply.status_code == 200, reply.text
                told = reply.json()
                assert (told["model_name"], told["result"]) == ("counts", [[2, 4, 6, 8]])

    play(options(tmp_path / "r", routes=table), scene)


def test_a_client_learns_of_its_own_models_only(tmp_path: Path) -> None:
    for name in ("mine", "secret"):
        bundle(tmp_path / f"r/{name}", 2.0)
    keys = tmp_path / "keys.json"
    _, key = add_key(keys, "alice", models=("mine*",))
    said = {"authorization": f"Bearer {key}"}

    async def scene(server: Server, http: httpx.AsyncClient) -> None:
        for path in ("/v1/models", "/openapi.json", "/v2/models/stats", "/v2/models/mine"):
            reply = await http.get(path, headers=said)
            assert reply.status_code == 200, path
            assert "secret" not in reply.text, path
        listed = await http.post("/v2/repository/index", headers=said, json={})
        assert [row["name"] for row in listed.json()] == ["mine"]
        for path in ("", "/ready", "/config", "/stats", "/versions/9"):
            reply = await http.get(f"/v2/models/secret{path}", headers=said)
            assert reply.status_code == 403, path
        assert (await http.get("/metrics", headers=said)).status_code == 403
        unknown = await http.post("/v1/infer", headers=said, json=asked("mine-2"))
        assert unknown.status_code == 404
        assert "secret" not in unknown.text
        # Not even the names of its inputs.
        wrong = await http.post("/v1/infer", headers=said, json=asked("secret", {"nope": 1}))
        assert wrong.status_code == 403

    play(options(tmp_path / "r", guard=GuardOptions(keys=keys)), scene)


def test_health_and_routes_tell_a_client_of_its_own_only(tmp_path: Path) -> None:
    for name in ("mine", "secret"):
        bundle(tmp_path / f"r/{name}", 2.0)
    table = tmp_path / "table.json"
    rules = [{"name": "bob", "match": {"clients": ["bob"]}, "priority": 7}]
    table.write_text(json.dumps({"rules": rules}))
    keys = tmp_path / "keys.json"
    said = {
        name: {"authorization": f"Bearer {add_key(keys, name, models=models, admin=admin)[1]}"}
        for name, models, admin in (("alice", ("mine*",), False), ("ops", (), True))
    }

    async def scene(server: Server, http: httpx.AsyncClient) -> None:
        async def route(who: str, query: str) -> int:
            return (await http.get(f"/v1/route{query}", headers=said.get(who))).status_code

        others = ("?client=bob", "?address=10.0.0.1", "?mqtt=cam", "?header=a:b", "?client=ops")
        assert [await route("alice", q) for q in others] == [403] * 5
        assert [await route("", q) for q in ("", *others)] == [401] * 6
        assert [await route("ops", q) for q in others] == [200] * 5
        own = ("", "?client=alice", "?model=mine", "?client=alice&model=mine-2")
        assert [await route("alice", q) for q in own] == [200] * 4
        assert await route("alice", "?model=secret") == 403
        told = await http.get("/v1/route?client=bob", headers=said["ops"])
        assert told.json()["priority"] == 7

        async with grpc.aio.insecure_channel(server.urls["grpc"].rpartition("//")[2]) as channel:
            check = health_pb2_grpc.HealthStub(channel).Check

            async def health(name: str, who: str) -> object:
                metadata = tuple(said.get(who, {}).items())
                try:
                    ask = health_pb2.HealthCheckRequest(service=name)
                    return (await check(ask, metadata=metadata)).status
                except grpc.aio.AioRpcError as error:
                    return error.code()

            names = ("", "mine", "mine-2", "secret", "nowhere")
            code = grpc.StatusCode
            assert [await health(n, "") for n in names] == [1, *[code.UNAUTHENTICATED] * 4]
            assert [await health(n, "alice") for n in names] == [
                *(1, 1),
                code.NOT_FOUND,
                *[code.PERMISSION_DENIED] * 2,
            ]
            assert [await health(n, "ops") for n in names] == [
                1,
                1,
                code.NOT_FOUND,
                1,
                code.NOT_FOUND,
            ]

    addresses = {"http": "127.0.0.1:0", "grpc": "127.0.0.1:0"}
    guard = GuardOptions(keys=keys)
    play(ServeOptions([str(tmp_path / "r")], addresses, guard=guard, routes=table), scene)


def test_a_rules_limits_hold_for_an_address_whatever_its_port(tmp_path: Path) -> None:
    bundle(tmp_path / "r/m", 2.0)
    table = tmp_path / "table.json"
    table.write_text(
        json.dumps({"rules": [{"name": "all", "limits": {"rate_per_s": 0.01, "max_bytes": 100}}]})
    )

    async def scene(server: Server, http: httpx.AsyncClient) -> None:
        large = await http.post("/v1/infer", json=asked("m", ROW * 50))
        assert large.status_code == 413
        codes = []
        for _ in range(4):
            async with httpx.AsyncClient(base_url=server.urls["http"]) as fresh:
                codes.append((await fresh.post("/v1/infer", json=asked("m"))).status_code)
        assert codes[-1] == 429

    play(options(tmp_path / "r", routes=table), scene)


def test_priority_is_bounded_on_every_wire_and_the_rules_comes_first(tmp_path: Path) -> None:
    bundle(tmp_path / "r/m", 2.0)
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": ROW}
    body = {"inputs": [tensor], "parameters": {"priority": 101}}

    async def scene(server: Server, http: httpx.AsyncClient) -> None:
        for path, sent in (
            ("/v1/infer", asked("m", priority=-101)),
            ("/v2/models/m/infer", body),
        ):
            reply = await http.post(path, json=sent)
            assert reply.status_code == 400
            assert "priority" in reply.text

    play(options(tmp_path / "r"), scene)
    rule = Route("grpc", "m", "", -5, Limits(), "")
    assert routed(Request("m", {}, priority=100), rule).priority == -5


def test_two_loads_at_once_become_two_versions(tmp_path: Path) -> None:
    for path in ("m", "new/a", "new/b"):
        bundle(tmp_path / "r" / path, 2.0)

    async def work() -> None:
        pool = Pool(repository([str(tmp_path / "r")]))
        await pool.start()
        made = await asyncio.gather(*(pool.load("m", f"new/{n}") for n in "ab"))
        assert {i.version for i in made} == {"2", "3"}
        await pool.close()

    asyncio.run(work())


def test_what_was_unloaded_meanwhile_does_not_come_back(tmp_path: Path) -> None:
    for name in "ab":
        bundle(tmp_path / f"r/{name}", 1.0, weights=30_000)

    async def work() -> None:
        pool = Pool(repository([str(tmp_path / "r")]), memory_bytes=150_000)
        await pool.start()
        waiting = next(i.name for i in pool.models() if i.state == "unloaded")
        unloading = asyncio.create_task(pool.unload(waiting))
        asking = asyncio.create_task(pool.acquire(waiting))
        _, answer = await asyncio.gather(unloading, asking, return_exceptions=True)
        assert isinstance(answer, ModelNotServedError | DrainingError)
        assert pool.model(waiting).state == "unloaded"
        await pool.close()

    asyncio.run(work())
