"""Which model answers a JSON request, and which models a client learns of: over REST and gRPC."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import onnx
from onnx import TensorProto, helper
from served_bundles import bundle

import autoglm
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
