"""What the serving benchmarks share: the small model, a server's process tree, and load by wrk."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import psutil
from onnx import TensorProto, helper, numpy_helper

import autoglm

FOLDER = Path("build/serving")
WIDTH = 128
ROW = np.random.default_rng(3).standard_normal(WIDTH).astype(np.float32).round(5).tolist()


def mlp() -> Path:
    """A 128 -> 64 -> 10 network with any number of rows, as an ONNX file made once."""
    path = FOLDER / "mlp.onnx"
    if path.exists():
        return path
    FOLDER.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    sizes = {"w1": (WIDTH, 64), "b1": (64,), "w2": (64, 10), "b2": (10,)}
    weights = [
        numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n)
        for n, s in sizes.items()
    ]
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["a"], name="relu"),
        helper.make_node("Gemm", ["a", "w2", "b2"], ["y"], name="second"),
    ]
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def bundle() -> Path:
    """The same, compiled for ONNX Runtime."""
    out = FOLDER / "mlp"
    if not (out / "bundle.json").exists():
        autoglm.compile(mlp(), out, backend="onnxruntime")
    return out


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass(frozen=True)
class Load:
    """One run of the load generator."""

    requests: int
    per_s: float
    p50_ms: float
    p99_ms: float
    errors: int
    cpu_us: float  # of the server's process tree, user and system, per request


class Served:
    """A server's process tree."""

    def __init__(self, process: subprocess.Popen[bytes], cold_s: float) -> None:
        self._root = psutil.Process(process.pid)
        self.cold_s = cold_s

    def tree(self) -> list[psutil.Process]:
        """It and all that it started."""
        return [self._root, *self._root.children(recursive=True)]

    def cpu_s(self) -> float:
        """User and system time so far."""
        times = [p.cpu_times() for p in self.tree()]
        return float(sum(t.user + t.system for t in times))

    def pss_mb(self) -> float:
        """Proportional set size: shared pages counted once."""
        return float(sum(p.memory_full_info().pss for p in self.tree())) / 1e6


@contextmanager
def serving(argv: Sequence[str], url: str, body: bytes, log: Path, cwd: Path) -> Iterator[Served]:
    """Start a server, wait for its first right answer, end it and all its children."""
    begun = time.perf_counter()
    with log.open("wb") as out:
        process = subprocess.Popen(argv, stdout=out, stderr=out, cwd=cwd)
    try:
        wait_for(url, body, process, log)
        yield Served(process, time.perf_counter() - begun)
    finally:
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for one in tree:
            one.terminate()
        _, alive = psutil.wait_procs(tree, timeout=20)
        for one in alive:
            one.kill()
        process.wait(20)


def wait_for(url: str, body: bytes, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the first 200."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if len(post(url, body)) > 10:
                return
        except OSError:
            time.sleep(0.01)
    raise SystemExit(f"no answer from {url}; the last lines of {log}:\n{log.read_text()[-2000:]}")


def post(url: str, body: bytes) -> bytes:
    """One request; raises OSError for anything but a 200."""
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return bytes(answer.read())


def press(served: Served, url: str, body: bytes, concurrency: int, seconds: float) -> Load:
    """Load by wrk with one thread, keep-alive."""
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is needed: apt-get install wrk")
    script = FOLDER / "post.lua"
    text = body.decode().replace("\\", "\\\\").replace("'", "\\'")
    script.write_text(
        f"wrk.method='POST'\nwrk.headers['content-type']='application/json'\nwrk.body='{text}'\n"
    )
    argv = ["wrk", "-t1", f"-c{concurrency}", f"-d{seconds:g}s", "--latency", "-s", str(script)]
    before = served.cpu_s()
    told = subprocess.run([*argv, url], capture_output=True, text=True, check=True).stdout
    used = served.cpu_s() - before
    requests = int(_found(r"(\d+) requests in", told))
    errors = re.search(r"Non-2xx or 3xx responses: (\d+)", told)
    return Load(
        requests,
        float(_found(r"Requests/sec:\s+([\d.]+)", told)),
        _ms(_found(r"50%\s+(\S+)", told)),
        _ms(_found(r"99%\s+(\S+)", told)),
        int(errors[1]) if errors else 0,
        used / max(requests, 1) * 1e6,
    )


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise SystemExit(f"wrk said something else:\n{text}")
    return match[1]


def _ms(text: str) -> float:
    value, unit = re.fullmatch(r"([\d.]+)(\D+)", text).groups()  # type: ignore[union-attr]
    return float(value) * {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}[unit]


def environment(name: str, packages: Sequence[str]) -> Path:
    """The Python of a peer's own virtual environment, made once; "" parts are left out."""
    place = FOLDER.absolute() / "venv" / name
    python = place / "bin" / "python"
    if not (place / ".made").exists():
        print(f"making {place} with {', '.join(packages)}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
        (place / ".made").touch()
    return python


def save(name: str, rows: object) -> None:
    """The figures as JSON, beside the models."""
    (FOLDER / f"{name}.json").write_text(json.dumps(rows, indent=2))


def table(head: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Rows as columns of text."""
    lines = [head, *([_shown(row.get(h, "")) for h in head] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        print("  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)))


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
