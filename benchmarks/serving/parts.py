"""What the gateway's own parts cost a request, without a network: whole paths, and parts alone.

    python -m benchmarks.serving.parts [--rounds 20000] [--young 700]

Microseconds of this process's CPU per call, the least of five rounds. The paths are what a server
does between a request's bytes and the answer's, beside the least that any server has to do (parse,
run the model, write). A span of OpenTelemetry's SDK is there for comparison: it is what a request
would pay for each of its stages. Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import uvloop

import autoglm
from autoglm.serve.cache import Cache, key_of
from autoglm.serve.core import Client, Credentials, Request, Response
from autoglm.serve.guard import Guard, GuardOptions, Limit
from autoglm.serve.guard.keys import add_key
from autoglm.serve.server import ServeOptions, Server
from autoglm.serve.telemetry import Telemetry
from benchmarks.serving.common import ROW, bundle

CONCURRENCY = (1, 16, 64)
CLIENT = Client("alice", Credentials("http", "127.0.0.1:5"))


def cost_us(call: Callable[[], object], rounds: int) -> float:
    """CPU microseconds of one call, the least of five."""
    call()
    least = float("inf")
    for _ in range(5):
        begin = time.process_time_ns()
        for _ in range(rounds):
            call()
        least = min(least, (time.process_time_ns() - begin) / rounds / 1000)
    return round(least, 3)


Ask = Callable[[], Awaitable[object]]


async def path_costs(rounds: int) -> dict[str, list[float]]:
    """Each path at each concurrency, all in turns: `bare` ones run the model themselves."""
    async with Server(ServeOptions([f"mlp={bundle()}"])) as server:
        with autoglm.open(bundle(), threads=1) as session:
            run = session.run
            asks = {
                "REST": rest(server),
                "REST bare": bare_rest(run),
                "gRPC": rpc(server),
                "gRPC bare": bare_rpc(run),
                "gateway": gateway(server),
            }
            least = {name: [float("inf")] * len(CONCURRENCY) for name in asks}
            for _ in range(5):
                for name, ask in asks.items():
                    for place, tasks in enumerate(CONCURRENCY):
                        cost = await closed_loop_us(ask, tasks, rounds // 5)
                        least[name][place] = min(least[name][place], cost)
    return {name: [round(cost, 1) for cost in costs] for name, costs in least.items()}


async def closed_loop_us(ask: Ask, tasks: int, rounds: int) -> float:
    """CPU microseconds of an answer, where each of `tasks` asks again once it is answered."""

    async def one() -> None:
        for _ in range(rounds // tasks):
            await ask()
            await asyncio.sleep(0)  # what is answered at once gives the others their turn

    begin = time.process_time_ns()
    await asyncio.gather(*(one() for _ in range(tasks)))
    return (time.process_time_ns() - begin) / (rounds // tasks * tasks) / 1000


def gateway(server: Server) -> Ask:
    """From a request in memory to its answer: what every transport pays."""
    row = np.float32([ROW])
    return lambda: server.gateway.infer(Request("mlp", {"x": row}, client=CLIENT))


def rest(server: Server) -> Ask:
    """The ASGI application, from a body to a body."""
    from autoglm.serve.http.app import App

    app = App(server.gateway)
    body = orjson.dumps({"model_name": "mlp", "version": "1", "data": [ROW]})
    names = ("host", "content-type", "content-length", "user-agent", "accept")
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": "/v1/infer",
        "query_string": b"",
        "whole": True,
        "client": ("127.0.0.1", 40_000),
        "headers": [(n.encode(), b"%d" % len(body)) for n in names if n != "content-type"],
    }

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: object) -> None:
        pass

    return lambda: app(dict(scope), receive, send)


def bare_rest(run: Callable[..., Any]) -> Ask:
    """A body to a body, and nothing else."""
    body = orjson.dumps({"data": [ROW]})

    async def ask() -> bytes:
        x = np.array(orjson.loads(body)["data"], np.float32)
        answer = {"result": run({"x": x})["y"], "status_code": 200, "message": "ok"}
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)

    return ask


class Context:
    """What a handler asks of grpc.aio, told without the wire."""

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("user-agent", "grpc-python-asyncio/1.80"),)

    def peer(self) -> str:
        return "ipv4:127.0.0.1:40000"

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}

    def time_remaining(self) -> None:
        return None


def question() -> bytes:
    """A ModelInferRequest of one row."""
    from autoglm.serve.proto import oip_pb2 as pb

    x = np.float32([ROW])
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=x.shape)
    message = pb.ModelInferRequest(
        model_name="mlp", inputs=[tensor], raw_input_contents=[x.tobytes()]
    )
    return bytes(message.SerializeToString())


def rpc(server: Server) -> Ask:
    """The handler of ModelInfer, from a message's bytes to an answer's."""
    from autoglm.serve.grpc import calls, oip

    terms = calls.Terms(server.gateway, asyncio.Event(), 64 << 20)
    handler = calls.unary(terms, oip.infer).unary_unary
    raw, context = question(), Context()
    return lambda: handler(raw, context)


def bare_rpc(run: Callable[..., Any]) -> Ask:
    """The same, and nothing else."""
    from autoglm.serve.proto import oip_pb2 as pb

    raw = question()

    async def ask() -> bytes:
        message = pb.ModelInferRequest.FromString(raw)
        x = np.frombuffer(message.raw_input_contents[0], np.float32)
        y = run({"x": x.reshape(tuple(message.inputs[0].shape))})["y"]
        answer = pb.ModelInferResponse(model_name="mlp", raw_output_contents=[y.tobytes()])
        answer.outputs.add(name="y", datatype="FP32", shape=y.shape)
        return bytes(answer.SerializeToString())

    return ask


def guard_costs(rounds: int) -> dict[str, float]:
    """A known key, permission, and a rate limit that is not reached."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "keys.json"
        _, text = add_key(path, "alice")
        guard = Guard(GuardOptions(keys=path, limit=Limit(rate=1e9)))
        told = Credentials("http", "127.0.0.1:5", f"Bearer {text}")
        return {
            "authenticate by key": cost_us(lambda: guard.authenticate(told), rounds),
            "permit": cost_us(lambda: guard.permit(CLIENT, "m"), rounds),
            "admit": cost_us(lambda: guard.admit(CLIENT, 512), rounds),
        }


def telemetry_costs(rounds: int) -> dict[str, float]:
    """One request's record, folding included; one span of the SDK."""
    from opentelemetry.sdk.trace import TracerProvider

    telemetry, tracer = Telemetry(), TracerProvider().get_tracer("benchmark")
    request = Request("m", {}, client=CLIENT)

    def record() -> None:
        request.marks = None
        made = telemetry.start(request)
        for stage in ("queue", "batch", "device", "reply"):
            made.mark(stage)
        telemetry.finish(made, version="1")

    def span() -> None:
        with tracer.start_as_current_span("stage"):
            pass

    return {
        "record of five stages": cost_us(record, rounds),
        "one SDK span": cost_us(span, rounds),
    }


def cache_costs(rounds: int) -> dict[str, float]:
    """Keys of a small and a large input, and a hit."""
    small = Request("m", {"x": np.zeros((1, 128), "float32")})
    large = Request("m", {"x": np.zeros((1, 3, 224, 224), "float32")})

    async def hit() -> float:
        cache = Cache()

        async def run() -> Response:
            return Response("m", "1", {"y": np.zeros((1, 10), "float32")})

        await cache.answer(b"k", run)
        begin = time.process_time_ns()
        for _ in range(rounds):
            await cache.answer(b"k", run)
        return round((time.process_time_ns() - begin) / rounds / 1000, 3)

    return {
        "key of 1x128": cost_us(lambda: key_of("d", small), rounds),
        "key of 1x3x224x224": cost_us(lambda: key_of("d", large), max(rounds // 100, 1)),
        "hit": asyncio.run(hit()),
    }


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20_000)
    parser.add_argument(
        "--young", type=int, default=20_000, help="as the server has it; Python: 700"
    )
    args = parser.parse_args()
    rounds = args.rounds
    gc.set_threshold(args.young)
    paths = uvloop.run(path_costs(rounds))
    print(f"CPU us of an answer at {', '.join(map(str, CONCURRENCY))} at once")
    for name, found in paths.items():
        print(f"{name:>10}  " + "".join(f"{cost:8.1f}" for cost in found))
    costs = {**guard_costs(rounds), **telemetry_costs(rounds), **cache_costs(rounds)}
    print(json.dumps({"paths": paths, "cpu_us": costs}, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
