"""Memory of `run` on 500 MB of weights: peak against the raw engine, and what a second process
adds.

    python -m benchmarks.memory [--megabytes 500]

Peak is VmHWM of a fresh process that opens the model, runs it once, and holds it. "Added" is what
the machine loses when a second such process starts beside the first: the sum of both Pss less the
first one's alone.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH = 2048
HOLD = """
import sys, re
import numpy as np
feeds = {"x": np.ones((4, 2048), np.float32)}
kind, path = sys.argv[1:]
if kind == "ours":
    import autoglm
    session = autoglm.open(path)
    session.run(feeds)
elif kind == "onnxruntime":
    import onnxruntime as ort
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    session.run(None, feeds)
else:
    import openvino as ov
    session = ov.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    session(feeds)
def kib(file, key):
    return int(re.search(key + r":\\s+(\\d+)", open(file).read())[1])
print(kib("/proc/self/status", "VmHWM"), flush=True)
for line in sys.stdin:
    print(kib("/proc/self/smaps_rollup", "\\nPss"), flush=True)
"""


class Holder:
    """A process that holds one session open and tells its memory, in MiB."""

    def __init__(self, kind: str, path: Path) -> None:
        argv = [sys.executable, "-c", HOLD, kind, str(path)]
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.peak = self._read()

    def _read(self) -> float:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline()) / 1024

    def pss(self) -> float:
        """Proportional set size now."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._read()

    def end(self) -> None:
        """Stop it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)


def mlp(path: Path, megabytes: int) -> None:
    """A stack of 2048x2048 MatMul+Relu layers of that many megabytes in all."""
    rng = np.random.default_rng(0)
    depth = round(megabytes * 1e6 / (WIDTH * WIDTH * 4))
    nodes, weights, last = [], [], "x"
    for i in range(depth):
        w = rng.standard_normal((WIDTH, WIDTH), np.float32) * WIDTH**-0.5
        weights.append(numpy_helper.from_array(w, f"w{i}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{i}"], [f"m{i}"]))
        nodes.append(helper.make_node("Relu", [f"m{i}"], [f"y{i}"]))
        last = f"y{i}"
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4, WIDTH]) for n in ("x", last)]
    graph = helper.make_graph(nodes, "mlp", value[:1], value[1:], weights)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path
    )


def main() -> None:
    """Print the table."""
    import autoglm

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=500)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "mlp.onnx"
        mlp(model, args.megabytes)
        print(
            f"{'engine':14}{'raw peak MiB':>14}{'our peak MiB':>14}{'ratio':>8}"
            f"{'raw 2nd adds':>14}{'our 2nd adds':>14}"
        )
        for engine in ("onnxruntime", "openvino"):
            bundle = Path(folder) / engine
            autoglm.compile(model, bundle, backend=engine, force=True)
            figures = []
            for kind, path in ((engine, model), ("ours", bundle)):
                first = Holder(kind, path)
                alone = first.pss()
                second = Holder(kind, path)
                figures.append((first.peak, first.pss() + second.pss() - alone))
                first.end()
                second.end()
            (raw, raw_adds), (ours, our_adds) = figures
            share = 1e6 / 2**20 * args.megabytes
            print(
                f"{engine:14}{raw:14.0f}{ours:14.0f}{ours / raw:8.2f}"
                f"{raw_adds / share:13.0%} {our_adds / share:13.0%}"
            )


if __name__ == "__main__":
    main()
