"""The verbs end to end on real engines: plan, bundle, run, proof, and what happens when something
refuses.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import models
import numpy as np
import onnx_ir as ir
import pytest

import autoglm
from autoglm import registry
from autoglm.errors import (
    AccuracyError,
    BackendNotFoundError,
    BundleError,
    CompileError,
    ConfigError,
    InputError,
    ModelError,
    UnsupportedOperatorError,
    WriteError,
)
from autoglm.spec import (
    Artifact,
    Capabilities,
    CompileOptions,
    Device,
    Fit,
    OpRule,
    RunOptions,
    Session,
    yes,
)


@pytest.fixture
def cnn(tmp_path: Path) -> Path:
    path = tmp_path / "cnn.onnx"
    # Large enough that the toy chip's speed is worth its boundaries.
    ir.save(models.cnn(channels=32, size=32), path)
    return path


@pytest.fixture
def block(tmp_path: Path) -> Path:
    path = tmp_path / "block.onnx"
    ir.save(models.transformer(), path)
    return path


def reference(path: Path, feeds: dict[str, Any]) -> list[Any]:
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, feeds)


def image(seed: int = 0) -> dict[str, Any]:
    return {"image": np.random.default_rng(seed).standard_normal((1, 3, 32, 32), np.float32)}


@dataclass
class Npu:
    """A chip that runs on ONNX Runtime, promises what `table` says, and whose compiler refuses
    `lies`.
    """

    name: str
    table: tuple[str, ...]
    lies: tuple[str, ...] = ()
    api_version: int = 1

    def probe(self) -> Sequence[Device]:
        return []

    def version(self) -> str:
        return "1.0"

    def capabilities(self, arch: str = "") -> Capabilities:
        rules = {op: OpRule() for op in self.table}
        return Capabilities(self.name, "npu 1.0", rules, precisions={"fp32": yes()}, speed=50.0)

    def compile(self, model: ir.Model, options: CompileOptions, out: Path) -> Artifact:
        if bad := [n.op_type for n in model.graph if n.op_type in self.lies]:
            raise CompileError("npu: no kernel for {op}", op=bad[0])
        made = registry.backend("onnxruntime").compile(model, options, out)
        return replace(made, backend=self.name)

    def open(self, artifact: Artifact, folder: Path, options: RunOptions) -> Session:
        return registry.backend("onnxruntime").open(artifact, folder, options)


@pytest.fixture
def npu() -> Iterator[Any]:
    made: list[str] = []

    def make(name: str, *table: str, lies: tuple[str, ...] = ()) -> str:
        registry.register_backend(Npu(name, table, lies))
        made.append(name)
        return name

    yield make
    for name in made:
        registry._load(registry.BACKENDS)[0].pop(name)


CNN_OPS = ("Conv", "BatchNormalization", "Relu", "MaxPool", "Add", "Flatten", "Gemm", "Reshape")


def test_check_says_fits_and_compiles_nothing(cnn: Path) -> None:
    report = autoglm.check(cnn, backend="onnxruntime")

    assert report.fit is Fit.FITS
    assert [p.backend for p in report.plan.partitions] == ["onnxruntime"]
    assert list(cnn.parent.iterdir()) == [cnn]
    json.dumps(report.to_dict())


def test_check_names_each_fallback_with_its_reason_and_price(cnn: Path, npu: Any) -> None:
    name = npu("half", *CNN_OPS)
    report = autoglm.check(cnn, backend=name)

    assert report.fit is Fit.FALLBACKS
    lost = {f.op: f for f in report.plan.fallbacks if f.constraint != "absorbed"}
    assert set(lost) == {n.op for n in report.graph.nodes} - set(CNN_OPS)
    for fallback in lost.values():
        assert "is not in npu 1.0's table" in fallback.reason
        assert fallback.seconds > 0


def test_check_without_fallback_does_not_fit(cnn: Path, npu: Any) -> None:
    name = npu("strict", "Conv")

    assert autoglm.check(cnn, backend=name, fallback_policy="error").fit is Fit.NO


def test_auto_check_reports_other_engines_beside_the_best(cnn: Path) -> None:
    report = autoglm.check(cnn)
    names = {a.name for a in report.plan.alternatives}

    assert report.plan.backend not in names - {f"all on {report.plan.backend}"}
    assert report.fit is Fit.FITS


def test_a_bundle_answers_as_the_engine_does(cnn: Path, tmp_path: Path) -> None:
    result = autoglm.compile(cnn, tmp_path / "out", backend="onnxruntime")
    got = autoglm.run(tmp_path / "out", image())

    np.testing.assert_allclose(next(iter(got.values())), reference(cnn, image())[0], atol=1e-5)
    assert [c.passed for c in result.certificates] == [True]
    assert result.certificates[0].samples == 2


def test_auto_measures_every_engine_and_keeps_the_fastest(block: Path, tmp_path: Path) -> None:
    result = autoglm.compile(block, tmp_path / "out", backend="auto")
    timed = [m for m in result.measurements if m.median_s is not None]

    assert len(timed) > 1
    assert sum(m.chosen for m in result.measurements) == 1
    assert autoglm.inspect(tmp_path / "out")["measurements"]


def test_a_mixed_plan_runs_across_engines_with_a_certificate_each(
    cnn: Path, tmp_path: Path
) -> None:
    pins = {"Relu": "torch", "MaxPool": "openvino", "Conv": "onnxruntime"}
    result = autoglm.compile(cnn, tmp_path / "out", backend="onnxruntime", pins=pins)
    got = autoglm.run(tmp_path / "out", image())

    engines = {p.backend for p in result.report.plan.partitions}
    assert engines == {"onnxruntime", "openvino", "torch"}
    np.testing.assert_allclose(next(iter(got.values())), reference(cnn, image())[0], atol=1e-5)
    parts = {p.id for p in result.report.plan.partitions}
    assert {c.subject for c in result.certificates} == parts | {"model"}


def test_an_engine_that_breaks_its_promise_is_planned_around(
    cnn: Path, tmp_path: Path, npu: Any
) -> None:
    name = npu("liar", *CNN_OPS, "ReduceMean", "GlobalAveragePool", lies=("MaxPool",))
    result = autoglm.compile(cnn, tmp_path / "out", backend=name)
    got = autoglm.run(tmp_path / "out", image())

    fallback = next(f for f in result.report.plan.fallbacks if f.op == "MaxPool")
    assert "npu: no kernel for MaxPool" in fallback.reason
    np.testing.assert_allclose(next(iter(got.values())), reference(cnn, image())[0], atol=1e-5)


def test_with_no_fallback_the_compilers_refusal_is_the_error(
    cnn: Path, tmp_path: Path, npu: Any
) -> None:
    name = npu("liar2", *CNN_OPS, "ReduceMean", "GlobalAveragePool", lies=("MaxPool",))

    with pytest.raises(UnsupportedOperatorError, match="no kernel for MaxPool"):
        autoglm.compile(cnn, tmp_path / "out", backend=name, fallback_policy="error")
    assert not (tmp_path / "out").exists()


def test_the_same_compile_is_taken_from_the_cache(tmp_path: Path) -> None:
    cnn = tmp_path / "own.onnx"
    ir.save(models.cnn(classes=7, size=32), cnn)
    first = autoglm.compile(cnn, tmp_path / "a", backend="onnxruntime")
    second = autoglm.compile(cnn, tmp_path / "b", backend="onnxruntime")
    other = autoglm.compile(cnn, tmp_path / "c", backend="onnxruntime", threads=1)

    assert (first.cache_hits, second.cache_hits, other.cache_hits) == (0, 1, 0)
    assert (
        autoglm.run(tmp_path / "b", image()).keys() == autoglm.run(tmp_path / "a", image()).keys()
    )


def test_what_is_out_of_tolerance_is_refused_and_names_the_operator(
    block: Path, tmp_path: Path
) -> None:
    with pytest.raises(AccuracyError, match=r"is off by .* is allowed.*first operator") as caught:
        autoglm.compile(
            block, tmp_path / "out", backend="openvino", precision="bf16", max_error=1e-7
        )

    assert not (tmp_path / "out").exists()
    assert "--max-error" in caught.value.hint


def test_out_of_tolerance_is_kept_on_request_and_says_so(block: Path, tmp_path: Path) -> None:
    result = autoglm.compile(
        block,
        tmp_path / "out",
        backend="openvino",
        precision="bf16",
        max_error=1e-7,
        accept_accuracy=True,
    )

    assert not result.certificates[-1].passed
    assert autoglm.inspect(tmp_path / "out")["certificates"][-1]["passed"] is False


def test_int8_is_certified_against_fp32(cnn: Path, tmp_path: Path) -> None:
    result = autoglm.compile(cnn, tmp_path / "out", backend="onnxruntime", precision="int8")
    worst = result.certificates[-1]

    assert worst.precision == "int8"
    assert 0 < worst.max_relative_error <= worst.tolerance
    assert any("random" in note for note in result.notes)


def test_a_corrupted_bundle_is_never_run(cnn: Path, tmp_path: Path) -> None:
    autoglm.compile(cnn, tmp_path / "out", backend="onnxruntime")
    victim = max((tmp_path / "out" / "artifacts").rglob("*"), key=lambda p: p.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)

    with pytest.raises(BundleError, match=victim.name):
        autoglm.open(tmp_path / "out")
    assert autoglm.inspect(tmp_path / "out", verify=True)["problems"]


def test_wrong_feeds_are_named(cnn: Path, tmp_path: Path) -> None:
    with autoglm.open(cnn, backend="onnxruntime") as session:
        with pytest.raises(InputError, match="image"):
            session.run({"image": np.zeros((1, 3, 8), np.float32)})
        with pytest.raises(InputError, match="image"):
            session.run({})
        assert session.run(image())


def test_a_wrong_backend_and_a_wrong_key_are_refused_by_name(cnn: Path) -> None:
    with pytest.raises(BackendNotFoundError, match="nosuch"):
        autoglm.check(cnn, backend="nosuch")
    with pytest.raises(ConfigError, match="precison"):
        autoglm.check(cnn, precison="fp32")


def test_bench_compares_in_one_run_with_a_control(cnn: Path, tmp_path: Path) -> None:
    autoglm.compile(cnn, tmp_path / "out", backend="onnxruntime")
    rows = autoglm.bench(tmp_path / "out", against=["openvino"], budget_s=0.2)

    assert [r["name"] for r in rows] == ["this", "this again (A/A)", "openvino"]
    assert rows[0]["ratio"] == 1.0
    assert rows[2]["max_relative_error"] < 1e-4


def test_a_model_object_and_a_path_give_the_same_answer(cnn: Path) -> None:
    loaded = ir.load(cnn)
    a = autoglm.run(cnn, image(), backend="onnxruntime")
    b = autoglm.run(loaded, image(), backend="onnxruntime")

    np.testing.assert_array_equal(next(iter(a.values())), next(iter(b.values())))


def test_torch_tensors_are_fed_without_a_copy(cnn: Path) -> None:
    torch = pytest.importorskip("torch")
    feeds = image()
    got = autoglm.run(cnn, {"image": torch.from_numpy(feeds["image"])}, backend="onnxruntime")

    np.testing.assert_allclose(next(iter(got.values())), reference(cnn, feeds)[0], atol=1e-5)


def test_a_custom_operator_does_not_fit_and_is_named(tmp_path: Path) -> None:
    model = models.chain("Relu", "Erf")
    node = next(n for n in model.graph if n.op_type == "Erf")
    node.domain, node.op_type = "acme.custom", "Magic"
    model.graph.opset_imports["acme.custom"] = 1
    ir.save(model, tmp_path / "custom.onnx")

    report = autoglm.check(tmp_path / "custom.onnx")
    assert report.fit is Fit.NO
    with pytest.raises(UnsupportedOperatorError, match=r"acme\.custom::Magic"):
        autoglm.compile(tmp_path / "custom.onnx", tmp_path / "out")


def test_bench_times_the_model_without_each_pass(block: Path) -> None:
    rows = autoglm.bench(block, passes=True, budget_s=0.1, backend="onnxruntime")

    assert any(r["name"].startswith("without ") for r in rows)
    assert all(r["max_relative_error"] < 1e-4 for r in rows)


def test_a_session_that_nobody_closes_leaves_nothing_behind(
    cnn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gc
    import tempfile
    import warnings

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    session = autoglm.open(cnn, backend="onnxruntime")
    assert any((tmp_path / "tmp").iterdir())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del session
        gc.collect()

    assert not any((tmp_path / "tmp").iterdir())


def test_open_dimensions_are_proved_above_size_one(tmp_path: Path) -> None:
    # At one position a softmax is constant: an error in what it weighs would never show.
    ir.save(models.transformer(batch="b", sequence="s"), tmp_path / "open.onnx")
    result = autoglm.compile(tmp_path / "open.onnx", tmp_path / "out", backend="onnxruntime")

    assert any("b=1, s=32 and at b=3, s=17" in note for note in result.notes)


def test_one_bad_feed_fails_the_certificate() -> None:
    from autoglm.runtime.certify import _worst
    from autoglm.tensor.accuracy import Difference, passes

    good, bad = Difference(1, 0.06, 54.0, 1.0), Difference(1, 0.05, -2.6, 0.6)

    assert passes(good, "int8")
    assert not passes(_worst([good, bad]), "int8")


def test_a_bundle_refuses_keys_that_would_have_no_effect(cnn: Path, tmp_path: Path) -> None:
    autoglm.compile(cnn, tmp_path / "out", backend="onnxruntime")

    with pytest.raises(ConfigError, match="precision would have no effect"):
        autoglm.run(tmp_path / "out", image(), precision="int8")


def test_a_model_verb_given_a_bundle_says_so(cnn: Path, tmp_path: Path) -> None:
    autoglm.compile(cnn, tmp_path / "out", backend="onnxruntime")

    with pytest.raises(ModelError, match="is a bundle; this takes a model"):
        autoglm.check(tmp_path / "out")


def test_an_output_that_is_in_the_way_is_refused_before_the_work(cnn: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")

    with pytest.raises(WriteError, match="is not a bundle"):
        autoglm.compile(tmp_path / "missing.onnx", tmp_path / "full")
    assert (tmp_path / "full" / "mine.txt").read_text() == "keep"


def test_a_pin_that_matches_nothing_is_noted(cnn: Path) -> None:
    report = autoglm.check(cnn, backend="onnxruntime", pins={"nosuch": "openvino"})

    assert any("'nosuch' matches no node" in note for note in report.notes)


def test_a_forbidden_operator_that_is_not_in_the_model_is_noted(cnn: Path) -> None:
    report = autoglm.check(cnn, backend="onnxruntime", budget={"forbid": ["Conv", "Matmul"]})

    assert [n for n in report.notes if "forbid" in n] == [
        "budget.forbid 'Matmul' matches no operator."
    ]
