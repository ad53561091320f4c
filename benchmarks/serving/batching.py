"""Batching without the network: samples per second of the batcher on one loop, by concurrency.

python -m benchmarks.serving.batching [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import time

import numpy as np
import uvloop

import autoglm
from autoglm.serve.batch import Batcher
from autoglm.serve.core import ModelInfo, Request
from benchmarks.serving.common import WIDTH, bundle, save, table


async def measure(seconds: float, rounds: int) -> list[dict[str, object]]:
    """Closed loop: each of `concurrency` tasks asks again once it is answered."""
    rows: list[dict[str, object]] = []
    x = np.random.default_rng(0).standard_normal((64, WIDTH)).astype(np.float32)
    with autoglm.open(bundle(), threads=1) as session:
        info = ModelInfo("mlp", "1", session.inputs, session.outputs, "ready")
        for concurrency in (1, 16, 64):
            alone = best(lambda n=concurrency: session.run({"x": x[:n]}), seconds / 4)
            for _ in range(rounds):
                batcher = Batcher(session.run, info)
                request = Request("mlp", {"x": x[:1]})
                await batcher.submit(request)
                rate = await closed_loop(batcher, request, concurrency, seconds)
                stats = batcher.stats
                rows.append(
                    {
                        "concurrency": concurrency,
                        "samples/s": rate,
                        "model alone/s": concurrency / alone,
                        "share": rate * alone / concurrency,
                        "rows a batch": stats.rows / stats.batches,
                    }
                )
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
    """Print the table; the bar is 350,000 samples/s at 64 on the machine of the anchors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    rows = uvloop.run(measure(1.0 if quick else 5.0, 1 if quick else 3))
    table(["concurrency", "samples/s", "model alone/s", "share", "rows a batch"], rows)
    save("batching", rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
