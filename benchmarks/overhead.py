"""What the framework adds to one engine call: `Session.run` of a one-partition bundle against the
raw engine.

    python -m benchmarks.overhead [--models tiny,squeezenet,minilm] [--rounds 2000]

The raw side calls the engine's own API with the same artifact and the same settings, inputs given
and outputs returned as NumPy arrays. Both sides take turns, call by call. Bar: at most 10 µs, and
at most 1 % above 1 ms.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import onnx
from onnx import TensorProto, helper

import autoglm
from autoglm.runtime.session import PlanSession
from benchmarks import models


def tiny(folder: Path) -> Path:
    """One Relu over 1x16 floats: nothing but call overhead."""
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 16]) for n in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
    path = folder / "tiny.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path
    )
    return path


def raw_onnxruntime(session: PlanSession) -> Callable[..., object]:
    """ORT's own `run` on the very session that ours holds."""
    engine = session.part(session.partitions[0].id)._engine  # type: ignore[attr-defined]
    names = [o.name for o in engine.get_outputs()]
    return lambda feeds: engine.run(names, feeds)


def raw_openvino(session: PlanSession) -> Callable[..., object]:
    """OpenVINO's request: inputs bound without a copy, outputs copied so that they outlive the
    next call.
    """
    import openvino as ov

    compiled = session.part(session.partitions[0].id)._compiled  # type: ignore[attr-defined]
    request = compiled.create_infer_request()
    outputs = range(len(compiled.outputs))

    def call(feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        for name, array in feeds.items():
            request.set_tensor(name, ov.Tensor(array, shared_memory=True))
        request.infer()
        return [request.get_output_tensor(i).data.copy() for i in outputs]

    return call


RAW = {"onnxruntime": raw_onnxruntime, "openvino": raw_openvino}


def measure(
    path: Path, backend: str, rounds: int, feeds: dict[str, np.ndarray]
) -> tuple[float, float]:
    """Median seconds of the raw call and of ours, in turn."""
    with tempfile.TemporaryDirectory() as out:
        autoglm.compile(path, Path(out) / "b", backend=backend)
        with autoglm.open(Path(out) / "b") as session:
            calls = (RAW[backend](session), session.run)
            for call in calls:
                call(feeds)
            seconds: tuple[list[float], list[float]] = ([], [])
            for turn in range(rounds):
                for which in (0, 1) if turn % 2 else (1, 0):
                    started = time.perf_counter()
                    calls[which](feeds)
                    seconds[which].append(time.perf_counter() - started)
    return median(seconds[0]), median(seconds[1])


def main() -> None:
    """Print one row a model and engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="tiny,squeezenet,minilm,resnet50")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()) / "autoglm-models"
    )
    args = parser.parse_args()
    args.folder.mkdir(exist_ok=True)
    print(
        f"{'model':12} {'engine':12} {'raw µs':>10} {'ours µs':>10} {'added µs':>10} {'added %':>8}"
    )
    for name in args.models.split(","):
        path = tiny(args.folder) if name == "tiny" else models.path_of(name, 1, args.folder)
        feeds = {"x": np.ones((1, 16), np.float32)} if name == "tiny" else models.feeds_of(path)
        rounds = args.rounds or (5000 if name == "tiny" else 100)
        for backend in RAW:
            raw, ours = (s * 1e6 for s in measure(path, backend, rounds, feeds))
            share = (ours - raw) / raw * 100
            print(
                f"{name:12} {backend:12} {raw:10.1f} {ours:10.1f} {ours - raw:10.1f} {share:8.2f}"
            )


if __name__ == "__main__":
    main()
