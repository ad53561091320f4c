"""The PyTorch backend's contract: precisions, lifetimes, refusals, laziness."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from models import Builder, cnn, feeds, transformer
from onnx import helper

from autoglm.backends.torch import Torch
from autoglm.errors import (
    BackendUnavailableError,
    BundleError,
    CompileError,
    ConfigError,
    ExecutionError,
    InputError,
)
from autoglm.spec import CompileOptions, RunOptions

Open = Callable[..., Any]


@pytest.fixture
def open_model(tmp_path: Path) -> Open:
    def opened(model: ir.Model, *, run: RunOptions | None = None, **options: Any) -> Any:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        plug = Torch()
        artifact = plug.compile(model, CompileOptions(**options), folder)
        return plug.open(artifact, folder, run or RunOptions())

    return opened


def identity_model(dtype: Any = np.float32, shape: tuple[int, ...] = (2, 3)) -> ir.Model:
    b = Builder(dtype=dtype)
    x = b.input("x", shape)
    return b.model(b.op("Identity", x))


def test_weights_lie_aligned_beside_the_model(tmp_path: Path) -> None:
    b = Builder()
    x = b.input("x", (1, 64))
    model = b.model(b.op("MatMul", x, b.weight(64, 64)))

    artifact = Torch().compile(model, CompileOptions(memory_alignment=64), tmp_path)

    assert artifact.kind == "torch"
    assert (tmp_path / "model.data").stat().st_size >= 64 * 64 * 4
    saved = ir.load(tmp_path / "model.onnx")
    (weight,) = [v.const_value for v in saved.graph.initializers.values()]
    assert isinstance(weight, ir.ExternalTensor)
    assert (weight.offset or 0) % 64 == 0


@pytest.mark.parametrize(("precision", "limit"), [("fp16", 5e-3), ("bf16", 4e-2)])
@pytest.mark.parametrize("make", [cnn, transformer])
def test_half_precision_keeps_declared_dtypes_and_stays_close(
    open_model: Open, make: Callable[[], ir.Model], precision: str, limit: float
) -> None:
    model = make()
    given = feeds(model)

    want = open_model(model).run(given)
    got = open_model(model, precision=precision).run(given)

    for name, golden in want.items():
        assert got[name].dtype == golden.dtype
        error = np.abs(got[name] - golden).max() / np.abs(golden).max()
        assert 0 < error < limit


def test_a_node_that_is_kept_high_is_exact(open_model: Open) -> None:
    b = Builder()
    x = b.input("x", (4,))
    model = b.model(b.op("Exp", b.op("Mul", x, x, name="square"), name="exp"))
    given = {"x": np.array([0.1, 3.0, 3.3, 2.7], np.float32)}
    want = open_model(model).run(given)

    low = open_model(model, precision="bf16").run(given)
    high = open_model(model, precision="bf16", keep_high=frozenset({"exp"})).run(given)

    (name,) = want
    # Computed high, only the square's rounding and that of the result are left.
    assert np.abs(high[name] - want[name]).max() <= np.abs(low[name] - want[name]).max()
    everything = frozenset({"exp", "square"})
    exact = open_model(model, precision="fp16", keep_high=everything).run(
        {"x": np.array([0.5, 1.0, 2.0, 1.5], np.float32)}
    )
    golden = np.exp(np.square(np.array([0.5, 1.0, 2.0, 1.5], np.float32)))
    np.testing.assert_allclose(exact[name], golden.astype(np.float16), rtol=1e-6)


def test_a_mask_of_the_lowest_float_stays_finite_in_fp16(open_model: Open) -> None:
    b = Builder()
    x = b.input("x", (1, 3))
    mask = b.constant(np.full((1, 3), np.finfo(np.float32).min, np.float32))
    model = b.model(b.op("Softmax", b.op("Add", x, mask)))

    (got,) = open_model(model, precision="fp16").run({"x": np.zeros((1, 3), np.float32)}).values()

    np.testing.assert_allclose(got, 1 / 3, rtol=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_branches_read_outer_weights_in_the_session_precision(
    open_model: Open, precision: str
) -> None:
    b = Builder()
    x, flag = b.input("x", (2, 3)), b.input("flag", (), np.bool_)
    weight = b.constant([[1.0, 2.0, 3.0]])

    def body(name: str, kind: str) -> onnx.GraphProto:
        node = helper.make_node(kind, [x, weight], [f"{name}_y"], name=name)
        info = helper.make_tensor_value_info(f"{name}_y", 1, (2, 3))
        return helper.make_graph([node], name, [], [info])

    y = b.op("If", flag, then_branch=body("a", "Add"), else_branch=body("b", "Mul"))
    session = open_model(b.model(y), precision=precision)
    array = np.full((2, 3), 2, np.float32)

    (added,) = session.run({"x": array, "flag": np.array(True)}).values()
    (scaled,) = session.run({"x": array, "flag": np.array(False)}).values()

    assert added.tolist() == [[3, 4, 5]] * 2
    assert scaled.tolist() == [[2, 4, 6]] * 2
    assert added.dtype == np.float32


def test_a_profile_names_every_node(open_model: Open) -> None:
    b = Builder()
    x = b.input("x", (2,))
    model = b.model(b.op("Exp", b.op("Neg", x, name="minus"), name="power"))

    with open_model(model, run=RunOptions(profile=True)) as session:
        session.run({"x": np.ones(2, np.float32)})
        seconds = dict(session.profile())

    assert set(seconds) == {"minus", "power"}
    assert min(seconds.values()) > 0
    with pytest.raises(ExecutionError, match="not opened with profile"):
        open_model(model).profile()


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_compiled_by_inductor_answers_as_eager(open_model: Open) -> None:
    b = Builder()
    x = b.input("x", ("N", 8))
    model = b.model(b.op("Tanh", b.op("MatMul", x, b.weight(8, 4))))
    given = {"x": np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)}

    eager = open_model(model).run(given)
    compiled = open_model(model, settings={"compile": "inductor"}).run(given)

    for name, golden in eager.items():
        np.testing.assert_allclose(compiled[name], golden, rtol=1e-6)


def test_outputs_share_nothing_with_feeds_weights_or_each_other(open_model: Open) -> None:
    b = Builder()
    x = b.input("x", (2, 3))
    c = b.constant(np.ones((2, 3)))
    y, z, w = b.op("Identity", x), b.op("Reshape", x, b.constant([3, 2])), b.op("Identity", c)
    session = open_model(b.model(y, z, w))
    given = np.arange(6, dtype=np.float32).reshape(2, 3)

    first = list(session.run({"x": given}).values())
    for array in first:
        array += 100
    again = list(session.run({"x": given}).values())

    np.testing.assert_array_equal(given, np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(again[0], given)
    np.testing.assert_array_equal(again[1].reshape(-1), given.reshape(-1))
    np.testing.assert_array_equal(again[2], 1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float8_e5m2", "int4", "uint64", "bool"])
def test_scalars_stay_scalars_in_every_dtype(open_model: Open, dtype: str) -> None:
    from autoglm.tensor.dtype import to_numpy, to_onnx

    value = ir.Value(name="x", type=ir.TensorType(ir.DataType(to_onnx(dtype))), shape=ir.Shape(()))
    node = ir.node("Identity", [value])
    node.outputs[0].name = "y"
    node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
    graph = ir.Graph([value], node.outputs, nodes=[node], opset_imports={"": 25})
    array = np.array(1, to_numpy(dtype))

    got = open_model(ir.Model(graph, ir_version=11)).run({"x": array})["y"]

    assert got.dtype == array.dtype
    assert got.shape == ()
    assert got == array


def test_a_read_only_or_reversed_feed_is_taken(open_model: Open) -> None:
    session = open_model(identity_model())
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    array.setflags(write=False)

    np.testing.assert_array_equal(next(iter(session.run({"x": array}).values())), array)
    back = array[::-1, ::-1]
    np.testing.assert_array_equal(next(iter(session.run({"x": back}).values())), back)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "'x' is missing"),
        ({"x": np.zeros((2, 3), np.float32), "z": np.zeros(1)}, "No input 'z'"),
        ({"x": np.zeros((2, 3))}, "found float64"),
        ({"x": np.zeros((3, 2), np.float32)}, r"float32 \[2, 3\]; found float32 \[3, 2\]"),
    ],
)
def test_feeds_that_do_not_fit_are_named(
    open_model: Open, given: dict[str, np.ndarray], text: str
) -> None:
    session = open_model(identity_model())

    with pytest.raises(InputError, match=text):
        session.run(given)


def test_an_unmapped_operator_is_refused_at_compile(tmp_path: Path) -> None:
    b = Builder()
    x = b.input("x", (2,), np.uint8)
    model = b.model(b.op("ImageDecoder", x, name="photo"))

    with pytest.raises(CompileError, match="'photo': ImageDecoder of opset 20 is not mapped"):
        Torch().compile(model, CompileOptions(), tmp_path)


def test_what_torch_cannot_say_is_refused_at_compile(tmp_path: Path) -> None:
    b = Builder()
    x = b.input("x", (1, 1, 2, 2, 2, 2))
    model = b.model(b.op("MaxPool", x, kernel_shape=[1, 1, 1, 1]))

    with pytest.raises(CompileError, match="1 to 3 spatial axes, found 4"):
        Torch().compile(model, CompileOptions(), tmp_path)


def test_int8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not compile to int8"):
        Torch().compile(identity_model(), CompileOptions(precision="int8"), tmp_path)


def test_an_unknown_compile_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="off or inductor or reduce-overhead; found 'fast'"):
        Torch().compile(identity_model(), CompileOptions(settings={"compile": "fast"}), tmp_path)


def test_a_device_that_is_not_here_is_named(open_model: Open) -> None:
    with pytest.raises(BackendUnavailableError, match="nosuch:3"):
        open_model(identity_model(), run=RunOptions(device="nosuch:3"))


def test_a_missing_artifact_is_a_bundle_error(tmp_path: Path) -> None:
    artifact = Torch().compile(identity_model(), CompileOptions(), tmp_path)
    (tmp_path / "model.onnx").unlink()

    with pytest.raises(BundleError, match="missing"):
        Torch().open(artifact, tmp_path, RunOptions())


def test_a_node_that_fails_while_running_is_named(open_model: Open) -> None:
    b = Builder()
    x, index = b.input("x", (3,)), b.input("i", (1,), np.int64)
    session = open_model(b.model(b.op("Gather", x, index, name="pick")))

    with pytest.raises(ExecutionError, match=r"Node 'pick' \(Gather\) failed"):
        session.run({"x": np.zeros(3, np.float32), "i": np.array([7])})


def test_a_closed_session_says_so(open_model: Open) -> None:
    session = open_model(identity_model())
    session.close()
    session.close()

    with pytest.raises(ExecutionError, match="closed"):
        session.run({"x": np.zeros((2, 3), np.float32)})


def test_probe_and_version_name_the_cpu() -> None:
    plug = Torch()

    assert plug.version()
    assert plug.probe()[0].kind == "cpu"
    assert plug.capabilities().precisions["bf16"].ok
    assert not plug.capabilities().precisions["int8"].ok


def test_the_plug_loads_without_torch() -> None:
    code = (
        "import sys; from autoglm.backends.torch import Torch; Torch().version();"
        "Torch().capabilities(); assert 'torch' not in sys.modules, 'torch was loaded'"
    )

    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
