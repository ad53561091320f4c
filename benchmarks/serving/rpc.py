"""gRPC: our gateway beside bare grpc.aio, KServe and MLServer.

    python -m benchmarks.serving.rpc [--quick] [--peers none|all|NAME,…] [--prepare]

The load is `autoglm bench-serve`'s: four connections of a grpc.aio client in this process, every
answer compared, the first one with the model itself. That client costs about as much as a grpc.aio
server, so requests/s are the pair's (`generator` near 1: the client was the limit); the server's
CPU is that of its own process tree.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from autoglm.errors import ServeError
from autoglm.serve.load.grpc import Grpc
from autoglm.serve.load.target import Target
from benchmarks.serving.common import (
    FOLDER,
    PEERS,
    ROW,
    bundle,
    check,
    free_port,
    mlp,
    serving,
)
from benchmarks.serving.compare import OURS, compare, environment, timed


@dataclass(frozen=True)
class Server:
    """How to start one on a port for gRPC."""

    name: str
    argv: Callable[[int], Sequence[str]]

    def __str__(self) -> str:
        return self.name


def ours() -> Server:
    """`autoglm serve`, as a user starts it."""
    program = str(Path(sys.executable).with_name("autoglm"))
    place = str(bundle().absolute())
    return Server(
        OURS, lambda port: [program, "serve", f"mlp={place}", "--grpc", f"127.0.0.1:{port}"]
    )


def bare() -> Server:
    """The floor: bare grpc.aio."""
    return Server("grpc.aio bare", _script(Path(sys.executable), "serve_bare_grpc.py"))


def peer(name: str) -> Server:
    """A peer in its own environment."""
    return Server(name, _script(environment(name), f"serve_{name}.py", "--grpc"))


def _script(python: Path, name: str, *more: str) -> Callable[[int], Sequence[str]]:
    model = str(mlp().absolute())
    return lambda port: [str(python), str((PEERS / name).absolute()), model, str(port), *more]


def rows(server: Server, seconds: float) -> list[dict[str, object]]:
    """One start of a server, its first answer checked, and load at each concurrency."""
    port = free_port()
    wire = Grpc(Target(f"grpc://127.0.0.1:{port}", "mlp", timeout_s=10))
    first: list[np.ndarray] = []

    def answered() -> bool:
        try:
            outputs = wire.first({"x": np.float32([ROW])}, None)
        except ServeError:
            return False
        first.extend(outputs.values())
        return True

    log = FOLDER.absolute() / f"rpc_{server.name.replace(' ', '_')}.log"
    with serving(server.argv(port), answered, log, FOLDER) as served:
        check(server.name, first[0])
        if not seconds:
            return [{"server": server.name, "cold_s": served.cold_s, "pss_mb": served.pss_mb()}]
        return [{"server": server.name, **row} for row in timed(served, wire.press, seconds)]


if __name__ == "__main__":
    peers = {name: partial(peer, name) for name in ("kserve", "mlserver")}
    raise SystemExit(compare("rpc", peers, [bare(), ours()], rows))
