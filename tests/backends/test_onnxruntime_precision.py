"""ONNX Runtime's lower precisions: how far from fp32, what stays in fp32, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from models import cnn, feeds, transformer

from autoglm.backends.onnxruntime import OnnxRuntime
from autoglm.errors import ConfigError
from autoglm.spec import CompileOptions, RunOptions

MODELS: dict[str, Callable[[], ir.Model]] = {
    "cnn": lambda: cnn(channels=16, size=16),
    "transformer": lambda: transformer(width=64, heads=4),
}
# fp16 keeps 11 bits, so each rounding costs 2^-11; through a dozen layers, ten times that.
# int8 steps are 1/255 of the range; errors of many products average out, the range does not.
BOUND = {"fp16": 10 * 2.0**-11, "int8": 0.1, "int8-dynamic": 0.1}


def compiled(
    model: ir.Model, folder: Path, precision: str, keep: frozenset[str] = frozenset()
) -> tuple[dict[str, Any], onnx.ModelProto]:
    """The answer to `feeds(model)`, and the graph that was written."""
    folder.mkdir()
    calibration = [feeds(model, seed=seed) for seed in range(1, 17)]
    options = CompileOptions(precision=precision, calibration=calibration, keep_high=keep)
    artifact = OnnxRuntime().compile(model, options, folder)
    with OnnxRuntime().open(artifact, folder, RunOptions()) as session:
        answer = session.run(feeds(model))
    return answer, onnx.load(folder / "model.onnx")


def error(answer: dict[str, Any], golden: dict[str, Any]) -> float:
    return max(
        float(np.abs(answer[name] - golden[name]).max() / np.abs(golden[name]).max())
        for name in golden
    )


@pytest.mark.parametrize("precision", BOUND)
@pytest.mark.parametrize("kind", MODELS)
def test_a_lower_precision_is_near_fp32_but_is_not_fp32(
    tmp_path: Path, kind: str, precision: str
) -> None:
    model = MODELS[kind]()
    golden, _ = compiled(model, tmp_path / "fp32", "fp32")

    answer, _ = compiled(model, tmp_path / "low", precision)

    assert all(value.dtype == np.float32 for value in answer.values())
    assert 1e-6 < error(answer, golden) <= BOUND[precision]


@pytest.mark.parametrize("precision", BOUND)
@pytest.mark.parametrize("kind", MODELS)
def test_nodes_kept_high_are_fp32_in_the_graph(tmp_path: Path, kind: str, precision: str) -> None:
    model = MODELS[kind]()
    every = frozenset(node.name or "" for node in model.graph)
    golden, _ = compiled(model, tmp_path / "fp32", "fp32")

    answer, written = compiled(model, tmp_path / "kept", precision, every)

    low = {"DynamicQuantizeLinear", "QuantizeLinear", "MatMulInteger", "QLinearMatMul"}
    assert low.isdisjoint(node.op_type for node in written.graph.node)
    assert error(answer, golden) <= 1e-5


@pytest.mark.parametrize("precision", ["fp16", "int8", "int8-dynamic"])
def test_one_kept_node_alone_stays(tmp_path: Path, precision: str) -> None:
    model = MODELS["cnn"]()

    _, without = compiled(model, tmp_path / "without", precision)
    _, kept = compiled(model, tmp_path / "kept", precision, frozenset({"head"}))

    def floats(proto: onnx.ModelProto) -> set[str]:
        return {t.name for t in proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT}

    assert floats(kept) - floats(without)


def test_static_int8_without_calibration_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        OnnxRuntime().compile(cnn(), CompileOptions(precision="int8"), tmp_path)

    assert "calibration" in str(caught.value)
    assert "int8-dynamic" in caught.value.hint


def test_fp16_halves_the_weights(tmp_path: Path) -> None:
    model = transformer(width=128, heads=4)

    for precision in ("fp32", "fp16"):
        (tmp_path / precision).mkdir()
        OnnxRuntime().compile(
            model, CompileOptions(precision=precision, optimize=False), tmp_path / precision
        )

    size = {p: (tmp_path / p / "model.data").stat().st_size for p in ("fp32", "fp16")}
    assert size["fp16"] <= 0.55 * size["fp32"]


def test_quantising_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for precision in ("fp16", "int8", "int8-dynamic"):
        compiled(MODELS["cnn"](), tmp_path / precision, precision)

    out, err = capfd.readouterr()
    assert out == ""
    assert err == ""


def test_dynamic_int8_of_a_model_with_nothing_to_quantise_is_refused(tmp_path: Path) -> None:
    text = '<ir_version: 9, opset_import: ["": 17]> g (float[4] x) => (float[4] y) {y = Relu(x)}'
    model = ir.from_proto(onnx.parser.parse_model(text))

    with pytest.raises(ConfigError) as caught:
        OnnxRuntime().compile(model, CompileOptions(precision="int8-dynamic"), tmp_path)

    assert "MatMul, Gemm, LSTM" in str(caught.value)
