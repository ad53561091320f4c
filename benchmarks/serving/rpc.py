"""gRPC: our gateway beside bare grpc.aio, asked by a grpc.aio client in this process.

    python -m benchmarks.serving.rpc [--quick]

The server's CPU is that of its own process tree. The client costs about as much as the server, so
calls per second are the pair's; answers are compared with the model's, none may differ.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import grpc
import numpy as np
import onnxruntime

from autoglm.serve.proto import oip_pb2
from benchmarks.serving.common import FOLDER, ROW, Served, bundle, free_port, mlp, save, table

METHOD = "/inference.GRPCInferenceService/ModelInfer"
CONCURRENCY = (1, 16, 64)


def question() -> tuple[bytes, bytes]:
    """A ModelInferRequest of one row, and the right answer's bytes."""
    x = np.float32([ROW])
    tensor = oip_pb2.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=x.shape)
    message = oip_pb2.ModelInferRequest(
        model_name="mlp", inputs=[tensor], raw_input_contents=[x.tobytes()]
    )
    y = onnxruntime.InferenceSession(str(mlp())).run(None, {"x": x})[0]
    return message.SerializeToString(), y.tobytes()


def servers(port: int) -> dict[str, Sequence[str]]:
    """Name -> how to start it."""
    bare = Path(__file__).parent / "peers" / "serve_bare_grpc.py"
    program = str(Path(sys.executable).with_name("autoglm"))
    address = f"127.0.0.1:{port}"
    return {
        "grpc.aio bare": [sys.executable, str(bare), str(mlp()), str(port)],
        "autoglm": [program, "serve", f"mlp={bundle()}", "--grpc", address],
    }


async def load(port: int, concurrency: int, seconds: float) -> tuple[list[float], int]:
    """Each call's seconds, and how many answers were wrong."""
    sent, right = question()
    took: list[float] = []
    wrong = 0
    end = time.perf_counter() + seconds

    async def caller(call: grpc.aio.UnaryUnaryMultiCallable) -> None:
        nonlocal wrong
        while (begun := time.perf_counter()) < end:
            answer = oip_pb2.ModelInferResponse.FromString(await call(sent, wait_for_ready=True))
            took.append(time.perf_counter() - begun)
            got = np.frombuffer(answer.raw_output_contents[0], np.float32)
            wrong += not np.allclose(got, np.frombuffer(right, np.float32), rtol=1e-4, atol=1e-5)

    own = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", own) for _ in range(4)]
    calls = [channel.unary_unary(METHOD) for channel in channels]
    await asyncio.gather(*(caller(calls[i % 4]) for i in range(concurrency)))
    await asyncio.gather(*(channel.close() for channel in channels))
    return took, wrong


def rows(name: str, seconds: float) -> list[dict[str, object]]:
    """One start of a server, and load at each concurrency."""
    port = free_port()
    with (FOLDER / "rpc.log").open("wb") as log:
        process = subprocess.Popen(servers(port)[name], stdout=log, stderr=log)
    try:
        asyncio.run(load(port, 16, min(seconds, 2)))  # warm
        served = Served(process, 0.0)
        made: list[dict[str, object]] = []
        for concurrency in CONCURRENCY:
            before = served.cpu_s()
            took, wrong = asyncio.run(load(port, concurrency, seconds))
            used = served.cpu_s() - before
            p50, p99 = np.percentile(took, (50, 99)) * 1e3
            made.append(
                {
                    "server": name,
                    "c": concurrency,
                    "per_s": len(took) / seconds,
                    "p50_ms": float(p50),
                    "p99_ms": float(p99),
                    "cpu_us": used / len(took) * 1e6,
                    "pss_mb": served.pss_mb(),
                    "wrong": wrong,
                }
            )
        return made
    finally:
        process.terminate()
        process.wait(20)


def main() -> int:
    """Print a line for each server and concurrency."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    bundle()
    found: list[dict[str, object]] = []
    for _ in range(1 if quick else 3):
        for name in servers(0):
            found += rows(name, 1.0 if quick else 6.0)
    table(["server", "c", "per_s", "p50_ms", "p99_ms", "cpu_us", "pss_mb", "wrong"], found)
    save("rpc", found)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
