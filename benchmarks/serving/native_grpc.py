"""pygrpc-native beside grpc.aio: what a call costs, and what of gRPC it does not keep yet.

    pip install pygrpc-native; python -m benchmarks.serving.native_grpc

Its HTTP/2 runs in Rust, and it takes grpc.aio's handlers. docs/protocol.md says what it has to keep
before the gateway can stand on it. The handler gives back 40 bytes; CPU is the server process's.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import psutil

from benchmarks.serving.common import free_port

SERVICE = "test.Test"
TRAILERS = (("grpc-retry-pushback-ms", "1500"),)


async def serve(kind: str, port: int) -> None:
    """Until killed."""
    server = await started(kind, port)
    await server.wait_for_termination()


async def started(kind: str, port: int) -> Any:
    """A server of that kind with two methods: one answers, one refuses."""
    if kind == "native":
        from pygrpc_native.aio import server as make
    else:
        make = grpc.aio.server
    server = make()

    async def answer(raw: bytes, context: Any) -> bytes:
        return raw[:39] + (b"1" if context.time_remaining() is None else b"0")

    async def refuse(raw: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Full.", TRAILERS)

    handlers = {
        "Answer": grpc.unary_unary_rpc_method_handler(answer),
        "Refuse": grpc.unary_unary_rpc_method_handler(refuse),
    }
    # Only what is registered by name runs in Rust.
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_registered_method_handlers(SERVICE, handlers)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    return server


async def press(port: int, concurrency: int, seconds: float) -> int:
    """How many calls were answered."""
    own = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", own) for _ in range(4)]
    calls = [channel.unary_unary(f"/{SERVICE}/Answer") for channel in channels]
    end, done = time.perf_counter() + seconds, 0

    async def caller(call: grpc.aio.UnaryUnaryMultiCallable) -> None:
        nonlocal done
        while time.perf_counter() < end:
            assert len(await call(bytes(512), wait_for_ready=True)) == 40
            done += 1

    await asyncio.gather(*(caller(calls[i % 4]) for i in range(concurrency)))
    await asyncio.gather(*(channel.close() for channel in channels))
    return done


def costs(seconds: float, rounds: int) -> None:
    """CPU of a call, both kinds in turns."""
    ports = {kind: free_port() for kind in ("aio", "native")}
    program = [sys.executable, "-m", "benchmarks.serving.native_grpc", "--serve"]
    servers = {k: subprocess.Popen([*program, k, str(port)]) for k, port in ports.items()}
    try:
        for port in ports.values():
            asyncio.run(press(port, 16, 1.0))
        for concurrency in (16, 64):
            found: dict[str, list[float]] = {kind: [] for kind in ports}
            for _ in range(rounds):
                for kind, port in ports.items():
                    process = psutil.Process(servers[kind].pid)
                    before = sum(process.cpu_times()[:2])
                    calls = asyncio.run(press(port, concurrency, seconds))
                    found[kind].append((sum(process.cpu_times()[:2]) - before) / calls * 1e6)
            for kind, each in found.items():
                print(
                    f"{concurrency:>3} callers  {kind:>6}  {statistics.median(each):6.0f} us a call"
                )
    finally:
        for server in servers.values():
            server.kill()
            server.wait()


async def contract() -> None:
    """What a client of the gateway relies on, in one line each."""
    port = free_port()
    server = await started("native", port)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call, refused = (channel.unary_unary(f"/{SERVICE}/{n}") for n in ("Answer", "Refuse"))
        deflate = grpc.Compression.Deflate
        await told("no deadline is None", lambda: call(bytes(512)), b"1")
        await told("a request by deflate", lambda: call(bytes(512), compression=deflate), b"1")
        await told("an error that says when to try again", lambda: refused(b""), b"")
    try:
        server = await started("native", 0)
        server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(b"", b"")]))
        print("kept     TLS")
    except (NotImplementedError, RuntimeError, ValueError) as error:
        print(f"missing  TLS: {error}")


async def told(what: str, call: Callable[[], Awaitable[bytes]], last: bytes) -> None:
    """Whether the call ends as grpcio lets it end."""
    try:
        async with asyncio.timeout(5):
            kept = (await call())[-1:] == last
        print(f"{'kept' if kept else 'differs':<8} {what}")
    except TimeoutError:
        print(f"hangs    {what}")
    except grpc.aio.AioRpcError as error:
        kept = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        print(f"{'kept' if kept else 'missing':<8} {what}: {error.code().name}, {error.details()}")


def main() -> int:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", nargs=2, metavar=("KIND", "PORT"))
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if args.serve:
        asyncio.run(serve(args.serve[0], int(args.serve[1])))
        return 0
    asyncio.run(contract())
    costs(*((1.0, 3) if args.quick else (4.0, 5)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
