"""REST: our gateway beside bare uvicorn, mosec, LitServe, KServe, MLServer and BentoML.

    python -m benchmarks.serving.http [--quick] [--peers none|all|NAME,…]

Each peer has an environment of its own below build/serving/venv, made when first asked for. Rounds
are interleaved: every server once, then every server again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.serving.common import (
    FOLDER,
    ROW,
    bundle,
    environment,
    free_port,
    mlp,
    press,
    save,
    serving,
    table,
)

PEERS = Path(__file__).parent / "peers"
CONCURRENCY = (1, 16, 64)
_ORT = ("onnxruntime", "numpy")


@dataclass(frozen=True)
class Server:
    """How to start one, and what to ask it."""

    name: str
    argv: Callable[[int], Sequence[str]]
    path: str
    body: dict[str, object]


def ours() -> Server:
    """`autoglm serve`, as a user starts it."""
    program = str(Path(sys.executable).with_name("autoglm"))
    place = str(bundle().absolute())
    return Server(
        "autoglm",
        lambda port: [program, "serve", f"mlp={place}", "--http", f"127.0.0.1:{port}"],
        "/v1/infer",
        {"model_name": "mlp", "version": "1", "data": [ROW]},
    )


def oip() -> Server:
    """The same, asked by the Open Inference Protocol."""
    return Server("autoglm v2", ours().argv, "/v2/models/mlp/infer", _v2())


def bare() -> Server:
    """The floor: a bare ASGI application on uvicorn that runs the model itself."""
    return Server(
        "uvicorn bare", _script(Path(sys.executable), "serve_bare.py"), "/", {"data": [ROW]}
    )


def peer(name: str) -> Server:
    """A peer in its own environment."""
    packages, path, body = _PEERS[name]
    python = environment(name.split()[0], [*packages, *_ORT])
    return Server(name, _script(python, f"serve_{name.replace(' ', '_')}.py"), path, body)


def _v2() -> dict[str, object]:
    row = {"name": "x", "datatype": "FP32", "shape": [1, len(ROW)], "data": ROW}
    return {"inputs": [row]}


_PEERS: dict[str, tuple[list[str], str, dict[str, object]]] = {
    "mosec": (["mosec"], "/inference", {"data": ROW}),
    "mosec batched": (["mosec"], "/inference", {"data": ROW}),
    "litserve": (["litserve"], "/predict", {"data": ROW}),
    "kserve": (["kserve"], "/v1/models/mlp:predict", {"instances": [ROW]}),
    "mlserver": (["mlserver"], "/v2/models/mlp/infer", _v2()),
    "bentoml": (["bentoml"], "/predict", {"x": [ROW]}),
}


def _script(python: Path, name: str) -> Callable[[int], Sequence[str]]:
    model = str(mlp().absolute())
    return lambda port: [str(python), str((PEERS / name).absolute()), model, str(port)]


def row(server: Server, seconds: float) -> list[dict[str, object]]:
    """One start of a server, and load at each concurrency."""
    port = free_port()
    url = f"http://127.0.0.1:{port}{server.path}"
    body = json.dumps(server.body).encode()
    log = FOLDER.absolute() / f"{server.name.replace(' ', '_')}.log"
    rows: list[dict[str, object]] = []
    with serving(server.argv(port), url, body, log, FOLDER) as served:
        press(served, url, body, 16, min(seconds, 2))  # warm
        for concurrency in CONCURRENCY:
            load = press(served, url, body, concurrency, seconds)
            facts = {"server": server.name, "c": concurrency, "cold_s": served.cold_s}
            rows.append({**facts, "pss_mb": served.pss_mb(), **asdict(load)})
    return rows


def main() -> int:
    """Print a line for each server and concurrency, and our ratio to each peer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--peers", default="all")
    args = parser.parse_args()
    wanted = {"none": [], "all": list(_PEERS)}.get(args.peers, args.peers.split(","))
    servers = [bare(), ours(), oip(), *_made(wanted)]
    rows: list[dict[str, object]] = []
    for _ in range(1 if args.quick else 3):
        for server in servers:
            try:
                rows += row(server, 1.0 if args.quick else 6.0)
            except SystemExit as error:
                print(f"{server.name}: {error}", file=sys.stderr)
    head = ["server", "c", "per_s", "p50_ms", "p99_ms", "cpu_us", "cold_s", "pss_mb", "errors"]
    table(head, rows)
    print()
    table(["server", "c", "ours/theirs per_s", "theirs/ours p99", "theirs/ours cpu"], ratios(rows))
    save("http", rows)
    return 0


def _made(names: Sequence[str]) -> list[Server]:
    made = []
    for name in names:
        try:
            made.append(peer(name))
        except Exception as error:  # a peer that cannot be installed here is said, not hidden
            print(f"{name}: not installed: {error}", file=sys.stderr)
    return made


def ratios(rows: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    """Median of ours over median of each."""
    from statistics import median

    def middle(server: str, c: int, key: str) -> float:
        return float(
            median(float(str(r[key])) for r in rows if (r["server"], r["c"]) == (server, c))
        )

    found: list[dict[str, object]] = []
    for server in dict.fromkeys(str(r["server"]) for r in rows):
        for c in CONCURRENCY:
            if server == "autoglm":
                continue
            found.append(
                {
                    "server": server,
                    "c": c,
                    "ours/theirs per_s": middle("autoglm", c, "per_s") / middle(server, c, "per_s"),
                    "theirs/ours p99": middle(server, c, "p99_ms") / middle("autoglm", c, "p99_ms"),
                    "theirs/ours cpu": middle(server, c, "cpu_us") / middle("autoglm", c, "cpu_us"),
                }
            )
    return found


if __name__ == "__main__":
    raise SystemExit(main())
