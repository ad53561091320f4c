"""OpenVINO: the precision asked for is the one computed in; what it narrows silently is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from models import Builder, chain, cnn, feeds, mlp, transformer

from autoglm.backends.openvino import OpenVino
from autoglm.backends.openvino.engine import reason
from autoglm.errors import CompileError, ConfigError, ExecutionError
from autoglm.spec import CompileOptions, RunOptions
from autoglm.tensor.dtype import DTYPES

pytest.importorskip("openvino")
Open = Callable[..., Any]
PRECISIONS = OpenVino().capabilities().precisions
needs_bf16 = pytest.mark.skipif(not PRECISIONS["bf16"].ok, reason=PRECISIONS["bf16"].reason)
needs_int8 = pytest.mark.skipif(not PRECISIONS["int8"].ok, reason=PRECISIONS["int8"].reason)


@pytest.fixture
def open_model(tmp_path: Path) -> Open:
    def opened(model: ir.Model, *, run: RunOptions | None = None, **options: Any) -> Any:
        folder = tmp_path / f"artifact{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        artifact = OpenVino().compile(model, CompileOptions(**options), folder)
        return OpenVino().open(artifact, folder, run or RunOptions())

    return opened


def error(open_model: Open, model: ir.Model, **options: Any) -> float:
    golden, answer = (open_model(model, **o).run(feeds(model)) for o in ({}, options))
    return max(float(np.abs(answer[n] - golden[n]).max() / np.abs(golden[n]).max()) for n in golden)


def test_fp32_is_computed_in_float32(open_model: Open) -> None:
    random = np.random.default_rng(0)
    b = Builder()
    model = b.model(b.op("MatMul", b.input("x", ("n", 256)), b.weight(256, 256)))
    weight = next(iter(model.graph.initializers.values())).const_value
    assert weight is not None
    x = random.standard_normal((8, 256)).astype(np.float32)
    exact = x.astype(np.float64) @ weight.numpy().astype(np.float64)

    (found,) = open_model(model).run({"x": x}).values()

    # bfloat16, the plug-in's own default, would be off by 2^-9 and more.
    assert np.abs(found - exact).max() <= 256 * 2.0**-24 * np.abs(exact).max()


@needs_bf16
def test_bf16_is_bfloat16(open_model: Open) -> None:
    # 8 bits: a rounding costs up to 2^-9; a dozen layers, ten times that.
    assert 1e-4 < error(open_model, transformer(width=64, heads=4), precision="bf16") <= 10 / 512


@pytest.mark.skipif(PRECISIONS["fp16"].ok, reason="this CPU has float16 arithmetic")
def test_fp16_is_refused_where_it_would_be_something_else(open_model: Open) -> None:
    with pytest.raises(ConfigError, match="float16 arithmetic"):
        open_model(mlp(), precision="fp16")


def test_a_hint_that_the_plug_in_replaces_is_an_error(open_model: Open) -> None:
    if PRECISIONS["fp16"].ok:
        pytest.skip("this CPU has float16 arithmetic")
    with pytest.raises(CompileError, match="f16"):
        open_model(mlp(), settings={"INFERENCE_PRECISION_HINT": "f16"})


@needs_bf16
def test_single_nodes_cannot_be_kept_high_in_bf16(open_model: Open) -> None:
    with pytest.raises(ConfigError, match="whole model"):
        open_model(mlp(), precision="bf16", keep_high=frozenset({"gemm_0"}))


@needs_int8
@pytest.mark.parametrize("precision", ["int8", "int8-dynamic"])
@pytest.mark.parametrize(
    "model", [cnn(channels=16, size=16), transformer(width=64, heads=4)], ids=["cnn", "transformer"]
)
def test_int8_is_near_fp32_and_honours_kept_nodes(
    open_model: Open, model: ir.Model, precision: str, capfd: pytest.CaptureFixture[str]
) -> None:
    calibration = [feeds(model, seed=seed) for seed in range(1, 17)]
    every = frozenset(node.name or "" for node in model.graph)
    asked = {"precision": precision, "calibration": calibration}

    low = error(open_model, model, **asked)
    kept = error(open_model, model, **asked, keep_high=every)
    half = error(open_model, model, **asked, keep_high=every, beside_int8="bf16")

    assert 1e-5 < low <= 0.1
    assert kept <= 1e-5
    assert half <= 10 / 512
    assert capfd.readouterr().out == ""


@needs_int8
def test_static_int8_without_calibration_says_what_to_do(open_model: Open) -> None:
    with pytest.raises(ConfigError, match="calibration"):
        open_model(cnn(), precision="int8")


@pytest.mark.parametrize("dtype", ["float64", "uint32", "uint64"])
def test_what_would_be_narrowed_is_refused(open_model: Open, dtype: str) -> None:
    with pytest.raises(CompileError, match=dtype):
        open_model(chain("Identity", dtype=dtype))


def test_int64_beyond_32_bits_is_refused_when_it_comes(open_model: Open) -> None:
    session = open_model(chain("Neg", shape=("n",), dtype=np.int64))

    for fits in ([2**31 - 1, -(2**31) + 1], [], [0]):
        x = np.array(fits, np.int64)
        (y,) = session.run({"x": x}).values()
        assert y.dtype == np.int64
        assert np.array_equal(y, -x)
    for wide in (2**31, -(2**31) - 1, 2**40, -(2**63)):
        with pytest.raises(ExecutionError, match="'x'"):
            session.run({"x": np.array([1, wide])})


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "int4", "uint4"])
def test_typed_values_reach_the_engine_and_come_back(open_model: Open, dtype: str) -> None:
    held = DTYPES[dtype].numpy
    model = chain("Identity", shape=("n",), dtype=held)
    x = np.array([1, 0, 2, 1, 3], np.float32).astype(held)

    (y,) = open_model(model).run({"x": x}).values()

    assert y.dtype == held
    assert np.array_equal(x.astype(np.float32), y.astype(np.float32))


def test_int4_weights_are_multiplied_in_float32(open_model: Open) -> None:
    random = np.random.default_rng(0)
    b = Builder(21)
    x = b.input("x", ("n", 64))
    codes = random.integers(-8, 8, (64, 32)).astype(ml_dtypes.int4)
    scales = random.uniform(0.01, 0.1, (2, 32)).astype(np.float32)
    weight = b.op("DequantizeLinear", b.constant(codes), b.constant(scales), axis=0, block_size=32)
    model = b.model(b.op("MatMul", x, weight))
    given = random.standard_normal((4, 64)).astype(np.float32)
    exact = given.astype(np.float64) @ (
        codes.astype(np.float64) * np.repeat(scales.astype(np.float64), 32, axis=0)
    )

    (found,) = open_model(model).run({"x": given}).values()

    assert np.abs(found - exact).max() <= 64 * 2.0**-24 * np.abs(exact).max()


def test_a_declared_shape_that_the_engine_contradicts_is_refused(open_model: Open) -> None:
    b = Builder()
    proto = b.proto(b.op("Relu", b.input("x", (2, 4))))
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 5

    with pytest.raises(CompileError, match=r"\[2, 5\]"):
        open_model(ir.from_proto(proto))


def test_a_wrong_setting_is_named(open_model: Open) -> None:
    with pytest.raises(CompileError, match="NO_SUCH_KEY"):
        open_model(mlp(), settings={"NO_SUCH_KEY": "1"})


def test_profile_names_the_nodes(open_model: Open) -> None:
    model = chain("Erf", "Tanh", shape=(64, 64))

    with open_model(model, run=RunOptions(profile=True)) as session:
        session.run(feeds(model))
        rows = session.profile()

    assert {part for name, _ in rows for part in name.split(",")} == {"erf_0", "tanh_1"}
    assert all(seconds > 0 for _, seconds in rows)
    with open_model(model) as session, pytest.raises(ExecutionError, match="profile=True"):
        session.profile()


def test_no_telemetry_is_loaded_and_nothing_is_written_home(tmp_path: Path) -> None:
    code = (
        "import sys; from autoglm.backends.openvino.engine import core; core().available_devices;"
        "print(sorted(m for m in sys.modules if m.startswith('openvino_telemetry')))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )

    assert done.stdout.strip() == "[]"
    assert list(tmp_path.iterdir()) == []


def test_plain_facts_load_no_engine() -> None:
    code = (
        "import sys; from autoglm.backends.openvino import OpenVino as B;"
        "b = B(); b.version(); b.capabilities();"
        "print([m for m in ('openvino', 'nncf', 'onnx_ir', 'torch') if m in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_reasons_keep_the_refused_operators_and_lose_the_paths() -> None:
    raw = (
        "Exception from src/inference/src/cpp/core.cpp:84:\nCheck 'false' failed at "
        "src/frontends/x.cpp:151:\nFrontEnd API failed with OpConversionFailure:\n"
        "Model wasn't fully converted.\nSummary:\n"
        "-- No conversion rule found for operations: StringNormalizer-21\n\n"
    )

    found = reason(RuntimeError(raw))

    assert found == "No conversion rule found for operations: StringNormalizer-21"
