"""Sophon: what needs no toolchain, and the real compiler and simulator where it is installed."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from autoglm.backends.sophon import Sophon, toolkit
from autoglm.backends.sophon.bmodel import Description, describe, matched
from autoglm.backends.sophon.compile import (
    failure,
    keep_log,
    steps,
    telling,
    write_calibration,
    write_table,
)
from autoglm.backends.sophon.model import rename_edges, stamp, write_model
from autoglm.backends.sophon.toolkit import PROVEN, unproven
from autoglm.errors import (
    BackendUnavailableError,
    BundleError,
    CompileError,
    ConfigError,
    ExecutionError,
    InputError,
)
from autoglm.spec import (
    CompileOptions,
    Constraint,
    Evidence,
    NodeFacts,
    RunOptions,
    ValueFacts,
    Verdict,
)
from autoglm.toolchain.environment import Environment

INFO = """bmodel version: B.2.2+v1.7.beta.134
chip: BM1684X
net 0: [model]  static
------------
stage 0:
input: in0, [1, 3, 16, 16], float32, scale: 1, zero_point: 0
output: out0_Reluout1_ReduceMean_f32, [1, 8, 16, 16], float32, scale: 1, zero_point: 0
output: out1_ReduceMean, [1, 8], float32, scale: 1, zero_point: 0

device mem size: 25472 (weight: 8192, instruct: 896, runtime: 16384)
host mem size: 0 (weight: 0, runtime: 0)
"""


def model(*nodes: onnx.NodeProto, shape: object = (1, 3, 8, 8), opset: int = 18) -> ir.Model:
    weights = np.linspace(-1, 1, 4 * 3 * 9, dtype=np.float32).reshape(4, 3, 3, 3)
    axes = np.array([2, 3], np.int64)
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x/data 0", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(axes, "axes")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return ir.from_proto(onnx.shape_inference.infer_shapes(made))


def network(shape: object = (1, 3, 8, 8)) -> ir.Model:
    return model(
        helper.make_node("Conv", ["x/data 0", "w"], ["c"], name="conv", pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("ReduceMean", ["r", "axes"], ["the mean"], name="mean", keepdims=0),
        shape=shape,
    )


def test_the_listing_of_a_bmodel_gives_edges_and_memory() -> None:
    found = describe(INFO)

    assert found.chip == "BM1684X"
    assert found.inputs == ("in0",)
    assert found.memory["device"] == 25472
    assert found.memory["device.weight"] == 8192
    assert matched(found, 2) == ("out0_Reluout1_ReduceMean_f32", "out1_ReduceMean")


@given(st.text())
def test_any_listing_is_read_without_an_exception(text: str) -> None:
    assert isinstance(describe(text), Description)


@pytest.mark.parametrize("names", [(), ("out1_Relu",), ("out0_Relu", "out0_Add"), ("out10_Relu",)])
def test_outputs_that_are_not_ours_in_order_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(CompileError, match="were asked for"):
        matched(Description(outputs=names), max(1, len(names)))


def test_reductions_get_their_axes_as_an_attribute_and_the_opset_that_says_so() -> None:
    made = network()

    stamp(made)

    assert made.opset_imports[""] == 17
    mean = next(n for n in made.graph if n.op_type == "ReduceMean")
    assert list(mean.attributes.get_ints("axes")) == [2, 3]
    assert len(mean.inputs) == 1
    onnx.checker.check_model(ir.to_proto(made))


def test_an_operator_newer_than_the_compiler_is_refused_by_name() -> None:
    made = model(helper.make_node("Gelu", ["x/data 0"], ["y"]), opset=20)

    with pytest.raises(CompileError, match="Gelu is used as of opset 20"):
        stamp(made)


def test_an_operator_that_newer_opsets_only_widened_is_taken() -> None:
    made = model(helper.make_node("Relu", ["x/data 0"], ["y"]), opset=22)

    stamp(made)

    assert made.opset_imports[""] == 17


def test_a_sum_of_two_is_an_addition() -> None:
    made = model(helper.make_node("Sum", ["x/data 0", "x/data 0"], ["y"]))

    stamp(made)

    assert [node.op_type for node in made.graph] == ["Add"]


X = "x/data 0"


def test_a_sum_of_three_with_a_constant_is_additions() -> None:
    made = model(
        helper.make_node("Sum", [X, "w", X], ["y"]),
        shape=(4, 3, 3, 3),
    )
    x = np.random.default_rng(1).standard_normal((4, 3, 3, 3), np.float32)
    want = answers(made, {X: x})

    stamp(made)

    assert [node.op_type for node in made.graph] == ["Add", "Add"]
    assert np.allclose(answers(made, {X: x}), want)


@pytest.mark.parametrize(
    ("op", "spelt"),
    [
        ("LeakyRelu", {"alpha": 0.01}),
        ("Elu", {"alpha": 1.0}),
        ("HardSigmoid", {"alpha": 0.2, "beta": 0.5}),
    ],
)
def test_defaults_that_tpu_mlir_does_not_share_are_spelt_out(
    op: str, spelt: dict[str, float]
) -> None:
    made = model(helper.make_node(op, [X], ["y"]))

    stamp(made)

    found = {k: a.as_float() for k, a in made.graph.node(0).attributes.items()}
    assert found == pytest.approx(spelt)


def test_a_transpose_says_its_permutation() -> None:
    made = model(helper.make_node("Transpose", [X], ["y"]))

    stamp(made)

    assert list(made.graph.node(0).attributes.get_ints("perm")) == [3, 2, 1, 0]


def test_edges_get_plain_names() -> None:
    names = rename_edges(network())

    assert (names.inputs, names.outputs) == (("in0",), ("out0",))


def test_the_models_own_in0_and_out0_make_room(tmp_path: Path) -> None:
    made = model(
        helper.make_node("Relu", ["x/data 0"], ["in0"]),
        helper.make_node("Neg", ["in0"], ["out1"]),
        helper.make_node("Add", ["in0", "out1"], ["out0"]),
    )
    made.graph.outputs.insert(0, made.graph.node(1).outputs[0])
    x = np.random.default_rng(1).standard_normal((1, 3, 8, 8), np.float32)

    names = write_model(made, tmp_path / "model.onnx")

    copy = onnx.load(str(tmp_path / "model.onnx"))
    onnx.checker.check_model(copy)
    assert names.outputs == ("out0", "out1")
    assert [o.name for o in copy.graph.output] == ["out0", "out1"]
    assert np.array_equal(answers(ir.from_proto(copy), {"in0": x}), -np.maximum(x, 0))


def test_an_output_given_twice_is_refused_as_that() -> None:
    made = network()
    made.graph.outputs.append(made.graph.outputs[0])

    with pytest.raises(CompileError, match="twice"):
        rename_edges(made)


@pytest.mark.parametrize("op", ["ReduceMean", "ReduceSum", "ReduceMax"])
def test_a_reduction_over_no_axis_stays_one(op: str) -> None:
    made = model(helper.make_node(op, ["x/data 0"], ["y"], noop_with_empty_axes=1))
    x = np.random.default_rng(1).standard_normal((1, 3, 8, 8), np.float32)

    stamp(made)

    assert np.array_equal(answers(made, {"x/data 0": x}), x)


def test_a_square_over_no_axis_is_refused() -> None:
    made = model(helper.make_node("ReduceSumSquare", ["x/data 0"], ["y"], noop_with_empty_axes=1))

    with pytest.raises(CompileError, match="ReduceSumSquare that reduces over no axis"):
        stamp(made)


def test_integers_beyond_the_bmodels_type_are_refused_not_wrapped() -> None:
    from autoglm.backends.sophon.inside.simulator import held

    fits = np.array([-(2**31), 2**31 - 1], np.int64)

    assert np.array_equal(held("in0", fits, np.dtype(np.int32)), fits)
    for bad in (2**31, -(2**31) - 1):
        with pytest.raises(ValueError, match="in0 holds"):
            held("in0", np.array([0, bad], np.int64), np.dtype(np.int32))


def test_a_failed_tools_log_outlives_the_work_folder(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    log = work / "model_deploy.log"
    log.write_text("RuntimeError: Op not support\n")
    error = failure(["model_deploy.py"], 1, log, 5.0)

    keep_log(error, tmp_path)
    shutil.rmtree(work)

    assert Path(error.facts["log"]).read_text() == "RuntimeError: Op not support\n"
    assert error.facts["log"] in error.hint


def test_the_partition_itself_is_not_changed(tmp_path: Path) -> None:
    made = network()
    before = ir.to_proto(made).SerializeToString(deterministic=True)

    write_model(made, tmp_path / "model.onnx")

    assert ir.to_proto(made).SerializeToString(deterministic=True) == before


def test_an_open_dimension_is_refused_with_the_option_that_fixes_it(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="batchx3x8x8") as caught:
        write_model(network(("batch", 3, 8, 8)), tmp_path / "model.onnx")

    assert "--input-shape" in caught.value.hint


def test_an_output_that_no_node_computes_is_refused(tmp_path: Path) -> None:
    made = network()
    made.graph.outputs.append(made.graph.inputs[0])

    with pytest.raises(CompileError, match="computed by no node"):
        write_model(made, tmp_path / "model.onnx")


def test_int8_is_calibrated_between_transform_and_deploy() -> None:
    options = CompileOptions(precision="int8", calibration=({}, {}))

    tools = [argv[0] for argv in steps("bm1684x", options)]
    deploy = steps("bm1684x", options)[-1]

    assert tools == ["model_transform.py", "run_calibration.py", "model_deploy.py"]
    assert deploy[deploy.index("--quantize") + 1] == "INT8"
    assert deploy[deploy.index("--calibration_table") + 1] == "calibration_table"
    assert (
        steps("bm1684x", options)[1][steps("bm1684x", options)[1].index("--input_num") + 1] == "2"
    )


def test_settings_are_options_of_deploy() -> None:
    told = {"opt": "3", "high_precision": "true", "op_divide": "false"}

    deploy = steps("bm1684x", CompileOptions(settings=told))[-1]

    assert deploy[-3:] == ["--high_precision", "--opt", "3"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("chip", "bm1684"),
        ("processor", "bm1684"),
        ("quantize", "F32"),
        ("quant", "F32"),
        ("model", "elsewhere.bmodel"),
        ("not_gen_bmodel", "true"),
        ("quant_input", "true"),
        ("debug_cmd", "x"),
        ("op", "3"),
    ],
)
def test_settings_never_change_what_is_made(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match="high_precision"):
        steps("bm1684x", CompileOptions(settings={name: value}))


@pytest.mark.parametrize("bad", ["a b", "$(id)", "x;id", "-o", "4", ""])
def test_a_setting_takes_only_its_known_values(bad: str) -> None:
    with pytest.raises(ConfigError, match="1, 2, 3"):
        steps("bm1684x", CompileOptions(settings={"opt": bad}))


def test_the_layers_of_kept_nodes_are_listed_by_the_compilers_names(tmp_path: Path) -> None:
    names = write_model(network(), tmp_path / "model.onnx")

    write_table(names, frozenset({"conv", "mean"}), tmp_path)

    assert (tmp_path / "quantize_table").read_text() == "c_Conv F32\nout0_ReduceMean F32\n"


def test_calibration_samples_are_written_under_the_names_inside(tmp_path: Path) -> None:
    write_calibration([{"b": np.ones(2), "a": np.zeros(3)}], ["a", "b"], tmp_path)

    with np.load(tmp_path / "calibration" / "0000.npz") as found:
        assert found["in0"].shape == (3,)
        assert found["in1"].shape == (2,)


def test_the_telling_line_of_a_log_is_not_the_traceback() -> None:
    log = """Traceback (most recent call last):
  File "x.py", line 3, in f
    raise RuntimeError("Op not support:{}".format(unsupported))
RuntimeError: Op not support:{'Acosh'}
"""
    died = """loc: error: 'top.Loop' op is not supported by bm1684x
Segmentation fault
RuntimeError: [!Error]: tpuc-opt model.mlir -o out.mlir
"""

    assert telling(log) == "RuntimeError: Op not support:{'Acosh'}"
    assert telling(died).startswith("loc: error: 'top.Loop'")
    assert telling("") == "it printed nothing"


def test_the_precisions_are_the_chips_not_the_vendors() -> None:
    newer, older = Sophon().capabilities("BM1684X"), Sophon().capabilities("bm1684")

    assert newer.precisions["fp16"].ok
    assert older.precisions["fp16"].verdict is Verdict.NO
    assert "BM1684 computes in" in older.precisions["fp16"].reason
    assert older.precisions["int8"].ok
    assert newer.chip is not None
    assert newer.memory_bytes == newer.chip.memory_bytes
    assert newer.fixed_shapes


def test_int8_wants_constant_weights_of_a_product() -> None:
    def gemm(*, weights: bool, bias: bool | None = None) -> NodeFacts:
        held = (False, weights, weights if bias is None else bias)
        shapes = ((3, 4), (4, 5), (5,))
        inputs = tuple(ValueFacts("float32", s, h) for s, h in zip(shapes, held, strict=True))
        return NodeFacts("n", "Gemm", 13, inputs, (ValueFacts("float32", (3, 5)),))

    table = Sophon().capabilities()
    refused = table.at("int8").support(gemm(weights=False))

    assert table.support(gemm(weights=False)).ok
    assert refused.verdict is Verdict.NO
    assert refused.constraint is Constraint.PRECISION
    assert refused.reason.startswith("in int8, Gemm")
    assert table.at("int8").support(gemm(weights=True)).ok
    # Of the one refused case the bias was computed, too: nobody knows which of the two it was.
    apart = table.at("int8").support(gemm(weights=True, bias=False))
    assert apart.verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
def test_a_floor_that_int8_answered_wrongly_is_a_yes_in_no_rank(rank: int) -> None:
    value = ValueFacts("float32", (2,) * rank)
    floor = NodeFacts("n", "Floor", 13, (value,), (value,))

    verdict = Sophon().capabilities().at("int8").support(floor)

    assert verdict.verdict is (Verdict.NO if rank == 2 else Verdict.UNKNOWN)
    assert verdict.constraint is Constraint.PRECISION
    assert verdict.reason.startswith("in int8, Floor answers wrongly")


def test_what_was_measured_on_another_chip_is_inferred() -> None:
    value = ValueFacts("float32", (2, 3))
    relu = NodeFacts("n", "Relu", 14, (value,), (value,))

    assert Sophon().capabilities("BM1684X").support(relu).evidence is Evidence.MEASURED
    assert Sophon().capabilities("BM1684").support(relu).evidence is Evidence.INFERRED


def test_a_chip_of_another_vendor_is_refused() -> None:
    with pytest.raises(ConfigError, match="BM1684X"):
        Sophon().capabilities("Ascend910B")


def test_without_the_toolchain_compile_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOGLM_CACHE_DIR", str(tmp_path / "empty"))

    with pytest.raises(BackendUnavailableError) as caught:
        Sophon().compile(network(), CompileOptions(), tmp_path)

    assert caught.value.hint == "autoglm toolchain install sophon"


def test_another_version_than_the_one_worked_around_is_said() -> None:
    assert unproven(PROVEN) == ""
    assert "99.0" in unproven("99.0")


def answers(made: ir.Model, feeds: dict[str, np.ndarray]) -> np.ndarray:
    import onnxruntime as ort

    text = ir.to_proto(made).SerializeToString()
    session = ort.InferenceSession(text, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds)[0])


@pytest.mark.toolchain("sophon")
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp32", 1e-5), ("fp16", 5e-3), ("bf16", 2e-2), ("int8", 5e-2)]
)
def test_a_bmodel_answers_on_the_simulator_as_onnxruntime_does(
    tmp_path: Path, precision: str, tolerance: float
) -> None:
    made, backend = network(), Sophon()
    feeds = {"x/data 0": np.random.default_rng(1).standard_normal((1, 3, 8, 8), np.float32)}
    options = CompileOptions(precision=precision, calibration=[feeds])

    artifact = backend.compile(made, options, tmp_path)
    with backend.open(artifact, tmp_path, RunOptions()) as session:  # type: ignore[attr-defined]
        got = session.run(feeds)["the mean"]
        assert "simulator" in session.remark

    want = answers(made, feeds)
    assert np.abs(got - want).max() <= tolerance * np.abs(want).max()
    assert artifact.meta["runs_on"] == "simulator"
    assert artifact.meta["memory"]["device"] > 0
    assert not (tmp_path / "work").exists()


@pytest.mark.toolchain("sophon")
def test_a_simulator_that_dies_is_an_error_and_the_next_run_starts_another(tmp_path: Path) -> None:
    made, backend = network(), Sophon()
    feeds = {"x/data 0": np.ones((1, 3, 8, 8), np.float32)}
    artifact = backend.compile(made, CompileOptions(), tmp_path)
    with backend.open(artifact, tmp_path, RunOptions()) as session:  # type: ignore[attr-defined]
        before = session.run(feeds)["the mean"]
        session._service._child.kill()

        with pytest.raises(ExecutionError, match="SIGKILL"):
            session.run(feeds)

        assert np.array_equal(session.run(feeds)["the mean"], before)
        with pytest.raises(InputError):
            session.run({})


@pytest.mark.toolchain("sophon")
def test_a_damaged_bmodel_is_an_error_not_a_crash_of_ours(tmp_path: Path) -> None:
    artifact = Sophon().compile(network(), CompileOptions(), tmp_path)
    (tmp_path / artifact.entry).write_bytes(b"not a bmodel")
    feeds = {"x/data 0": np.ones((1, 3, 8, 8), np.float32)}

    with (
        Sophon().open(artifact, tmp_path, RunOptions()) as session,  # type: ignore[attr-defined]
        pytest.raises(ExecutionError),
    ):
        session.run(feeds)

    (tmp_path / artifact.entry).unlink()
    with pytest.raises(BundleError):
        Sophon().open(artifact, tmp_path, RunOptions())


@pytest.mark.toolchain("sophon")
def test_kept_nodes_bring_int8_nearer(tmp_path: Path) -> None:
    made = network()
    feeds = {"x/data 0": np.random.default_rng(1).standard_normal((1, 3, 8, 8), np.float32)}
    errors = []
    for kept in ((), ("conv", "relu", "mean")):
        out = tmp_path / str(len(kept))
        options = CompileOptions(precision="int8", calibration=[feeds], keep_high=frozenset(kept))
        artifact = Sophon().compile(made, options, out)
        with Sophon().open(artifact, out, RunOptions()) as session:  # type: ignore[attr-defined]
            errors.append(np.abs(session.run(feeds)["the mean"] - answers(made, feeds)).max())

    assert errors[1] < 1e-5 < errors[0]


@pytest.mark.toolchain("sophon")
def test_without_its_optimisation_the_answers_are_the_same(tmp_path: Path) -> None:
    made, feeds = network(), {"x/data 0": np.ones((1, 3, 8, 8), np.float32)}
    artifact = Sophon().compile(made, CompileOptions(optimize=False), tmp_path)
    with Sophon().open(artifact, tmp_path, RunOptions()) as session:  # type: ignore[attr-defined]
        got = session.run(feeds)["the mean"]

    np.testing.assert_allclose(got, answers(made, feeds), rtol=1e-5, atol=1e-6)


@pytest.mark.toolchain("sophon")
def test_what_the_compiler_refuses_is_its_own_words(tmp_path: Path) -> None:
    made = model(helper.make_node("Acosh", ["x/data 0"], ["y"]), opset=17)

    with pytest.raises(CompileError, match="Acosh") as caught:
        Sophon().compile(made, CompileOptions(), tmp_path)

    assert caught.value.facts["argv"][0] == "model_transform.py"


@pytest.mark.toolchain("sophon")
def test_a_compile_that_is_late_is_ended(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"no end after 0\.01 s"):
        Sophon().compile(network(), CompileOptions(timeout_s=0.01), tmp_path)


@pytest.mark.toolchain("sophon")
def test_the_wheel_is_not_edited() -> None:
    from autoglm.backends.sophon.toolkit import installed, package, shim

    environment = installed()
    home = shim(environment, "bm1684x")

    assert (home / "lib" / "libc.so.6").resolve() != package(
        environment
    ) / "lib/third_party/libc.so.6"
    assert (package(environment) / "lib/third_party/libc.so.6").is_file()
    assert not (package(environment) / "lib" / "libcmodel.so").is_symlink()


def test_a_fork_has_a_forge_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolkit, "variables", lambda *_: {})
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environment = Environment("sophon", tmp_path, tmp_path / "python", PROVEN)

    ours = toolkit.forge(environment, "bm1684x", 1)
    again = toolkit.forge(environment, "bm1684x", 1)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    of_a_fork = toolkit.forge(environment, "bm1684x", 1)

    assert ours is again
    assert of_a_fork is not ours


def test_an_environment_reached_by_a_link_is_used_by_its_real_place(tmp_path: Path) -> None:
    wheel = tmp_path / "real" / "lib" / "python3.10" / "site-packages" / "tpu_mlir"
    wheel.mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    folder = tmp_path / "link"

    found = toolkit.package(Environment("sophon", folder, folder / "bin" / "python", "1.30.2"))

    assert found == wheel.resolve()
