"""Does memory stay level? A server under load from every protocol for minutes, its RSS sampled.

    python -m benchmarks.serving.soak [--minutes 10] [--workers 4] [--cache-mb 0]

`autoglm serve` runs as a process of its own with the small model. `--workers` clients each ask over
REST, v2 in binary, HTTP/2, both gRPC services, a gRPC stream and MQTT, and compare every answer
with the model's own; one request in fifty is wrong or hung up on. Each minute the model is loaded
anew. Prints RSS at the start, each minute and at the end, the slope after the first two minutes
with its uncertainty (two standard errors over means of 15 s), requests and errors by protocol.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import psutil

import autoglm
from autoglm.serve.proto import infer_pb2, oip_pb2
from benchmarks.serving.common import FOLDER, WIDTH, bundle
from tests.serve.mosquitto import BINARY, Mosquitto
from tests.serve.wires import PATHS, PROTOBUF, Broker

ROWS = np.random.default_rng(11).standard_normal((64, 1, WIDTH)).astype(np.float32).round(4)
_WRONG = 50  # one request in so many
_BLOCK_S = 15.0
_WARM_S = 120.0  # pools, caches and allocators fill


class Load:
    """What every client shares: the right answers, the end, and the counts."""

    def __init__(self, urls: dict[str, str], expected: np.ndarray, until: float) -> None:
        self.urls, self.expected, self.until = urls, expected, until
        self.asked: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()  # an answer that is not the model's, or a failure
        self.refused: Counter[str] = Counter()  # what was asked wrongly, and told so

    def check(self, wire: str, index: int, answer: Any) -> None:
        """Count one answer."""
        self.asked[wire] += 1
        if not np.allclose(np.asarray(answer, np.float32).reshape(10), self.expected[index], 1e-4):
            self.wrong[wire] += 1

    def turns(self) -> Iterator[tuple[int, bool]]:
        """A row's number, and whether it is to be asked wrongly, until the end."""
        chance = random.Random()
        while time.monotonic() < self.until:
            yield chance.randrange(len(ROWS)), chance.randrange(_WRONG) == 0


# --- one client of each protocol -----------------------------------------------------------------


async def rest(load: Load, *, two: bool = False) -> None:
    """The envelope, over HTTP/1.1 or HTTP/2; a wrong one names no model, or is hung up on."""
    wire = "http2" if two else "rest"
    async with _http(load, two) as client:
        for index, wrong in load.turns():
            body: dict[str, Any] = {"model_name": "mlp", "data": ROWS[index].tolist()}
            if wrong and index % 2:
                with contextlib.suppress(TimeoutError, httpx.HTTPError):
                    await asyncio.wait_for(client.post("/v1/infer", json=body), 0.0005)
                load.refused[wire] += 1
            elif wrong:
                answer = await client.post("/v1/infer", json=body | {"model_name": "none"})
                load.refused[wire] += answer.status_code == 404
            else:
                answer = await client.post("/v1/infer", json=body)
                load.check(wire, index, answer.json()["result"])


async def v2(load: Load) -> None:
    """v2 in binary both ways; a wrong one has too few bytes."""
    async with _http(load, False) as client:
        row = {"name": "x", "datatype": "FP32", "shape": [1, WIDTH]}
        row |= {"parameters": {"binary_data_size": 4 * WIDTH}}
        head = json.dumps({"inputs": [row], "parameters": {"binary_data_output": True}}).encode()
        said = {"inference-header-content-length": str(len(head))}
        for index, wrong in load.turns():
            body = head + ROWS[index].tobytes()[: 4 * (WIDTH - wrong)]
            answer = await client.post("/v2/models/mlp/infer", content=body, headers=said)
            if wrong:
                load.refused["v2"] += answer.status_code == 400
                continue
            at = int(answer.headers["inference-header-content-length"])
            load.check("v2", index, np.frombuffer(answer.content[at:], np.float32))


async def rpc(load: Load, wire: str) -> None:
    """One gRPC service; a wrong request has another dtype, or is cancelled."""
    async with grpc.aio.insecure_channel(load.urls["grpc"].partition("://")[2]) as channel:
        call = channel.unary_unary(PATHS[wire])
        for index, wrong in load.turns():
            message = (_oip if wire == "v2-grpc" else _ours)(index, wrong)
            if wrong and index % 2:
                left = call(message)
                await asyncio.sleep(0)
                left.cancel()
                load.refused[wire] += 1
                continue
            try:
                raw = await call(message)
            except grpc.aio.AioRpcError as error:
                clear = wrong and error.code() is grpc.StatusCode.INVALID_ARGUMENT
                (load.refused if clear else load.wrong)[wire] += 1
                continue
            load.check(wire, index, _output(raw, wire))


async def stream(load: Load) -> None:
    """A gRPC stream at a time, of a hundred requests."""
    async with grpc.aio.insecure_channel(load.urls["grpc"].partition("://")[2]) as channel:
        method = channel.stream_stream("/autoglm.v1.Inference/InferStream")
        turns = load.turns()
        while batch := [index for _, (index, _) in zip(range(100), turns, strict=False)]:
            asked = [_ours(index, False, str(index)) for index in batch]
            async for raw in method(iter(asked)):
                answer = infer_pb2.InferResponse.FromString(raw)
                load.check("stream", int(answer.id), np.frombuffer(answer.outputs[0].raw, "f4"))


async def mqtt(load: Load, port: int) -> None:
    """QoS 1 by a client in its own thread; a wrong one names no model."""
    client = await asyncio.to_thread(Broker, port)
    try:
        for index, wrong in load.turns():
            model = "none" if wrong else "mlp"
            answer = await asyncio.to_thread(
                client.ask, f"autoglm/v1/{model}/infer", _ours(index, False, model=""), PROTOBUF, {}
            )
            if wrong:
                load.refused["mqtt"] += 1
            else:
                load.check("mqtt", index, _output(answer.payload, "mqtt"))
    finally:
        await asyncio.to_thread(client.close)


@contextlib.asynccontextmanager
async def _http(load: Load, two: bool) -> AsyncIterator[httpx.AsyncClient]:
    url = load.urls["http"]
    async with httpx.AsyncClient(base_url=url, http1=not two, http2=two, timeout=60) as client:
        yield client


def _ours(index: int, wrong: bool, request_id: str = "", model: str = "mlp") -> bytes:
    message = infer_pb2.InferRequest(model=model, id=request_id)
    dtype = "float64" if wrong else "float32"
    message.inputs.add(name="x", dtype=dtype, shape=[1, WIDTH], raw=ROWS[index].tobytes())
    raw: bytes = message.SerializeToString()
    return raw


def _oip(index: int, wrong: bool) -> bytes:
    message = oip_pb2.ModelInferRequest(model_name="mlp")
    message.inputs.add(name="x", datatype="FP64" if wrong else "FP32", shape=[1, WIDTH])
    message.raw_input_contents.append(ROWS[index].tobytes())
    raw: bytes = message.SerializeToString()
    return raw


def _output(raw: bytes, wire: str) -> np.ndarray:
    if wire == "v2-grpc":
        return np.frombuffer(
            oip_pb2.ModelInferResponse.FromString(raw).raw_output_contents[0], "f4"
        )
    return np.frombuffer(infer_pb2.InferResponse.FromString(raw).outputs[0].raw, "f4")


# --- the server, its memory, and the whole -------------------------------------------------------


@contextlib.contextmanager
def server(
    broker: Mosquitto, log: Path, *more: str
) -> Iterator[tuple[psutil.Process, dict[str, str]]]:
    """`autoglm serve` on every protocol, and its URLs."""
    argv = [
        str(Path(sys.executable).with_name("autoglm")), "serve", f"mlp={bundle().absolute()}",
        "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0",
        "--mqtt", f"{broker.url}?client_id=soak", *more,
    ]  # fmt: skip
    with log.open("wb") as errors:
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=errors, text=True)
    assert process.stdout is not None
    urls: dict[str, str] = {}
    while len(urls) < 3:
        words = process.stdout.readline().split()
        if not words:
            raise SystemExit(f"the server does not start:\n{log.read_text()[-2000:]}")
        urls |= {words[0]: words[1]} if words[0] in ("http", "grpc", "mqtt") else {}
    try:
        yield psutil.Process(process.pid), urls
        if process.poll() is not None:
            raise SystemExit(f"the server has ended:\n{log.read_text()[-2000:]}")
    finally:
        process.terminate()
        process.wait(90)


async def sample(process: psutil.Process, until: float, found: list[tuple[float, float]]) -> None:
    """(seconds, MB) twice a second, of the process and its children."""
    begun = time.monotonic()
    while time.monotonic() < until:
        tree = [process, *process.children(recursive=True)]
        now = time.monotonic() - begun
        found.append((now, sum(p.memory_info().rss for p in tree) / 1e6))
        if len(found) % 120 == 1:
            print(f"{now / 60:5.1f} min  {found[-1][1]:8.2f} MB", flush=True)
        await asyncio.sleep(0.5)


async def reload(load: Load) -> None:
    """Load the model anew each minute, while it answers."""
    async with _http(load, False) as client:
        while time.monotonic() + 60 < load.until:
            await asyncio.sleep(60)
            answer = await client.post("/v2/repository/models/mlp/load")
            load.asked["reload"] += 1
            load.wrong["reload"] += answer.status_code != 200


def slope(samples: Sequence[tuple[float, float]], from_s: float) -> tuple[float, float]:
    """MB an hour, and two standard errors, by least squares over means of 15 s."""
    blocks: dict[int, list[float]] = {}
    for at, size in samples:
        if at >= from_s:
            blocks.setdefault(int(at / _BLOCK_S), []).append(size)
    if len(blocks) < 4:
        return float("nan"), float("nan")
    hours = np.array([(k + 0.5) * _BLOCK_S / 3600 for k in blocks])
    sizes = np.array([np.mean(v) for v in blocks.values()])
    away = hours - hours.mean()
    gradient = float(away @ sizes / (away @ away))
    left = sizes - sizes.mean() - gradient * away
    error = float(np.sqrt(left @ left / (len(blocks) - 2) / (away @ away)))
    return gradient, 2 * error


async def press(
    process: psutil.Process, urls: dict[str, str], port: int, minutes: float, workers: int
) -> tuple[Load, list[tuple[float, float]]]:
    """Every client until the time is over."""
    with autoglm.open(bundle()) as session:
        expected = np.array([session.run({"x": row})["y"][0] for row in ROWS])
    load = Load(urls, expected, time.monotonic() + 60 * minutes)
    samples: list[tuple[float, float]] = []
    kinds: list[Callable[[], Awaitable[None]]] = [
        lambda: rest(load),
        lambda: v2(load),
        lambda: rest(load, two=True),
        lambda: rpc(load, "v2-grpc"),
        lambda: rpc(load, "grpc"),
        lambda: stream(load),
        lambda: mqtt(load, port),
    ]
    async with asyncio.TaskGroup() as group:
        group.create_task(sample(process, load.until, samples))
        group.create_task(reload(load))
        for _ in range(workers):
            for kind in kinds:
                group.create_task(kind())  # type: ignore[arg-type]
    return load, samples


def main() -> None:
    """The command line above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--cache-mb", type=int, default=0, help="of kept answers")
    chosen = parser.parse_args()
    if BINARY is None or shutil.which("mosquitto_sub") is None:
        raise SystemExit("mosquitto is needed: apt-get install mosquitto mosquitto-clients")
    bundle()
    more = ("--cache-mb", str(chosen.cache_mb)) if chosen.cache_mb else ()
    with (
        tempfile.TemporaryDirectory() as folder,
        Mosquitto(Path(folder)) as broker,
        server(broker, FOLDER / "soak.log", *more) as (process, urls),
    ):
        work = press(process, urls, broker.port, chosen.minutes, chosen.workers)
        load, samples = asyncio.run(work)
    gradient, error = slope(samples, min(_WARM_S, 30 * chosen.minutes))
    rows = {
        "start_mb": round(samples[0][1], 2),
        "end_mb": round(samples[-1][1], 2),
        "most_mb": round(max(size for _, size in samples), 2),
        "slope_mb_per_hour": round(gradient, 2),
        "two_standard_errors": round(error, 2),
        "answered": dict(load.asked),
        "requests": load.asked.total(),
        "asked_wrongly": dict(load.refused),
        "errors": dict(+load.wrong),
    }
    print(json.dumps(rows, indent=1))
    raise SystemExit(1 if +load.wrong else 0)


if __name__ == "__main__":
    main()
