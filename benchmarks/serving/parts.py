"""What the gateway's own parts cost a request, each alone: guard, cache, telemetry, spans.

    python -m benchmarks.serving.parts [--rounds 20000]

Microseconds of this process's CPU per call, the least of five rounds. A span of OpenTelemetry's SDK
is there for comparison: it is what a request would pay for each of its stages. Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from autoglm.serve.cache import Cache, key_of
from autoglm.serve.core import Client, Credentials, Request, Response
from autoglm.serve.guard import Guard, GuardOptions, Limit
from autoglm.serve.guard.keys import add_key
from autoglm.serve.telemetry import Telemetry

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
    rounds = parser.parse_args().rounds
    costs = {**guard_costs(rounds), **telemetry_costs(rounds), **cache_costs(rounds)}
    print(json.dumps({"cpu_us": costs}, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
