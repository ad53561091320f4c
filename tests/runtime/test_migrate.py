"""The migration report over real tables and hand-made chips, with no toolkit here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import models
import onnx_ir as ir
import pytest
from migration_chips import Npu, three_chips, wide_cnn

import autoglm
from autoglm import registry
from autoglm.errors import BackendNotFoundError, ConfigError
from autoglm.runtime.migrate import Migration
from autoglm.spec import Capabilities, Constraint, Fit, OpRule, Verdict, no


@pytest.fixture
def chips() -> Iterator[None]:
    with three_chips():
        yield


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wide_cnn(tmp_path_factory.mktemp("models"))


@pytest.fixture
def report(chips: None, cnn: Path) -> Migration:
    return autoglm.migrate(cnn, "alpha:Big", ["beta", "gamma", "openvino"], precision="fp16")


def test_every_chip_gets_a_verdict_against_the_source(report: Migration) -> None:
    beta, gamma, openvino = report.targets

    assert report.source.target == "alpha Big"
    assert (report.source.verdict, report.source.work) == ("GO", ())
    assert [t.verdict for t in (beta, gamma)] == ["GO WITH FALLBACKS"] * 2
    assert [c.op for c in beta.lost] == ["MaxPool"]
    assert beta.rewrites  # of Relu, which is so not lost
    assert gamma.plan.precision == "fp32"
    assert "fp16 is not on it" in gamma.why
    assert openvino.installed
    assert openvino.obtain == ""
    assert report.fit is Fit.FALLBACKS


def test_times_are_ranges_and_ratios_to_the_source(report: Migration) -> None:
    for target in report.targets:
        low, high = target.latency
        assert low < target.plan.seconds < high
        expected, least, most = report.ratio(target) or (0, 0, 0)
        assert least < expected < most
        assert expected == pytest.approx(target.plan.seconds / report.source.plan.seconds)


def test_memory_energy_formats_and_toolkit_are_told(report: Migration) -> None:
    beta = report.targets[0]

    assert 0 < beta.memory_need < (beta.memory_bytes or 0)
    assert beta.energy_j is not None
    assert beta.energy_j > 0
    assert beta.formats == ("npu-bin",)
    assert beta.tolerance > report.targets[1].tolerance  # fp16 beside fp32
    assert (beta.toolkit, beta.installed) == ("beta 1.0", "")


def test_the_work_list_says_what_each_operator_would_bring(report: Migration) -> None:
    beta = report.targets[0]

    assert any(w.action in ("add", "rewrite") and "MaxPool" in w.text for w in beta.work)
    assert any(w.fit is Fit.FITS for w in beta.work)


def test_a_rewrite_is_named_with_what_the_chip_does_not_take_of_it(cnn: Path) -> None:
    model = models.transformer()
    plug = Npu("delta", ("Gelu", "Erf", "LayerNormalization", "Sqrt", "Reciprocal", "Pow"))
    registry.register_backend(plug)  # type: ignore[arg-type]
    try:
        found = autoglm.migrate(model, "onnxruntime", ["delta"])
    finally:
        registry._load(registry.BACKENDS)[0].pop("delta")

    rewrites = [w.text for w in found.targets[0].work if w.action == "rewrite"]
    assert rewrites
    assert all("Replace" in text and "once it takes" in text for text in rewrites)


class Narrow(Npu):
    """A chip that takes fewer operators in int8 than in other precisions."""

    def capabilities(self, arch: str = "") -> Capabilities:
        refused = OpRule(when=lambda node: no(Constraint.OP, f"{node.op} is float here"))
        lacks = dict.fromkeys(("MaxPool", "Gemm", "MatMul"), refused)
        return replace(super().capabilities(arch), also={"int8": lacks})


def test_int8_is_judged_by_its_own_rules_throughout(cnn: Path) -> None:
    plugs = (Npu("wide", (), ("fp32", "int8")), Narrow("narrow", (), ("fp32", "int8")))
    for plug in plugs:
        registry.register_backend(plug)  # type: ignore[arg-type]
    try:
        found = autoglm.migrate(cnn, "wide:Big", ["narrow:Big"], precision="int8").targets[0]
    finally:
        for plug in plugs:
            registry._load(registry.BACKENDS)[0].pop(plug.name)

    assert {c.op for c in found.lost} == {"MaxPool", "Gemm"}
    assert {c.reason for c in found.lost} <= {f.reason for f in found.fallbacks}
    assert {w.fit for w in found.work if w.action == "add"} == {Fit.FALLBACKS}  # one is not enough
    assert [w.fit for w in found.work if w.action == "all"] == [Fit.FITS]


def test_it_is_json(report: Migration) -> None:
    facts = json.loads(json.dumps(report.to_dict()))

    assert facts["verdicts"]["openvino"] == report.targets[2].verdict
    assert facts["source"]["verdict"] == "GO"
    assert facts["targets"][0]["work"][0]["fit"] in [fit.value for fit in Fit]
    assert facts["targets"][0]["chip"]["watts"] == 75.0


def test_a_chip_that_the_host_outruns_is_a_no_go_that_pins_would_change(chips: None) -> None:
    found = autoglm.migrate(models.cnn(), "alpha", ["beta"]).targets[0]

    assert (found.verdict, found.energy_j) == ("NO-GO", None)
    assert "nothing of it would run on beta" in found.why
    assert [w.fit for w in found.work if w.action == "pin"] == [Fit.FALLBACKS]


def test_without_fallback_a_lost_operator_is_a_no_go(chips: None, cnn: Path) -> None:
    found = autoglm.migrate(cnn, "alpha", ["beta"], fallback_policy="error")

    assert found.targets[0].verdict == "NO-GO"
    assert "no backend takes" in found.targets[0].why
    assert found.fit is Fit.NO


def test_two_chips_of_one_backend_are_compared(chips: None, cnn: Path) -> None:
    found = autoglm.migrate(cnn, "alpha", ["alpha:Big", "alpha"])

    assert [t.target for t in found.targets] == ["alpha Big", "alpha Small"]
    assert found.targets[0].plan.seconds < found.targets[1].plan.seconds


def test_open_dimensions_are_fixed_by_the_options_that_it_names(chips: None) -> None:
    found = autoglm.migrate(models.mlp(batch="batch"), "alpha", ["gamma"])

    assert found.inputs[0].shape == ("batch", 16)


def test_wrong_names_are_refused_with_what_there_is(chips: None, cnn: Path) -> None:
    with pytest.raises(BackendNotFoundError, match="nothere"):
        autoglm.migrate(cnn, "alpha", ["nothere"])
    with pytest.raises(ConfigError, match="Unknown chip"):
        autoglm.migrate(cnn, "alpha", ["beta:Huge"])
    with pytest.raises(ConfigError, match="backend would have no effect"):
        autoglm.migrate(cnn, "alpha", ["beta"], backend="gamma")


VENDORS = ("ascend:Ascend910B3", "sophon:bm1684x", "kunlun", "cambricon", "openvino")


@pytest.mark.parametrize("build", [models.cnn, models.transformer])
def test_from_cuda_to_all_five_others_by_their_own_tables(build: Callable[[], ir.Model]) -> None:
    found = autoglm.migrate(build(), "cuda:H100", VENDORS, precision="fp16")

    assert found.source.backend == "cuda"
    assert [t.backend for t in found.targets] == [v.partition(":")[0] for v in VENDORS]
    for target in found.targets:
        assert target.why
        assert target.installed or target.obtain
        lost = {n for c in target.lost for n in c.nodes}
        fell = {f.node for f in target.plan.fallbacks} | set(target.plan.unplaced)
        assert not lost or fell
        unknown = [r for r in target.plan.refusals if r.verdict is Verdict.UNKNOWN]
        own = {r.node for r in unknown if r.backend == target.backend}
        placed = {n for p in target.plan.partitions for n in p.nodes if p.backend == target.backend}
        assert not own & placed


def test_a_time_without_published_figures_is_rough(report: Migration) -> None:
    beta = report.targets[0]
    assert beta.chip is not None
    blind = replace(beta, chip=replace(beta.chip, bandwidth_gbps=None))

    assert (beta.rough, blind.rough) == (False, True)
    assert not report.targets[2].rough  # this machine's engine is measured


def test_a_chip_of_the_catalog_needs_no_backend_before_it() -> None:
    (found,) = autoglm.migrate(models.cnn(), "H100", ["BM1684X"]).targets

    assert (found.backend, found.chip and found.chip.name) == ("sophon", "BM1684X")
