"""Models of other frameworks, made and answered by those frameworks, against our answers.

    python -m benchmarks.frontends [NAME ...] [--backends onnxruntime,openvino]

One line each: transposes as converted, as left by the passes, and the difference from the
framework's own answer. Frameworks whose toolchain is not installed are named and left out.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

import autoglm
from autoglm.registry import frontend_for
from autoglm.rewrite.prepare import prepare
from autoglm.toolchain.environment import find

MAKERS = Path(__file__).parent / "makers"
MODELS = {
    "tensorflow": {
        "cnn": "cnn",
        "transformer": "transformer",
        "mobilenet": "mobilenet",
        "efficientnet": "efficientnet",
        "cnn-keras": "cnn-keras.keras",
        "cnn-lite": "cnn-lite.tflite",
        "transformer-lite": "transformer-lite.tflite",
        "cnn-int8": "cnn-int8.tflite",
    },
    "mindspore": {"cnn": "cnn.mindir"},
}


@dataclass(frozen=True, slots=True)
class Agreement:
    """One model on one backend against its own framework."""

    before: int  # transposes as converted
    after: int
    nodes: int
    error: float  # largest difference over the largest magnitude
    steps: float | None  # largest difference of a quantised output, in its steps


def make(framework: str, folder: Path, *names: str) -> Path:
    """The framework's models below `folder`, with its own answers."""
    environment = find(framework)
    assert environment is not None
    folder.mkdir(parents=True, exist_ok=True)
    script = MAKERS / f"{framework}_models.py"
    argv = [str(environment.python), "-I", str(script), str(folder), *names]
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "", "GLOG_v": "3"}
    environment.run(argv, log=folder / "make.log", timeout_s=900, extra_env=quiet)
    return folder


def agreement(converted: ir.Model, answers: Path, backend: str) -> Agreement:
    """Compile the converted model, run it, compare."""
    prepared, _ = prepare(converted)
    known = np.load(answers)
    x, wanted = known["x"], known["y"]
    with autoglm.open(converted, backend=backend) as session:
        (output,) = session.run({session.inputs[0].name: x}).values()
    difference = np.abs(output.astype(np.float64) - wanted.astype(np.float64)).max()
    return Agreement(
        *(sum(n.op_type == "Transpose" for n in m.graph) for m in (converted, prepared)),
        len(prepared.graph),
        float(difference / np.abs(wanted.astype(np.float64)).max()),
        float(difference) if wanted.dtype == np.int8 else None,
    )


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", default="onnxruntime,openvino")
    parser.add_argument("models", nargs="*", help="names; all without one")
    options = parser.parse_args()
    backends = options.backends.split(",")
    print("framework  model  backend  nodes  transposes  error")
    for framework, models in MODELS.items():
        if find(framework) is None:
            print(f"{framework}: not installed: autoglm toolchain install {framework}")
            continue
        with tempfile.TemporaryDirectory() as work:
            chosen = [n for n in models if n in (options.models or models)]
            folder = make(framework, Path(work), *chosen) if chosen else Path(work)
            for name in chosen:
                file = models[name]
                path = str(folder / file)
                converted = frontend_for(path).load(path)
                for backend in backends:
                    got = agreement(converted, folder / f"{name}.npz", backend)
                    far = f"{got.error:.1e}" if got.steps is None else f"{got.steps:g} step(s)"
                    moved = f"{got.before} → {got.after}"
                    print(f"{framework}  {name}  {backend}  {got.nodes}  {moved}  {far}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
