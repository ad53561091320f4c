"""REST: our gateway beside bare uvicorn, mosec, LitServe, KServe, MLServer and BentoML.

    python -m benchmarks.serving.http [--quick] [--peers none|all|NAME,…] [--prepare]

Each peer has an environment of its own in the cache folder (`bench-peers/`), made when first asked
for; `--prepare` makes them, has one answer of each, and ends. The load is `autoglm bench-serve`'s:
every answer is compared, the first one with the model itself. Rounds are interleaved: every server
once, then every server again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from autoglm.serve.load.answers import Judge
from autoglm.serve.load.connection import Address, ask, press, request
from autoglm.serve.load.http import judged, read_oip
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
    """How to start one, what to ask it, and which field of its answer is the result."""

    name: str
    argv: Callable[[int], Sequence[str]]
    path: str
    body: dict[str, object]
    field: str  # "outputs": of the Open Inference Protocol; "": the answer itself

    def __str__(self) -> str:
        return self.name

    def decode(self, body: bytes, headers: object) -> dict[str, np.ndarray]:
        """The numbers in an answer."""
        if self.field == "outputs":
            return dict(read_oip(body, {}))
        value = json.loads(body)
        return {"y": np.float32(value[self.field] if self.field else value)}


def ours() -> Server:
    """`autoglm serve`, as a user starts it."""
    program = str(Path(sys.executable).with_name("autoglm"))
    place = str(bundle().absolute())
    return Server(
        OURS,
        lambda port: [program, "serve", f"mlp={place}", "--http", f"127.0.0.1:{port}"],
        "/v1/infer",
        {"model_name": "mlp", "version": "1", "data": [ROW]},
        "result",
    )


def oip() -> Server:
    """The same, asked by the Open Inference Protocol."""
    return Server("autoglm v2", ours().argv, "/v2/models/mlp/infer", _v2(), "outputs")


def bare() -> Server:
    """The floor: a bare ASGI application on uvicorn that runs the model itself."""
    argv = _script(Path(sys.executable), "serve_bare.py")
    return Server("uvicorn bare", argv, "/", {"data": [ROW]}, "result")


def peer(name: str) -> Server:
    """A peer in its own environment."""
    script, path, body, field = _PEERS[name]
    return Server(name, _script(environment(name.split()[0]), script), path, body, field)


def _v2() -> dict[str, object]:
    row = {"name": "x", "datatype": "FP32", "shape": [1, len(ROW)], "data": ROW}
    return {"id": "bench", "inputs": [row]}


_PEERS: dict[str, tuple[str, str, dict[str, object], str]] = {
    "mosec": ("serve_mosec.py", "/inference", {"data": ROW}, "result"),
    "mosec batched": ("serve_mosec_batched.py", "/inference", {"data": ROW}, "result"),
    "litserve": ("serve_litserve.py", "/predict", {"data": ROW}, "result"),
    "kserve v1": ("serve_kserve.py", "/v1/models/mlp:predict", {"instances": [ROW]}, "predictions"),
    "kserve v2": ("serve_kserve.py", "/v2/models/mlp/infer", _v2(), "outputs"),
    "mlserver": ("serve_mlserver.py", "/v2/models/mlp/infer", _v2(), "outputs"),
    "bentoml": ("serve_bentoml.py", "/predict", {"x": [ROW]}, ""),
}


def _script(python: Path, name: str) -> Callable[[int], Sequence[str]]:
    model = str(mlp().absolute())
    return lambda port: [str(python), str((PEERS / name).absolute()), model, str(port)]


def rows(server: Server, seconds: float) -> list[dict[str, object]]:
    """One start of a server, its first answer checked, and load at each concurrency."""
    address = Address("127.0.0.1", free_port())
    body = json.dumps(server.body).encode()
    said = {"content-type": "application/json"}
    question = request("POST", server.path, f"127.0.0.1:{address.port}", body, said)

    def answered() -> bool:
        try:
            return ask(address, question, 10).status == 200
        except OSError:
            return False

    log = FOLDER.absolute() / f"{server.name.replace(' ', '_')}.log"
    with serving(server.argv(address.port), answered, log, FOLDER) as served:
        first = ask(address, question, 10)
        judge = Judge(server.decode, first.body, first.headers)
        check(server.name, next(iter(judge.outputs.values())))
        if not seconds:
            return [{"server": server.name, "cold_s": served.cold_s, "pss_mb": served.pss_mb()}]

        def load(concurrency: int, seconds: float):  # type: ignore[no-untyped-def]
            return press(address, question, judged(judge), concurrency=concurrency, seconds=seconds)

        return [{"server": server.name, **row} for row in timed(served, load, seconds)]


if __name__ == "__main__":
    raise SystemExit(
        compare("http", {n: partial(peer, n) for n in _PEERS}, [bare(), ours(), oip()], rows)
    )
