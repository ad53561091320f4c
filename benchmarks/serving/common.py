"""What the serving benchmarks share: the small model, a server's process tree, and a table."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import psutil
from onnx import TensorProto, helper, numpy_helper

import autoglm

FOLDER = Path("build/serving")
PEERS = Path(__file__).parent / "peers"
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


def right_answer() -> np.ndarray:
    """What every server must say to ROW."""
    session = onnxruntime.InferenceSession(str(mlp()))
    return np.asarray(session.run(None, {"x": np.float32([ROW])})[0])


def check(name: str, found: object) -> None:
    """SystemExit where an answer is not the model's."""
    if not np.allclose(np.float32(found).ravel(), right_answer().ravel(), rtol=1e-4, atol=1e-4):
        raise SystemExit(f"{name}: a wrong answer: {found}")


def free_port() -> int:
    """A port that nobody listens on now, nor on the two above it."""
    for _ in range(100):
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = int(found.getsockname()[1])
        with suppress(OSError), socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", port + 1))
            two.bind(("127.0.0.1", port + 2))
            return port
    raise SystemExit("no three free ports in a row")


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
        """Proportional set size as if nobody else ran: what the tree shares counts once, and what
        it shares with us, who map the same libraries, counts whole.
        """
        own, files = 0.0, dict[str, int]()
        for process in self.tree():
            clean = defaultdict[str, int](int)
            for area in process.memory_maps(grouped=False):
                if area.path.startswith("/"):
                    clean[area.path] += area.rss - area.anonymous
                    own += area.anonymous
                else:
                    own += area.pss
            files |= {path: max(size, files.get(path, 0)) for path, size in clean.items()}
        return (own + sum(files.values())) / 1e6


@contextmanager
def serving(
    argv: Sequence[str], answered: Callable[[], bool], log: Path, cwd: Path
) -> Iterator[Served]:
    """Start a server, wait for its first answer, end it and all its children."""
    begun = time.perf_counter()
    with log.open("wb") as out:
        process = subprocess.Popen(argv, stdout=out, stderr=out, cwd=cwd, env=_environment())
    try:
        wait_for(answered, process, log)
        yield Served(process, time.perf_counter() - begun)
    finally:
        with suppress(psutil.NoSuchProcess):
            _end(psutil.Process(process.pid))
        process.wait(20)


def _end(root: psutil.Process) -> None:
    tree = [root, *root.children(recursive=True)]
    for one in tree:
        with suppress(psutil.NoSuchProcess):
            one.terminate()
    _, alive = psutil.wait_procs(tree, timeout=3)
    for one in alive:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(alive, timeout=20)


def _environment() -> dict[str, str]:
    """Ours; nobody reports to its maker while it is timed."""
    quiet = {"BENTOML_DO_NOT_TRACK": "True", "DO_NOT_TRACK": "1", "PYTHONWARNINGS": "ignore"}
    return {**os.environ, **quiet}


def wait_for(answered: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the first answer."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if answered():
            return
        time.sleep(0.01)
    raise SystemExit(f"no answer; the last lines of {log}:\n{log.read_text()[-2000:]}")


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
