"""Models of other frameworks, made and answered by those frameworks, against our answers.

    python -m benchmarks.frontends [--backends onnxruntime,openvino]

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

import autoglm
from autoglm.config import AdaptConfig
from autoglm.runtime.prepare import load
from autoglm.toolchain.environment import find

MAKERS = Path(__file__).parent / "makers"
MODELS = {
    "tensorflow": {
        "cnn": "cnn",
        "transformer": "transformer",
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
    steps: float  # largest difference in steps of a quantised output; 0 for others


def make(framework: str, folder: Path, *names: str) -> Path:
    """The framework's models below `folder`, with its own answers."""
    environment = find(framework)
    assert environment is not None
    script = MAKERS / f"{framework}_models.py"
    argv = [str(environment.python), "-I", str(script), str(folder), *names]
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "", "GLOG_v": "3"}
    environment.run(argv, log=folder / "make.log", timeout_s=900, extra_env=quiet)
    return folder


def agreement(path: Path, answers: Path, backend: str) -> Agreement:
    """Convert, compile, run, compare."""
    loaded = load(str(path), AdaptConfig())
    known = np.load(answers)
    x, wanted = known["x"], known["y"]
    with autoglm.open(str(path), backend=backend) as session:
        (output,) = session.run({session.inputs[0].name: x}).values()
    difference = np.abs(output.astype(np.float64) - wanted.astype(np.float64)).max()
    return Agreement(
        int(loaded.model.metadata_props.get("autoglm.transposes", "0")),
        sum(n.op_type == "Transpose" for n in loaded.model.graph),
        len(loaded.model.graph),
        float(difference / np.abs(wanted.astype(np.float64)).max()),
        float(difference) if wanted.dtype == np.int8 else 0.0,
    )


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", default="onnxruntime,openvino")
    backends = parser.parse_args().backends.split(",")
    print("framework  model  backend  nodes  transposes  error")
    for framework, models in MODELS.items():
        if find(framework) is None:
            print(f"{framework}: not installed: autoglm toolchain install {framework}")
            continue
        with tempfile.TemporaryDirectory() as work:
            folder = make(framework, Path(work))
            for name, file in models.items():
                for backend in backends:
                    got = agreement(folder / file, folder / f"{name}.npz", backend)
                    far = f"{got.steps:g} steps" if got.steps else f"{got.error:.1e}"
                    moved = f"{got.before} → {got.after}"
                    print(f"{framework}  {name}  {backend}  {got.nodes}  {moved}  {far}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
