"""From model to answer on an emulated chip that lacks one operator, with no toolkit and no chip."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from models import Builder, feeds

import autoglm
from autoglm.api import CompileResult
from autoglm.backends.emulated.session import EmulatedSession
from autoglm.spec import Fit

# No list of Huawei's parser has RNN.
LACKED = "RNN"


@pytest.fixture(scope="module")
def model() -> ir.Model:
    b = Builder(opset=17)
    x = b.input("x", [64, 1, 512])
    x = b.op("MatMul", b.op("Relu", b.op("MatMul", x, b.weight(512, 2048))), b.weight(2048, 512))
    weights = b.weight(1, 64, 512), b.weight(1, 64, 64)
    x = b.op(LACKED, x, *weights, name="lacked", hidden_size=64)
    x = b.op("Reshape", x, b.constant([64, 64], np.int64))
    return b.model(b.op("MatMul", b.op("MatMul", x, b.weight(64, 4096)), b.weight(4096, 256)))


@pytest.fixture(scope="module")
def compiled(model: ir.Model, tmp_path_factory: pytest.TempPathFactory) -> CompileResult:
    return autoglm.compile(
        model,
        tmp_path_factory.mktemp("emulated") / "bundle",
        backend="emulated",
        arch="Ascend310P3",
        precision="fp16",
        settings={"pace": "true"},
    )


def test_one_operator_that_only_the_cpu_has_costs_two_partitions(compiled: CompileResult) -> None:
    plan = compiled.report.plan

    assert plan.fit is Fit.FALLBACKS
    assert [p.backend for p in plan.partitions] == ["emulated", "onnxruntime", "emulated"]
    assert [p.chip for p in plan.partitions] == ["Ascend 310P3", "", "Ascend 310P3"]
    assert "lacked" in [f.node for f in plan.fallbacks]
    assert all(f.seconds > 0 for f in plan.fallbacks)


def test_everything_about_it_says_emulated_and_estimated(compiled: CompileResult) -> None:
    from autoglm.cli.page import page

    report = json.dumps(compiled.report.to_dict())
    html = page(compiled.report, compiled.certificates)

    for text in (report, html):
        assert "estimated from the catalog: Ascend 310P3" in text
        assert "emulated Ascend 310P3 (CANN" in text
    assert "emulated: Ascend 310P3 on this machine" in html
    said = {c.subject: c.remark for c in compiled.certificates}
    assert all(said[name].startswith("emulated: Ascend 310P3") for name in ("p0", "p2", "model"))
    assert said["p1"] == ""
    assert all(c.passed for c in compiled.certificates)


def test_the_bundle_runs_and_the_setting_is_the_emulations_alone(
    compiled: CompileResult, model: ir.Model
) -> None:
    with autoglm.open(compiled.folder, settings={"pace": "2"}) as session:
        got = session.run(feeds(model))
        first = session.part("p0")
        assert isinstance(first, EmulatedSession)
        assert first.estimated_s > 0
        assert len(session.remarks) == 1
    with autoglm.open(model, backend="onnxruntime") as plain:
        want = plain.run(feeds(model))

    (a,), (b,) = got.values(), want.values()
    assert 0 < np.abs(a - b).max() <= 5e-3 * np.abs(b).max()


def test_auto_never_takes_an_emulated_chip(model: ir.Model, tmp_path: Path) -> None:
    report = autoglm.check(model, backend="auto")

    assert "emulated" not in report.toolkits
    assert "emulated" not in [a.name for a in report.plan.alternatives]
