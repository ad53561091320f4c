"""What the model pool costs and brings, in one process without a network.

    python -m benchmarks.serving.pool [--requests 20000]

`path`: CPU microseconds of a request through the batcher alone, through the pool, and through an
engine in a process of its own, at 1 and 64 requests at once. `reload`: failed requests and the
longest pause of any client while a version is loaded again and again. `preload`: how many of 60
requests wait for a load, three models in turn with memory for two, by sequence switched off and on.
Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
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
from autoglm.serve.routes import Preloader, Table

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


async def main(count: int) -> None:
    """All three, as JSON."""
    with tempfile.TemporaryDirectory(prefix="autoglm-bench-") as folder:
        bundle = compile_mlp(Path(folder))
        rows = {
            "path_cpu_us": await path(bundle, count),
            "reload": await reload(bundle, count),
            "preload": {
                "off": await preload(bundle, enabled=False),
                "on": await preload(bundle, enabled=True),
            },
        }
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    asyncio.run(main(parser.parse_args().requests))
