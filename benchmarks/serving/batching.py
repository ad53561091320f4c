"""Batching without the network: samples per second of the batcher on one loop, by concurrency.

python -m benchmarks.serving.batching [--quick]

The tiny model runs on the loop. A batch of the wide one takes milliseconds, and runs in a thread.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import uvloop
from onnx import TensorProto, helper, numpy_helper

import autoglm
from autoglm.serve.batch import Batcher
from autoglm.serve.core import ModelInfo, Request
from benchmarks.serving.common import FOLDER, WIDTH, bundle, save, table

WIDE = 1024


def wide() -> Path:
    """Four layers of 1024, any number of rows, compiled for ONNX Runtime."""
    out = FOLDER / "wide"
    if (out / "bundle.json").exists():
        return out
    weight = np.random.default_rng(0).standard_normal((WIDE, WIDE)).astype(np.float32) / 32
    names = ["x", "a", "b", "c", "y"]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", [one, "w"], [other], name=other)
            for one, other in pairwise(names)
        ],
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", WIDE])],
        [numpy_helper.from_array(weight, "w")],
    )
    FOLDER.mkdir(parents=True, exist_ok=True)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), FOLDER / "wide.onnx")
    autoglm.compile(FOLDER / "wide.onnx", out, backend="onnxruntime")
    return out


async def measure(
    place: Path, width: int, concurrencies: Sequence[int], seconds: float, rounds: int
) -> list[dict[str, object]]:
    """Closed loop: each of `concurrency` tasks asks again once it is answered."""
    rows: list[dict[str, object]] = []
    x = np.random.default_rng(0).standard_normal((64, width)).astype(np.float32)
    with autoglm.open(place, threads=1) as session:
        info = ModelInfo(place.name, "1", session.inputs, session.outputs, "ready")
        for concurrency in concurrencies:
            most = min(concurrency, 64)
            for _ in range(rounds):
                alone = best(lambda n=most: session.run({"x": x[:n]}), seconds / 4)
                batcher = Batcher(session.run, info)
                request = Request(place.name, {"x": x[:1]})
                await batcher.submit(request)
                rate = await closed_loop(batcher, request, concurrency, seconds)
                stats = batcher.stats
                rows.append(
                    {
                        "model": place.name,
                        "concurrency": concurrency,
                        "samples/s": rate,
                        "model alone/s": most / alone,
                        "share": rate * alone / most,
                        "rows a batch": stats.rows / stats.batches,
                    }
                )
                batcher.close()
    return rows


def best(call: object, seconds: float) -> float:
    """The median time of a call."""
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        begun = time.perf_counter()
        call()  # type: ignore[operator]
        times.append(time.perf_counter() - begun)
    return float(np.median(times))


async def closed_loop(batcher: Batcher, request: Request, tasks: int, seconds: float) -> float:
    """Answers per second."""
    end, done = time.perf_counter() + seconds, 0

    async def ask() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await batcher.submit(request)
            done += 1

    begun = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(tasks)))
    return done / (time.perf_counter() - begun)


def main() -> int:
    """Print the table; the bars are 350,000 samples/s of the tiny model at 64 on the machine of the
    anchors, and a share of 0.9 of the wide one.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    seconds, rounds = (1.0, 1) if quick else (5.0, 3)
    rows = uvloop.run(measure(bundle(), WIDTH, (1, 16, 64), seconds, rounds))
    rows += uvloop.run(measure(wide(), WIDE, (64, 128), seconds, rounds))
    table(["model", "concurrency", "samples/s", "model alone/s", "share", "rows a batch"], rows)
    save("batching", rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
