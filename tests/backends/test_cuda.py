"""CUDA: builder settings, engine choice, TensorRT plans and ONNX Runtime's providers.

Nothing here ran on the real TensorRT or on a GPU: `tests/fakes` enforces NVIDIA's bindings.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import Builder, cnn, feeds, transformer

import autoglm
from autoglm.backends.cuda import Cuda, toolkit
from autoglm.backends.cuda.capabilities import support, table
from autoglm.backends.cuda.settings import CHOICES, build_order
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
    TensorInfo,
    ValueFacts,
    Verdict,
)

MODULES = Path(__file__).parents[1] / "fakes" / "modules"


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """The stand-in of that version, here and in the child; device memory must all be freed."""

    def use(version: str = "10.13.0") -> Any:
        monkeypatch.setenv("FAKE_TENSORRT", version)
        monkeypatch.setattr(toolkit, "_package", lambda n: version if "tensorrt" in n else "")
        _forget()
        import tensorrt

        return tensorrt

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(MODULES), *sys.path[:1]]))
    monkeypatch.syspath_prepend(str(MODULES))
    yield use
    from cuda.bindings import runtime

    assert runtime.left() == {"memory": 0, "streams": 0}
    _forget()


def _forget() -> None:
    # Not by monkeypatch, which would put the stand-in back when the test ends.
    for name in [n for n in sys.modules if n.partition(".")[0] in ("cuda", "tensorrt")]:
        del sys.modules[name]


def compiled(model: ir.Model, folder: Path, **options: Any) -> Any:
    folder.mkdir(exist_ok=True)
    return Cuda().compile(model, CompileOptions(**options), folder)


def told(folder: Path) -> Any:
    raw = (folder / "model.plan").read_bytes()
    return json.loads(raw[15 : 15 + int.from_bytes(raw[7:15], "little")])


def batched() -> ir.Model:
    b = Builder(opset=18)
    return b.model(b.op("Relu", b.op("MatMul", b.input("x", ("n", 4)), b.weight(4, 5))))


def order(options: dict[str, str], shape: Any = (1, 3), precision: str = "fp32") -> dict[str, Any]:
    inputs = (TensorInfo("x", "float32", shape),)
    made = CompileOptions(settings=options, precision=precision)
    return build_order(inputs, made, quantised=False)


# Settings


def test_fp32_means_fp32_and_not_tf32() -> None:
    assert order({})["tf32"] is False
    assert order({"tf32": "true"})["tf32"] is True


def test_a_profile_gives_three_shapes_of_an_open_input() -> None:
    found = order({"profile": "x:1,3~8,3~32,3"}, ("n", 3))

    assert found["profile"] == {"x": [[1, 3], [8, 3], [32, 3]]}


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({"fp16": "true"}, (1, 3), "no setting 'fp16'"),
        ({"builder_optimization_level": "9"}, (1, 3), "takes 0, 1, 2, 3, 4, 5; found '9'"),
        ({"workspace_bytes": "1GB"}, (1, 3), "takes a whole number"),
        ({"refit": "yes"}, (1, 3), "takes true, false"),
        ({"profile": "x:8,3~1,3~32,3"}, ("n", 3), "smallest~usual~largest"),
        ({"profile": "y:1~2~3"}, ("n",), "names 'y'"),
        ({"profile": "x:1,4~2,4~3,4"}, ("n", 3), "of shapes"),
        ({}, ("n", 3), "has open dimensions"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_is_allowed(
    options: dict[str, str], shape: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        order(options, shape)


@settings(max_examples=200)
@given(st.sampled_from([*sorted(CHOICES), "profile", "workspace_bytes"]), st.text(max_size=40))
def test_no_setting_ends_in_anything_but_an_order_or_an_error(name: str, value: str) -> None:
    try:
        found = order({name: value})
    except ConfigError:
        return
    assert json.dumps(found)


# The capability table


def fact(
    op: str, since: int, dtype: str = "float32", shape: Any = (1, 4), **more: Any
) -> NodeFacts:
    value = ValueFacts(dtype, shape)
    given = {"inputs": (value,), "outputs": (value,), **more}
    return NodeFacts("n", op, since, **given)


def test_a_yes_is_a_document_s_yes() -> None:
    verdict = table("A100 80GB SXM").support(fact("Relu", 14))

    assert (verdict.verdict, verdict.evidence) == (Verdict.YES, Evidence.DOCUMENT)


def test_what_only_onnx_runtime_takes_is_a_yes_that_says_so() -> None:
    compress = NodeFacts("n", "Compress", 11, (ValueFacts("float32", (3,)),), (ValueFacts(),))
    assert support(compress).ok
    assert "not by TensorRT: TensorRT 10.1: Compress is listed as not supported" in (
        support(compress).reason
    )


def test_a_no_names_both_documents() -> None:
    verdict = support(fact("StringNormalizer", 10, "string"))

    assert "onnx-tensorrt docs/operators.md" in verdict.reason
    assert "OperatorKernels.md" in verdict.reason


@pytest.mark.parametrize(
    ("node", "constraint", "text"),
    [
        (
            fact("AveragePool", 11, shape=(1, 3, 9)),
            Constraint.RANK,
            "rank 4 or 5 is taken; found 3",
        ),
        (
            fact("Resize", 13, attributes={"mode": "cubic"}),
            Constraint.ATTRIBUTE,
            "mode nearest or linear is taken; found cubic",
        ),
        (
            fact("Unsqueeze", 13, inputs=(ValueFacts("float32", (2,)), ValueFacts("int64", (1,)))),
            Constraint.ATTRIBUTE,
            "input 1 must be a constant",
        ),
        (fact("Erf", 13, "int32"), Constraint.DTYPE, "Erf takes bfloat16, float16, float32"),
        (fact("Loop", 16), Constraint.VALUE, "not looked at"),
        (
            fact("TopK", 11, outputs=(ValueFacts("float32", (1, 4000)),)),
            Constraint.SHAPE,
            "K must be below 3840; found 4000",
        ),
        (
            fact("LSTM", 14, attributes={"layout": 1}),
            Constraint.ATTRIBUTE,
            "layout 0 is taken; found 1",
        ),
    ],
)
def test_every_restriction_of_tensorrt_s_table_is_read(
    node: NodeFacts, constraint: Constraint, text: str
) -> None:
    from autoglm.backends.cuda.capabilities import tensorrt

    verdict = tensorrt().support(node)

    assert (verdict.ok, verdict.constraint) == (False, constraint)
    assert text in verdict.reason


def test_precisions_are_the_gpu_s_own() -> None:
    assert table("H100 SXM").precisions["bf16"].ok
    assert not table("T4").precisions["bf16"].ok
    assert "QuantizeLinear" in table("T4").precisions["int8"].reason


def test_check_needs_no_toolkit_and_no_gpu() -> None:
    report = autoglm.check(transformer(), backend="cuda", arch="A100 80GB SXM")

    assert report.to_dict()["plan"]["backend"] == "cuda"


# The choice of an engine


def test_pytorch_is_sent_to_its_own_backend(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is backend torch with device cuda"):
        compiled(cnn(), tmp_path, settings={"engine": "torch"})


def test_without_any_engine_the_error_says_how_to_get_one(tmp_path: Path) -> None:
    if toolkit.version():
        pytest.skip(f"{toolkit.version()} is installed here")
    with pytest.raises(BackendUnavailableError, match="TensorRT is not installed") as caught:
        compiled(cnn(), tmp_path)

    assert "pip install tensorrt" in caught.value.hint


def test_tensorrt_is_chosen_where_its_list_has_every_node(tmp_path: Path, trt: Any) -> None:
    trt()

    artifact = compiled(cnn(), tmp_path)

    assert artifact.kind == "tensorrt"
    assert artifact.meta["reason"] == "TensorRT's list has every node"


def test_onnx_runtime_is_chosen_where_it_has_not_and_the_node_is_named(
    tmp_path: Path, trt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt()
    monkeypatch.setattr(toolkit, "_package", lambda names: "1.24.0")
    b = Builder(opset=18)
    x = b.input("x", (4,))
    model = b.model(b.op("Compress", x, b.constant(np.array([True] * 4)), name="pick"))

    artifact = compiled(model, tmp_path)

    assert artifact.kind == "onnx-cuda"
    assert artifact.meta["reason"].startswith("node pick: TensorRT 10.1: Compress is listed as not")


# TensorRT, against the stand-in


@pytest.mark.parametrize("version", ["10.13.0", "11.1.0.106"])
def test_a_plan_computes_what_the_model_says(tmp_path: Path, trt: Any, version: str) -> None:
    trt(version)
    model = cnn()
    given = feeds(model)

    artifact = compiled(model, tmp_path, settings={"engine": "tensorrt"})
    with Cuda().open(artifact, tmp_path, RunOptions()) as session:
        first = session.run(given)
        found = session.run(given)

    expected = autoglm.run(model, given, backend="onnxruntime")
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(found[name], first[name])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.plan", "tensorrt.log"]
    assert "TF32" not in told(tmp_path)["flags"]


def test_fp16_is_a_flag_of_tensorrt_10(tmp_path: Path, trt: Any) -> None:
    trt("10.13.0")

    compiled(cnn(), tmp_path, precision="fp16", settings={"refit": "true", "engine": "tensorrt"})

    assert {"FP16", "REFIT"} <= set(told(tmp_path)["flags"])


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_tensorrt_11_is_given_a_model_in_that_precision(
    tmp_path: Path, trt: Any, precision: str
) -> None:
    trt("11.1.0.106")

    compiled(cnn(), tmp_path, precision=precision, settings={"engine": "tensorrt"})

    raw = (tmp_path / "model.plan").read_bytes()
    plan = ir.from_proto(onnx.load_from_string(raw[15 + int.from_bytes(raw[7:15], "little") :]))
    held = {v.const_value.dtype.name for v in plan.graph.initializers.values() if v.const_value}
    assert {"fp16": "FLOAT16", "bf16": "BFLOAT16"}[precision] in held
    assert "FLOAT" not in held
    assert not {"FP16", "BF16"} & set(told(tmp_path)["flags"])


def test_a_half_precision_plan_runs_with_float32_edges(tmp_path: Path, trt: Any) -> None:
    trt("11.1.0.106")
    model = cnn()
    given = feeds(model)
    artifact = compiled(model, tmp_path, precision="fp16", settings={"engine": "tensorrt"})

    with Cuda().open(artifact, tmp_path, RunOptions()) as session:
        found = session.run(given)

    for name, array in autoglm.run(model, given, backend="onnxruntime").items():
        assert found[name].dtype == np.float32
        assert np.abs(found[name] - array).max() <= 2e-2 * np.abs(array).max()


def test_a_tensorrt_11_of_unknown_version_says_that_precision_is_the_model_s(
    tmp_path: Path, trt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt("11.1.0.106")
    monkeypatch.setattr(toolkit, "_package", lambda names: "")

    with pytest.raises(CompileError, match="no builder flag FP16: from 11 on"):
        compiled(cnn(), tmp_path, precision="fp16", settings={"engine": "tensorrt"})


def test_a_batch_inside_the_profile_runs_and_one_outside_is_refused(
    tmp_path: Path, trt: Any
) -> None:
    trt()
    model = batched()
    artifact = compiled(model, tmp_path, settings={"profile": "x:1,4~2,4~8,4"})

    with Cuda().open(artifact, tmp_path, RunOptions()) as session:
        for size in (1, 8, 3):
            x = np.random.default_rng(size).standard_normal((size, 4)).astype(np.float32)
            (found,) = session.run({"x": x}).values()
            (expected,) = autoglm.run(model, {"x": x}, backend="onnxruntime").values()
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        with pytest.raises(InputError, match=r"shape \[9, 4\] is outside the plan's profile"):
            session.run({"x": np.zeros((9, 4), np.float32)})


def test_a_plan_is_built_for_and_runs_on_its_gpu_from_any_thread(tmp_path: Path, trt: Any) -> None:
    trt()
    model = cnn()
    given = feeds(model)
    artifact = compiled(model, tmp_path, settings={"engine": "tensorrt"}, device="cuda:1")
    assert told(tmp_path)["device"] == 1
    session = Cuda().open(artifact, tmp_path, RunOptions(device="cuda:1"))

    with ThreadPoolExecutor(1) as other:
        found = other.submit(session.run, given).result()
    with ThreadPoolExecutor(1) as another:
        another.submit(session.close).result()

    for name, array in autoglm.run(model, given, backend="onnxruntime").items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5)


def test_a_timing_cache_is_kept_and_grows(tmp_path: Path, trt: Any) -> None:
    trt()
    cache = tmp_path / "timing.cache"
    options = {"timing_cache": str(cache), "engine": "tensorrt"}

    compiled(cnn(), tmp_path / "a", settings=options)
    compiled(cnn(), tmp_path / "b", settings=options)

    assert cache.read_bytes() == b"TT"


def test_a_timing_cache_of_another_gpu_is_refused(tmp_path: Path, trt: Any) -> None:
    trt()
    cache = tmp_path / "timing.cache"
    cache.write_bytes(b"another GPU")

    with pytest.raises(CompileError, match="timing cache of another GPU"):
        compiled(cnn(), tmp_path / "a", settings={"timing_cache": str(cache)})


def test_a_refit_puts_other_weights_into_a_plan(tmp_path: Path, trt: Any) -> None:
    from autoglm.rewrite.save import save_onnx

    trt()

    def model(scale: float) -> ir.Model:
        b = Builder(opset=18)
        return b.model(b.op("Mul", b.input("x", (2,)), b.constant([scale, scale])))

    artifact = compiled(model(1.0), tmp_path, settings={"refit": "true"})
    other = save_onnx(model(3.0), tmp_path / "other.onnx")
    options = RunOptions(settings={"refit": str(other)})

    with Cuda().open(artifact, tmp_path, options) as session:
        (found,) = session.run({"x": np.ones(2, np.float32)}).values()

    assert found.tolist() == [3, 3]


def test_a_plan_without_refit_says_what_to_compile(tmp_path: Path, trt: Any) -> None:
    trt()
    artifact = compiled(cnn(), tmp_path)

    with pytest.raises(BundleError, match="cannot take other weights"):
        Cuda().open(artifact, tmp_path, RunOptions(settings={"refit": "other.onnx"}))


def test_what_the_parser_refuses_is_in_the_error(tmp_path: Path, trt: Any) -> None:
    trt()
    b = Builder(opset=18)
    model = b.model(b.op("Unique", b.input("x", (4,)), name="distinct"))

    with pytest.raises(CompileError, match=r"node 'distinct' \(Unique\): no importer"):
        compiled(model, tmp_path, settings={"engine": "tensorrt"})


def test_a_plan_of_another_version_is_refused(tmp_path: Path, trt: Any) -> None:
    trt("10.13.0")
    artifact = compiled(cnn(), tmp_path)
    trt("11.1.0.106")

    with pytest.raises(BundleError, match="another TensorRT version or for another GPU"):
        Cuda().open(artifact, tmp_path, RunOptions())


def test_a_gpu_that_is_not_here_is_refused(tmp_path: Path, trt: Any) -> None:
    trt()
    artifact = compiled(cnn(), tmp_path)

    with pytest.raises(ExecutionError, match=r"cudaSetDevice failed: .*101"):
        Cuda().open(artifact, tmp_path, RunOptions(device="cuda:5"))


def test_an_output_whose_size_the_data_decide_names_the_other_engine(
    tmp_path: Path, trt: Any
) -> None:
    trt()
    b = Builder(opset=18)
    model = b.model(b.op("NonZero", b.input("x", (2, 3))))
    artifact = compiled(model, tmp_path, settings={"engine": "tensorrt"})

    with (
        Cuda().open(artifact, tmp_path, RunOptions()) as session,
        pytest.raises(ExecutionError, match="only known once it is computed") as caught,
    ):
        session.run({"x": np.ones((2, 3), np.float32)})
    assert "engine = onnxruntime" in caught.value.hint


# ONNX Runtime's providers


@pytest.fixture
def ort_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolkit, "_package", lambda names: "1.24.0")


def test_the_providers_come_in_order_with_their_options(tmp_path: Path, ort_gpu: None) -> None:
    options = {
        "engine": "onnxruntime",
        "providers": "tensorrt,cuda",
        "cuda.gpu_mem_limit": "2147483648",
        "tensorrt.trt_engine_cache_enable": "1",
    }

    artifact = compiled(cnn(), tmp_path, settings=options, precision="fp16")

    assert artifact.meta["providers"] == [
        [
            "TensorrtExecutionProvider",
            {"trt_fp16_enable": "1", "trt_engine_cache_enable": "1"},
        ],
        ["CUDAExecutionProvider", {"use_tf32": "0", "gpu_mem_limit": "2147483648"}],
    ]


def test_the_cuda_provider_never_runs_on_the_cpu_by_stealth(tmp_path: Path, ort_gpu: None) -> None:
    artifact = compiled(cnn(), tmp_path, settings={"engine": "onnxruntime"})

    with pytest.raises(BackendUnavailableError, match="CUDAExecutionProvider"):
        Cuda().open(artifact, tmp_path, RunOptions())


def test_a_listed_provider_that_did_not_load_is_refused(
    tmp_path: Path, ort_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    real = onnxruntime.InferenceSession

    def falls_back(path: str, options: Any, providers: Any) -> Any:
        assert providers[0][0] == "CUDAExecutionProvider"
        return real(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", falls_back)
    artifact = compiled(cnn(), tmp_path, settings={"engine": "onnxruntime"})

    with pytest.raises(
        BackendUnavailableError, match="it would run on CPUExecutionProvider"
    ) as caught:
        Cuda().open(artifact, tmp_path, RunOptions())
    assert "onnxruntime-gpu" in caught.value.hint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"providers": "rocm"}, "cuda or tensorrt,cuda; found 'rocm'"),
        ({"use_tf32": "1"}, "cuda.KEY or tensorrt.KEY; found 'use_tf32'"),
    ],
)
def test_a_wrong_provider_setting_is_refused(
    tmp_path: Path, ort_gpu: None, options: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        compiled(cnn(), tmp_path, settings={"engine": "onnxruntime", **options})


def test_fp16_on_the_cuda_provider_names_the_ways_to_it(tmp_path: Path, ort_gpu: None) -> None:
    with pytest.raises(ConfigError, match="computes in the model's own precision") as caught:
        compiled(cnn(), tmp_path, precision="fp16", settings={"engine": "onnxruntime"})

    assert "backend torch" in caught.value.hint
