"""Does the switch that `autoglm hotspots` names help? One made case a switch, before and after.

    python -m benchmarks.serving.advice [--requests 400]

Each case plants one cause of slow requests, ranks its traces, flips the switch that the first spot
names, and measures the figure again. Engines here wait instead of computing, as a program does for
an accelerator, so that the cases say the same on a busy machine. Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from autoglm import api
from autoglm.diagnose.hotspots import Trace, hotspots, read_traces
from autoglm.serve.batch import Batcher, BatchLimits
from autoglm.serve.cache import Cache, CacheOptions
from autoglm.serve.core import ModelInfo, Request
from autoglm.serve.gateway import LocalGateway
from autoglm.serve.pool import Pool, Served, repository
from autoglm.serve.pool.engine import Engine
from autoglm.serve.proto import infer_pb2 as pb
from autoglm.serve.server import ServeOptions, Server
from autoglm.serve.telemetry import Telemetry, TelemetryOptions
from autoglm.spec import Feeds, TensorInfo, Value

HEAVY = 1.0  # in the first element: this question takes long
APART = BatchLimits(inline_below_s=0.0)
HEAD = (
    b"POST /v1/infer HTTP/1.1\r\nhost: localhost\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n"
)
INFER = "/autoglm.v1.Inference/Infer"


@dataclass(frozen=True)
class Case:
    """One planted cause: the first spot, its switch, and a figure that should fall."""

    spot: str
    switch: str
    judged_on: str
    before: float
    after: float


class Device:
    """An accelerator: `cost(feeds)` seconds a run, in which this process only waits."""

    def __init__(self, cost: Callable[[Feeds], float]) -> None:
        self.cost = cost

    def run(self, feeds: Feeds) -> dict[str, Value]:
        """Twice the input."""
        time.sleep(self.cost(feeds))
        return {"y": feeds["x"] * np.float32(2)}

    def close(self) -> None:
        """Nothing is held."""


class One:
    """A pool of one model."""

    def __init__(self, served: Served) -> None:
        self.served = served

    async def acquire(self, *_: object, **__: object) -> Served:
        """It is always there."""
        return self.served


def one(devices: Sequence[Device], row: tuple[int, ...] = (4,), limits: BatchLimits = APART) -> One:
    """A model on these engines, x [n, *row] -> y [n, *row]."""
    x, y = (TensorInfo(name, "float32", ("n", *row)) for name in "xy")
    info = ModelInfo("m", "1", (x,), (y,), "ready", digest="made")
    sample = {"x": np.zeros((1, *row), np.float32)}
    engines = tuple(Engine(f"{i}", d, sample) for i, d in enumerate(devices))
    for engine in engines:
        engine.probe()
    batchers = [Batcher(e.run, info, limits) for e in engines]

    async def nowhere(request: Request) -> dict[str, Value]:
        raise AssertionError(request)

    return One(Served(info, engines, batchers, nowhere))


@contextmanager
def traced() -> Iterator[tuple[TelemetryOptions, list[Trace]]]:
    """Options that trace every request; the list holds the traces once they are written."""
    with tempfile.TemporaryDirectory(prefix="autoglm-bench-") as folder:
        path, found = Path(folder) / "traces.json", list[Trace]()
        yield TelemetryOptions(path, sample=1.0, most_per_s=1e9), found
        found += read_traces(path)[0]


async def ask(
    pool: Any, times: Sequence[Sequence[np.ndarray]], cache: Cache | None = None
) -> list[Trace]:
    """Ask for the inputs of each time at once; traces of all."""
    with traced() as (options, found):
        telemetry = Telemetry(options)
        gateway = LocalGateway(pool, cache=cache, telemetry=telemetry)
        gateway.state = "ready"
        for together in times:
            await asyncio.gather(*(gateway.infer(Request("m", {"x": x})) for x in together))
        telemetry.close()
    return found


def p99(traces: Sequence[Trace], stage: str = "") -> float:
    """Milliseconds of a stage, or of whole requests."""
    took = sorted(
        sum(s.end - s.begin for s in t.children.get(t.root.id, ()) if s.name == stage) * 1e-6
        if stage
        else t.seconds * 1e3
        for t in traces
    )
    return round(took[int(len(took) * 0.99)], 3)


def advised(traces: Sequence[Trace]) -> tuple[str, str]:
    """The first spot, and its switch."""
    spot = hotspots(traces)[0].spots[0]
    return spot.name, spot.switch


def some(value: float, rows: int = 1, row: tuple[int, ...] = (4,)) -> np.ndarray:
    """An input that starts with `value`."""
    return np.full((rows, *row), value, np.float32)


async def queue(count: int) -> Case:
    """A burst now and then: more engines."""
    times = [[some(0)] * (6 if turn % 10 == 9 else 1) for turn in range(count // 2)]
    limits = BatchLimits(max_batch_rows=1, inline_below_s=0.0)
    found = [
        await ask(one([Device(lambda _: 0.02) for _ in range(n)], limits=limits), times)
        for n in (1, 2)
    ]
    before, after = (p99(traces, "queue") for traces in found)
    return Case(*advised(found[0]), "p99 of the stage, ms", before, after)


async def batch(count: int) -> Case:
    """Two at once are filled up to 64 rows: buckets that fit."""
    row, pair = (512, 512), [some(0, row=(512, 512))] * 2
    times = [pair if turn % 40 == 39 else pair[:1] for turn in range(count // 4)]
    spots, shares = [], []
    for buckets in ((1, 64), (1, 2, 64)):
        limits = BatchLimits(inline_below_s=0.0, buckets=buckets)
        pool = one([Device(lambda _: 0.001)], row, limits)
        spots.append(advised(await ask(pool, times)))
        stats = pool.served.batchers[0].stats
        shares.append(round(stats.padded_rows / stats.rows, 3))
    return Case(*spots[0], "padded rows / rows", *shares)


async def device(count: int) -> Case:
    """A few questions are heavy, and asked again and again: a cache."""
    times = [[some(HEAVY if turn % 40 == 39 else 0)] for turn in range(count)]

    def cost(feeds: Feeds) -> float:
        return 0.03 if feeds["x"].flat[0] == HEAVY else 0.001

    first = await ask(one([Device(cost)]), times)
    cache = Cache(CacheOptions())
    await ask(one([Device(cost)]), times, cache)
    return Case(*advised(first), "questions that cost a run, share", 1.0, 1 - cache.stats.hit_rate)


async def preload(count: int) -> Case:
    """The first request waits for its model: loading ahead."""
    firsts, spots = [], []
    with tempfile.TemporaryDirectory(prefix="autoglm-bench-") as folder:
        bundle = dense(Path(folder), 64, 256)
        size = sum(p.stat().st_size for p in bundle.glob("artifacts/**/*") if p.is_file())
        for ahead in (False, True):
            pool = Pool(repository([f"{n}={bundle}" for n in "mo"]), memory_bytes=int(1.5 * size))
            await pool.start()
            await pool.preload("o")  # one of the two has memory
            if ahead:
                await pool.preload("m")
            traces = await ask(pool, [[some(0, row=(64,))] for _ in range(min(count, 90))])
            await pool.close()
            spots.append(advised(traces))
            first = min(traces, key=lambda t: t.root.begin)
            firsts.append(round(first.seconds * 1e3, 3))
    return Case(*spots[0], "the first request, ms", *firsts)


async def entry(count: int) -> Case:
    """A few large inputs as JSON: gRPC, where they come as they are."""
    times = [[some(0, 200 if turn % 40 == 39 else 1, (1024,))] for turn in range(count)]
    return await _wire("entry", 1024, 4, times)


async def reply(count: int) -> Case:
    """A few bursts with large outputs, which are written one after the other: gRPC."""
    burst = [some(0, 8, (8,))] * 8
    times = [burst if turn % 40 == 39 else [some(0, 1, (8,))] for turn in range(count)]
    return await _wire("reply", 8, 16384, times)


async def _wire(stage: str, width: int, out: int, times: Sequence[Sequence[np.ndarray]]) -> Case:
    found = []
    with tempfile.TemporaryDirectory(prefix="autoglm-bench-") as folder:
        bundle = dense(Path(folder), width, out)
        for name, client in (("http", _by_http), ("grpc", _by_grpc)):
            with traced() as (options, traces):
                served = ServeOptions(
                    [f"m={bundle}"],
                    {name: "127.0.0.1:0"},
                    batch=BatchLimits(inline_below_s=1.0),  # no thread whose turn has to come
                    telemetry=options,
                )
                async with Server(served) as server:
                    await client(server.urls[name], times)
            found.append(traces)
    before, after = (p99(traces, stage) for traces in found)
    return Case(*advised(found[0]), "p99 of the stage, ms", before, after)


async def _by_http(url: str, times: Sequence[Sequence[np.ndarray]]) -> None:
    host, _, port = url.rpartition("//")[2].partition(":")
    most = max(map(len, times))
    free = [await asyncio.open_connection(host, int(port)) for _ in range(most)]

    async def one(x: np.ndarray) -> None:
        reader, writer = connection = free.pop()
        body = json.dumps({"model_name": "m", "data": x.tolist()}).encode()
        writer.write(HEAD % len(body) + body)  # at once: a burst is one
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n")[0]:
            raise SystemExit(head.decode())
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
        free.append(connection)

    await _each(one, times)
    for _, writer in free:
        writer.close()


async def _by_grpc(url: str, times: Sequence[Sequence[np.ndarray]]) -> None:
    most = [("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(url.rpartition("//")[2], options=most) as channel:

        async def one(x: np.ndarray) -> None:
            tensor = pb.Tensor(name="x", dtype="float32", shape=x.shape, raw=x.tobytes())
            message = pb.InferRequest(model="m", inputs=[tensor])
            await channel.unary_unary(INFER)(message.SerializeToString())

        await _each(one, times)


async def _each(
    one: Callable[[np.ndarray], Awaitable[None]], times: Sequence[Sequence[np.ndarray]]
) -> None:
    for together in times:
        await asyncio.gather(*(one(x) for x in together))


def dense(folder: Path, width: int, out: int) -> Path:
    """x [n, width] -> y [n, out], one MatMul on ONNX Runtime."""
    info = helper.make_tensor_value_info
    weights = np.random.default_rng(0).standard_normal((width, out)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "dense",
        [info("x", TensorProto.FLOAT, ["n", width])],
        [info("y", TensorProto.FLOAT, ["n", out])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, folder / "dense.onnx")
    api.compile(folder / "dense.onnx", folder / "dense", backend="onnxruntime", threads=1)
    return folder / "dense"


CASES = {case.__name__: case for case in (entry, queue, batch, device, reply, preload)}


async def main(count: int) -> None:
    """All cases, as JSON."""
    rows = {name: vars(await case(count)) for name, case in CASES.items()}
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=400)
    asyncio.run(main(parser.parse_args().requests))
