"""What the model pool costs and brings, in one process without a network.

    python -m benchmarks.serving.pool [--requests 20000]

`path`: CPU microseconds of a request through the batcher alone, through the pool, and through an
engine in a process of its own, at 1 and 64 requests at once. `reload`: failed requests and the
longest pause of any client while a version is loaded again and again. `preload`: how many of 60
requests wait for a load, three models in turn with memory for two, by sequence switched off and on.
`crossing`: median microseconds of a tensor's way to another process and back, through memory that
both see and with its elements in the pipe, in turns. Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from autoglm import api
from autoglm.serve.core import Client, Request
from autoglm.serve.pool import Pool, repository
from autoglm.serve.pool.shared import Shared
from autoglm.serve.pool.wire import decode, encode
from autoglm.serve.routes import Preloader, Table
from autoglm.toolchain.service import Service

X = np.ones((1, 128), np.float32)
ASK = Request("mlp", {"x": X}, client=Client("bench"))


def compile_mlp(folder: Path) -> Path:
    """128 -> 256 -> 10, float32, open batch, on ONNX Runtime."""
    random = np.random.default_rng(0)
    sizes = {"w0": (128, 256), "w1": (256, 10)}
    weights = [
        numpy_helper.from_array(random.standard_normal(s).astype(np.float32) / 16, n)
        for n, s in sizes.items()
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w1"], ["y"]),
    ]
    info = helper.make_tensor_value_info
    x, y = info("x", TensorProto.FLOAT, ["n", 128]), info("y", TensorProto.FLOAT, ["n", 10])
    graph = helper.make_graph(nodes, "mlp", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, folder / "mlp.onnx")
    api.compile(folder / "mlp.onnx", folder / "mlp", backend="onnxruntime", threads=1)
    return folder / "mlp"


async def cpu_us(ask: Callable[[], Awaitable[Any]], count: int, at_once: int) -> float:
    """CPU of this process for one request; the best of five rounds."""

    async def client() -> None:
        for _ in range(count // at_once):
            await ask()

    rounds = []
    for _ in range(5):
        begin = time.process_time()
        await asyncio.gather(*(client() for _ in range(at_once)))
        rounds.append((time.process_time() - begin) / (count // at_once * at_once) * 1e6)
    return round(min(rounds), 1)


async def path(bundle: Path, count: int) -> dict[str, dict[str, float]]:
    """The same request three ways; the child's own CPU is not in its figure."""
    found: dict[str, dict[str, float]] = {"batcher": {}, "pool": {}, "process": {}}
    for process in (False, True):
        pool = Pool(repository([str(bundle)], process=process))
        await pool.start()
        batcher = pool.served("mlp").batchers[0]
        for at_once in (1, 64):
            if not process:
                found["batcher"][f"c{at_once}"] = await cpu_us(
                    lambda b=batcher: b.submit(ASK), count, at_once
                )
            row = found["process" if process else "pool"]
            row[f"c{at_once}"] = await cpu_us(lambda p=pool: p.infer(ASK), count, at_once)
        await pool.close()
    return found


async def reload(bundle: Path, count: int) -> dict[str, float]:
    """Sixteen clients while version 1 is loaded anew without end."""
    pool = Pool(repository([str(bundle)]))
    await pool.start()
    answered = failed = loads = 0
    pauses: list[float] = []

    async def client() -> None:
        nonlocal answered, failed
        while answered + failed < count:
            begin = time.monotonic()
            try:
                await pool.infer(ASK)
                answered += 1
            except Exception:
                failed += 1
            pauses.append(time.monotonic() - begin)

    clients = [asyncio.create_task(client()) for _ in range(16)]
    while answered + failed < count:
        await pool.load("mlp")
        loads += 1
    await asyncio.gather(*clients)
    await pool.close()
    pauses.sort()
    return {
        "answered": answered,
        "failed": failed,
        "loads": loads,
        "p50_ms": round(pauses[len(pauses) // 2] * 1e3, 3),
        "p99_ms": round(pauses[len(pauses) * 99 // 100] * 1e3, 3),
        "longest_ms": round(pauses[-1] * 1e3, 3),
    }


async def preload(bundle: Path, enabled: bool) -> dict[str, int]:
    """Three models in turn, memory for two."""
    names = ("one", "two", "three")
    budget = int(2.5 * sum(p.stat().st_size for p in bundle.glob("artifacts/**/*") if p.is_file()))
    pool = Pool(repository([f"{n}={bundle}" for n in names]), memory_bytes=budget)
    rules = Table.model_validate({"sequence": {"enabled": enabled}})
    preloader = Preloader(pool.preload, rules)
    pool.on_use = preloader.seen
    await pool.start()
    waited = 0
    for turn in range(60):
        name = names[turn % 3]
        waited += pool.model(name).state != "ready"
        await pool.infer(Request(name, {"x": X}, client=ASK.client))
        await asyncio.sleep(0.05)  # the client's own work
    await preloader.close()
    await pool.close()
    return {"waited": waited, "right": preloader.right, "wrong": preloader.wrong}


ECHO = """
import sys
import numpy as np
from multiprocessing.connection import Connection
from autoglm.serve.pool.shared import Shared
from autoglm.serve.pool.wire import decode, encode
fd, pipe = int(sys.argv[1]), Connection(int(sys.argv[2]))
shared = Shared(fd) if fd >= 0 else None
while True:
    try:
        message = pipe.recv_bytes()
    except EOFError:
        break
    if shared is not None:
        values, _, end = decode(message, shared, copy=False)
        pipe.send_bytes(b"+" + encode(values, shared, begin=end))
    else:
        pipe.send_bytes(b"+" + pack(unpack(message)))
"""
PACK = """
import json
import numpy as np

def pack(array):
    said = json.dumps({"values": {"x": {"dtype": array.dtype.name, "shape": array.shape}}}).encode()
    return b"".join((len(said).to_bytes(8, "little"), said, array.tobytes()))

def unpack(message):
    start = 8 + int.from_bytes(message[:8], "little")
    row = json.loads(message[8:start])["values"]["x"]
    return np.frombuffer(message, row["dtype"], offset=start).reshape(row["shape"]).copy()
"""


class Crossing:
    """A child that answers what it is asked, by one of the two ways."""

    def __init__(self, folder: Path, *, by_memory: bool) -> None:
        self.shared = Shared() if by_memory else None
        space: dict[str, Any] = {}
        exec(PACK, space)
        self.pack, self.unpack = space["pack"], space["unpack"]
        fds = (self.shared.fd,) if self.shared else ()
        argv = [sys.executable, "-c", PACK + ECHO, *(str(fd) for fd in fds or (-1,))]
        self.service = Service(argv, log=folder / f"echo{by_memory}.log", pass_fds=fds)

    def once(self, array: np.ndarray) -> float:
        """There and back, in microseconds."""
        begin = time.perf_counter()
        if self.shared is not None:
            reply = self.service.ask(encode({"x": array}, self.shared), timeout_s=60)
            back = decode(reply, self.shared, copy=True)[0]["x"]
        else:
            reply = self.service.ask(self.pack(array), timeout_s=60)
            back = self.unpack(reply)
        took = time.perf_counter() - begin
        assert back.nbytes == array.nbytes
        return took * 1e6

    def close(self) -> None:
        """End the child."""
        self.service.close()
        if self.shared is not None:
            self.shared.close()


def crossing(folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Two sizes as in an MLP's request and an image's, and a large batch."""
    ways = [Crossing(folder, by_memory=by_memory) for by_memory in (True, False)]
    rows = {}
    for nbytes in (512, 602_112, 9_633_792):
        array = np.ones(nbytes // 4, np.float32)
        for way in ways:
            way.once(array)  # it starts, and its memory grows
        count = rounds if nbytes < 1 << 20 else rounds // 20
        took = [[way.once(array) for way in ways] for _ in range(count)]
        memory, pipe = (round(statistics.median(column), 1) for column in zip(*took, strict=True))
        ratio = round(pipe / memory, 2)
        rows[f"{nbytes} B"] = {"memory_us": memory, "pipe_us": pipe, "ratio": ratio}
    for way in ways:
        way.close()
    return rows


async def main(count: int) -> None:
    """All of it, as JSON."""
    with tempfile.TemporaryDirectory(prefix="autoglm-bench-") as folder:
        bundle = compile_mlp(Path(folder))
        rows = {
            "path_cpu_us": await path(bundle, count),
            "reload": await reload(bundle, count),
            "preload": {
                "off": await preload(bundle, enabled=False),
                "on": await preload(bundle, enabled=True),
            },
            "crossing_us": crossing(Path(folder), max(count // 10, 100)),
        }
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    asyncio.run(main(parser.parse_args().requests))
