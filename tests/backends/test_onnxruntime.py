"""ONNX Runtime: typed values, text, sequences, optionals, settings, shared weights, exact int4."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from models import Builder, chain, cnn, feeds, mlp, transformer
from onnx import TensorProto, helper

from autoglm.backends.onnxruntime import OnnxRuntime
from autoglm.backends.onnxruntime.align import align_weights
from autoglm.backends.onnxruntime.options import reason
from autoglm.errors import BackendUnavailableError, CompileError, ConfigError, ExecutionError
from autoglm.spec import Artifact, CompileOptions, RunOptions
from autoglm.tensor.dtype import DTYPES, to_onnx

Open = Callable[..., Any]


@pytest.fixture
def open_model(tmp_path: Path) -> Open:
    def opened(model: ir.Model, *, run: RunOptions | None = None, **options: Any) -> Any:
        folder = tmp_path / f"artifact{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        artifact = OnnxRuntime().compile(model, CompileOptions(**options), folder)
        return OnnxRuntime().open(artifact, folder, run or RunOptions())

    return opened


def one_node(op: str, inputs: list[Any], outputs: list[Any], **attributes: Any) -> ir.Model:
    node = helper.make_node(op, [i.name for i in inputs], [o.name for o in outputs], **attributes)
    graph = helper.make_graph([node], "one", inputs, outputs)
    return ir.from_proto(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    )


def tensor(name: str, dtype: int, shape: Any = ("n",)) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


@pytest.mark.parametrize(
    "dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "int4", "uint4"]
)
def test_typed_values_reach_the_engine_and_come_back(open_model: Open, dtype: str) -> None:
    values = np.array([1, 0, 2, 1, 3], np.float32)
    number = to_onnx(dtype)

    down = open_model(one_node("Cast", [tensor("x", 1)], [tensor("y", number)], to=number))
    low = down.run({"x": values})["y"]
    up = open_model(one_node("Cast", [tensor("x", number)], [tensor("y", 1)], to=1))
    high = up.run({"x": low})["y"]

    assert low.dtype == DTYPES[dtype].numpy
    assert np.array_equal(low.astype(np.float32), values)
    assert np.array_equal(high, values)


def test_strided_4_bit_input_is_packed_element_by_element(open_model: Open) -> None:
    wide = np.arange(-8, 8).astype(ml_dtypes.int4)
    session = open_model(one_node("Cast", [tensor("x", TensorProto.INT4)], [tensor("y", 1)], to=1))

    assert session.run({"x": wide[::3]})["y"].tolist() == [-8, -5, -2, 1, 4, 7]


def test_0_d_and_empty_typed_values(open_model: Open) -> None:
    kind = TensorProto.BFLOAT16
    scalar = one_node("Cast", [tensor("x", kind, [])], [tensor("y", kind, [])], to=kind)
    empty = one_node("Cast", [tensor("x", kind, (0, 3))], [tensor("y", kind, (0, 3))], to=kind)

    assert open_model(scalar).run({"x": np.array(1.5, ml_dtypes.bfloat16)})["y"].shape == ()
    assert open_model(empty).run({"x": np.zeros((0, 3), ml_dtypes.bfloat16)})["y"].shape == (0, 3)


def test_text_goes_in_and_out_as_str_objects(open_model: Open) -> None:
    text = TensorProto.STRING
    session = open_model(
        one_node("StringConcat", [tensor("a", text), tensor("b", text)], [tensor("y", text)])
    )

    found = session.run({"a": np.array(["ä", "b"]), "b": np.array(["1", "2"], object)})["y"]

    assert found.dtype == object
    assert found.tolist() == ["ä1", "b2"]


def test_sequences_are_lists_also_when_empty(open_model: Open) -> None:
    given = helper.make_tensor_sequence_value_info("x", 1, None)
    taken = helper.make_tensor_sequence_value_info("y", 1, None)
    session = open_model(one_node("Identity", [given], [taken]))

    for items in ([], [np.ones(2, np.float32), np.zeros((2, 3), np.float32)]):
        found = session.run({"x": items})["y"]
        assert isinstance(found, list)
        assert all(np.array_equal(a, b) for a, b in zip(items, found, strict=True))


def test_an_absent_optional_is_none(open_model: Open) -> None:
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(1, [2]))
    model = one_node(
        "OptionalHasElement",
        [helper.make_value_info("x", kind)],
        [tensor("y", TensorProto.BOOL, [])],
    )
    session = open_model(model)

    assert session.run({"x": np.ones(2, np.float32)})["y"]
    assert not session.run({"x": None})["y"]
    assert not session.run({})["y"]


def test_a_sequence_beside_bfloat16_is_refused_before_it_runs(open_model: Open) -> None:
    sequence = helper.make_tensor_sequence_value_info("y", TensorProto.BFLOAT16, None)
    model = one_node("SequenceConstruct", [tensor("x", TensorProto.BFLOAT16)], [sequence])

    with pytest.raises(CompileError, match="'y'"):
        open_model(model)


def test_int4_weights_are_multiplied_in_float32_unless_int8_is_asked_for(open_model: Open) -> None:
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

    # 64 products in float32: 64 * 2^-24 = 4e-6; with int8 activations it is off by 1e-2.
    assert np.abs(found - exact).max() <= 64 * 2.0**-24 * np.abs(exact).max()


def test_optimize_off_keeps_the_graph_as_it_is(tmp_path: Path) -> None:
    for optimize in (True, False):
        out = tmp_path / str(optimize)
        out.mkdir()
        model = mlp(width=400, layers=2)
        OnnxRuntime().compile(model, CompileOptions(optimize=optimize), out)
        written = onnx.load(out / "model.onnx", load_external_data=False)
        fused = any(node.op_type.startswith("Fused") for node in written.graph.node)
        assert fused is optimize


def test_settings_reach_the_engine_and_wrong_ones_are_named(open_model: Open) -> None:
    settings = {"session.force_spinning_stop": "1", "enable_cpu_mem_arena": "0"}
    open_model(mlp(), settings=settings).run(feeds(mlp()))

    for wrong in (
        {"no_such_setting": "1"},
        {"inter_op_num_threads": "-1"},
        {"execution_mode": "fast"},
        {"enable_mem_pattern": "perhaps"},
    ):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            open_model(mlp(), settings=wrong)


def test_an_unknown_precision_is_refused_with_the_reason(open_model: Open) -> None:
    with pytest.raises(ConfigError, match="bfloat16 kernel"):
        open_model(mlp(), precision="bf16")
    with pytest.raises(ConfigError, match="fp32"):
        open_model(mlp(), precision="fp12")


def weights(path: Path) -> list[dict[str, str]]:
    model = onnx.load(path, load_external_data=False)
    return [
        {e.key: e.value for e in t.external_data}
        for t in model.graph.initializer
        if t.external_data
    ]


@pytest.mark.parametrize("alignment", [64, 8192])
def test_weights_and_packed_weights_are_aligned(tmp_path: Path, alignment: int) -> None:
    b = Builder()
    y = b.input("x", ("n", 301))
    for inside, outside in ((301, 601), (601, 603), (603, 17)):
        y = b.op("Relu", b.op("Gemm", y, b.weight(inside, outside), b.weight(outside)))
    model = b.model(y)

    OnnxRuntime().compile(model, CompileOptions(memory_alignment=alignment), tmp_path)

    entries = weights(tmp_path / "model.onnx")
    packed = [v for e in entries for k, v in e.items() if k.startswith("prepacked")]
    offsets = [int(e["offset"]) for e in entries]
    offsets += [int(n) for text in packed for n in re.findall(r"\|(\d+);", text)]
    assert len(packed) >= 2
    assert all(offset % alignment == 0 for offset in offsets)


def test_an_unknown_entry_in_the_data_file_changes_nothing(tmp_path: Path) -> None:
    OnnxRuntime().compile(mlp(width=600), CompileOptions(), tmp_path)
    model = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    first = next(t for t in model.graph.initializer if t.external_data)
    first.external_data.add(key="prepacked_9", value="kernel|of another form")
    onnx.save(model, tmp_path / "model.onnx")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    with pytest.raises(ValueError):
        align_weights(tmp_path / "model.onnx", 64)

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("model", [cnn(channels=160, size=16), transformer(width=256, heads=4)])
def test_the_optimised_artifact_answers_as_the_plain_one(open_model: Open, model: ir.Model) -> None:
    optimised, plain = open_model(model), open_model(model, optimize=False)

    for name, expected in plain.run(feeds(model)).items():
        scale = np.abs(expected).max()
        assert np.abs(optimised.run(feeds(model))[name] - expected).max() <= 1e-5 * scale


def test_an_artifact_of_another_cpu_is_refused(tmp_path: Path) -> None:
    artifact = OnnxRuntime().compile(mlp(width=600), CompileOptions(), tmp_path)
    foreign = dataclasses.replace(artifact, meta={**artifact.meta, "cpu": "sparc vis3"})

    with pytest.raises(BackendUnavailableError, match="sparc vis3"):
        OnnxRuntime().open(foreign, tmp_path, RunOptions())


_SECOND = """
import sys, json
from pathlib import Path
import numpy as np
from autoglm.backends.onnxruntime import OnnxRuntime
from autoglm.spec import Artifact, RunOptions, TensorInfo
info = lambda n: TensorInfo(n, "float32", (1, 1600))
artifact = Artifact("onnxruntime", "onnx", "model.onnx", "", (info("x"),), (info(sys.argv[2]),),
                    meta=json.loads(sys.argv[3]))
def private():
    rows = dict(r.split(":", 1) for r in open("/proc/self/smaps_rollup").read().splitlines()[1:])
    return sum(int(rows[k].split()[0]) for k in ("Private_Dirty", "Private_Clean")) * 1024
run = lambda s: s.run({"x": np.ones((1, 1600), np.float32)})
with OnnxRuntime().open(artifact, Path(sys.argv[1]), RunOptions(threads=1)) as session:
    run(session)
    print(private(), flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's smaps")
def test_a_second_process_shares_the_weights(tmp_path: Path) -> None:
    model = mlp(batch=1, width=1600, layers=6)
    total = 6 * 1600 * 1600 * 4
    artifact = OnnxRuntime().compile(model, CompileOptions(), tmp_path)
    small_folder = tmp_path / "small"
    small_folder.mkdir()
    small = OnnxRuntime().compile(
        mlp(batch=1, width=1600, layers=1), CompileOptions(), small_folder
    )
    os.sync()  # pages not yet written to disk count as private

    def start(folder: Path, made: Artifact) -> subprocess.Popen[str]:
        facts = [str(folder), made.outputs[0].name, json.dumps(dict(made.meta))]
        argv = [sys.executable, "-c", _SECOND, *facts]
        return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def finish(process: subprocess.Popen[str]) -> None:
        process.communicate(timeout=60)
        assert process.returncode == 0

    first = start(tmp_path, artifact)
    assert first.stdout is not None
    first.stdout.readline()
    second = start(tmp_path, artifact)
    assert second.stdout is not None
    with_weights = int(second.stdout.readline())
    finish(second)
    finish(first)
    one, two = (start(small_folder, small) for _ in range(2))
    assert one.stdout is not None
    assert two.stdout is not None
    one.stdout.readline()
    without = int(two.stdout.readline())
    finish(one)
    finish(two)

    # Five of six layers more: what the second process adds for them.
    assert with_weights - without <= 0.10 * total


def test_profile_names_the_nodes(open_model: Open) -> None:
    model = chain("Relu", "Erf", shape=(64, 64))

    with open_model(model, run=RunOptions(profile=True), optimize=False) as session:
        session.run(feeds(model))
        rows = session.profile()

    assert {name for name, _ in rows} == {"relu_0", "erf_1"}
    assert all(seconds >= 0 for _, seconds in rows)


def test_profile_without_profiling_is_an_error(open_model: Open) -> None:
    with open_model(mlp()) as session, pytest.raises(ExecutionError, match="profile=True"):
        session.profile()


def test_a_failure_inside_the_engine_is_one_clear_line(open_model: Open) -> None:
    b = Builder()
    x = b.input("x", ("n",))
    shape = b.input("shape", (1,), np.int64)
    model = b.model(b.op("Reshape", x, shape, name="bend"))

    with open_model(model) as session, pytest.raises(ExecutionError) as caught:
        session.run({"x": np.zeros(4, np.float32), "shape": np.array([3])})

    text = str(caught.value)
    assert "bend" in text
    assert "\n" not in text
    assert "/onnxruntime_src" not in text
    assert len(text) < 400


def test_reasons_lose_codes_and_paths() -> None:
    raw = "[ONNXRuntimeError] : 1 : FAIL : Load model from /tmp/a.onnx failed:Type Error: bad.\nx"

    assert reason(RuntimeError(raw)) == "Type Error: bad. x"
    assert reason(RuntimeError("")) == "RuntimeError"


def test_importing_the_backend_loads_no_engine() -> None:
    code = (
        "import sys; from autoglm.backends.onnxruntime import OnnxRuntime as B;"
        "b = B(); b.version(); b.probe(); b.capabilities();"
        "print([m for m in ('onnxruntime', 'onnx_ir', 'onnx') if m in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
