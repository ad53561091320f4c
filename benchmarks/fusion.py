"""What fusion gives: Conv+ReLU and MatMul+Bias, on and off, per engine, beside the
specification's «30 %» and «25 %».

    python -m benchmarks.fusion

ONNX Runtime: one optimiser is switched off by name, all else stays (so layout is the same on both
sides), and once all optimisation is off, which is what the specification's figure resembles.
PyTorch: Inductor against eager. OpenVINO has no switch: "off" makes every intermediate tensor a
graph output, which no fusion survives, and so contains those copies. Every pair is timed in turn,
with an A/A control.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from autoglm.runtime.timing import interleave

DEPTH = 6
CASES = {
    "Conv3x3+ReLU 64ch 56x56": ("conv", (1, 64, 56, 56), 3),
    "Conv1x1+ReLU 64ch 56x56": ("conv", (1, 64, 56, 56), 1),
    "Conv3x3+ReLU 16ch 112x112": ("conv", (1, 16, 112, 112), 3),
    "MatMul+Bias 128x768": ("matmul", (128, 768), 0),
    "MatMul+Bias 8x128x256": ("matmul", (8, 128, 256), 0),
}
FUSION = {"conv": "ConvActivationFusion", "matmul": "MatMulAddFusion"}
CLAIM = {"conv": "30 %", "matmul": "25 %"}
Feed = dict[str, np.ndarray]


def chain(
    kind: str, shape: tuple[int, ...], kernel: int, *, expose: bool = False
) -> onnx.ModelProto:
    """DEPTH times the pair, with seeded weights; `expose` makes every intermediate an output."""
    rng = np.random.default_rng(3)
    nodes, weights, names = [], [], ["x"]
    for i in range(DEPTH):
        if kind == "conv":
            w = rng.standard_normal((shape[1], shape[1], kernel, kernel)) / kernel / shape[1] ** 0.5
            nodes += [
                helper.make_node("Conv", [names[-1], f"w{i}"], [f"c{i}"], pads=[kernel // 2] * 4),
                helper.make_node("Relu", [f"c{i}"], [f"y{i}"]),
            ]
        else:
            w = rng.standard_normal((shape[-1], shape[-1])) / shape[-1] ** 0.5
            bias = rng.standard_normal(shape[-1]).astype(np.float32)
            weights.append(numpy_helper.from_array(bias, f"b{i}"))
            nodes += [
                helper.make_node("MatMul", [names[-1], f"w{i}"], [f"c{i}"]),
                helper.make_node("Add", [f"c{i}", f"b{i}"], [f"y{i}"]),
            ]
        weights.append(numpy_helper.from_array(w.astype(np.float32), f"w{i}"))
        names.append(f"y{i}")
    outputs = [names[-1]] + ([n.output[0] for n in nodes[:-1]] if expose else [])
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in outputs],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def onnxruntime(
    model: onnx.ModelProto, feed: Feed, disabled: list[str], level: str
) -> Callable[[], object]:
    """A session with the named optimisers off."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = ort.InferenceSession(
        model.SerializeToString(), options, ["CPUExecutionProvider"], disabled_optimizers=disabled
    )
    return lambda: session.run(None, feed)


def openvino(model: onnx.ModelProto, feed: Feed) -> Callable[[], object]:
    """A request with its input bound, at fp32."""
    import io

    import openvino as ov

    core = ov.Core()
    loaded = core.read_model(io.BytesIO(model.SerializeToString()))
    request = core.compile_model(
        loaded, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    ).create_infer_request()
    request.set_tensor("x", ov.Tensor(feed["x"], shared_memory=True))
    return request.infer


def torch_calls(
    kind: str, shape: tuple[int, ...], kernel: int, feed: Feed
) -> dict[str, Callable[[], object]]:
    """The same chain in PyTorch, eager and through Inductor; empty without torch."""
    try:
        import torch
    except ImportError:
        print("  torch: not run, it is not installed")
        return {}
    layers: list[torch.nn.Module] = []
    for _ in range(DEPTH):
        if kind == "conv":
            layers += [
                torch.nn.Conv2d(shape[1], shape[1], kernel, padding=kernel // 2),
                torch.nn.ReLU(),
            ]
        else:
            layers += [torch.nn.Linear(shape[-1], shape[-1])]
    net = torch.nn.Sequential(*layers).eval()
    x = torch.from_numpy(feed["x"])
    fused = torch.compile(net)

    def call(what: Callable[[torch.Tensor], object]) -> Callable[[], object]:
        def run() -> object:
            with torch.inference_mode():
                return what(x)

        return run

    return {"torch on": call(fused), "torch off": call(net)}


def main() -> None:
    """Print time off / time on for every case and engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=float, default=6.0)
    args = parser.parse_args()
    print(f"{'case':28}{'engine':30}{'off/on':>8}{'gain':>8}{'A/A':>7}  specification")
    for name, (kind, shape, kernel) in CASES.items():
        feed = {"x": np.random.default_rng(1).standard_normal(shape, np.float32)}
        model = chain(kind, shape, kernel)
        on = ("ORT_ENABLE_ALL", [])
        calls = {
            "ort on": onnxruntime(model, feed, on[1], on[0]),
            "ort A/A": onnxruntime(model, feed, on[1], on[0]),
            "ort off": onnxruntime(model, feed, [FUSION[kind]], "ORT_ENABLE_ALL"),
            "ort all off": onnxruntime(model, feed, [], "ORT_DISABLE_ALL"),
            "ov on": openvino(model, feed),
            "ov off": openvino(chain(kind, shape, kernel, expose=True), feed),
            **torch_calls(kind, shape, kernel, feed),
        }
        ms = {
            k: s.median
            for k, s in interleave(calls, budget_s=args.budget, least=15, gap_s=0.01).items()
        }
        control = ms["ort A/A"] / ms["ort on"]
        for label, off, base in (
            (f"onnxruntime {FUSION[kind]}", "ort off", "ort on"),
            ("onnxruntime all optimisation", "ort all off", "ort on"),
            ("openvino (outputs exposed)", "ov off", "ov on"),
            ("torch eager against inductor", "torch off", "torch on"),
        ):
            if off in ms:
                ratio = ms[off] / ms[base]
                print(
                    f"{name:28}{label:30}{ratio:8.2f}{(1 - 1 / ratio) * 100:7.0f}%"
                    f"{control:7.2f}  {CLAIM[kind]}"
                )


if __name__ == "__main__":
    main()
