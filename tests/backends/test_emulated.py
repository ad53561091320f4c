"""An emulated chip refuses what the chip would, rounds as it does, and takes its time if asked."""

from __future__ import annotations

import hashlib
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import Builder

from autoglm import registry
from autoglm.backends.emulated.compile import estimate_of
from autoglm.backends.emulated.profile import Profile, profile
from autoglm.backends.emulated.session import EmulatedSession, pace_of
from autoglm.catalog.chips import chips
from autoglm.errors import CompileError, ConfigError, ExecutionError, InputError
from autoglm.rewrite.facts import node_facts
from autoglm.spec import (
    Artifact,
    Capabilities,
    Chip,
    CompileOptions,
    Constraint,
    NodeFacts,
    OpRule,
    RunOptions,
    Support,
    Verdict,
    no,
    yes,
)

EMULATED = registry.backend("emulated")
ARCH = "Ascend310P3"


def net() -> ir.Model:
    """Conv, Relu, MatMul: a product whose sums are long enough to be rounded."""
    b = Builder(opset=17)
    x = b.input("x", [1, 3, 8, 8])
    weight = b.constant(b.random.normal(size=(8, 3, 3, 3)))
    y = b.op("Conv", x, weight, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    y = b.op("Relu", y)
    y = b.op("Reshape", y, b.constant([1, 512], np.int64))
    return b.model(b.op("MatMul", y, b.constant(b.random.normal(size=(512, 10)))))


def feed(seed: int = 1) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).normal(size=(1, 3, 8, 8)).astype(np.float32)}


def compiled(out: Path, model: ir.Model | None = None, **options: object) -> Artifact:
    out.mkdir(exist_ok=True)
    told = CompileOptions(**{"arch": ARCH, **options})  # type: ignore[arg-type]
    return EMULATED.compile(model or net(), told, out)


def answer(out: Path, **options: object) -> np.ndarray:
    artifact = compiled(out, **options)
    with EMULATED.open(artifact, out, RunOptions()) as session:  # type: ignore[attr-defined]
        return np.asarray(next(iter(session.run(feed()).values())))


def own(monkeypatch: pytest.MonkeyPatch, **changes: object) -> None:
    """A chip of our own, with these limits, in the place of the one that is asked for."""
    table = Capabilities(
        "emulated",
        "emulated chip (test)",
        {op: OpRule() for op in ("Conv", "Relu", "Reshape", "MatMul")},
        precisions=dict.fromkeys(("fp32", "fp16", "bf16", "int8"), yes()),
    )
    chip = Chip("test", "nobody", "test", "npu", bandwidth_gbps=10.0, peak_tflops={"fp32": 1.0})
    found = Profile(chip, replace(table, chip=chip, **changes), "float32")  # type: ignore[arg-type]
    monkeypatch.setattr("autoglm.backends.emulated.compile.profile", lambda arch: found)


def test_the_table_is_the_vendors_own_for_that_chip() -> None:
    table = EMULATED.capabilities(ARCH)
    theirs = registry.backend("ascend").capabilities(ARCH)

    facts = node_facts(net())
    assert [table.support(f) for f in facts] == [theirs.support(f) for f in facts]
    assert set(table.table) == set(theirs.table)
    assert table.chip == theirs.chip
    assert table.memory_bytes == theirs.memory_bytes
    assert table.toolkit == f"emulated Ascend 310P3 ({theirs.toolkit})"
    assert table.precisions["bf16"].verdict is Verdict.NO


def test_names_are_taken_in_any_case_and_an_unknown_one_is_refused() -> None:
    assert profile("ascend310p3").chip == profile("310P3").chip
    with pytest.raises(ConfigError, match="Ascend 310P3"):
        EMULATED.capabilities("Ascend310P4")


@pytest.mark.parametrize("vendor", ["ascend", "sophon", "cambricon", "kunlun", "cuda"])
def test_every_chip_that_its_vendors_backend_knows_has_a_profile(vendor: str) -> None:
    theirs = registry.backends().get(vendor)
    if theirs is None:
        pytest.skip(f"the backend {vendor} does not load here")
    known = 0
    for chip in (c for c in chips().values() if c.backend == vendor):
        try:
            theirs.capabilities(chip.name)
        except ConfigError:  # no chip of its toolchain
            with pytest.raises(ConfigError):
                EMULATED.capabilities(chip.name)
            continue
        table = EMULATED.capabilities(chip.name)
        known += 1
        assert table.chip == chip
        assert table.toolkit.startswith(f"emulated {chip.name} (")
    assert known


def test_it_says_that_it_is_emulated_wherever_it_shows(tmp_path: Path) -> None:
    artifact = compiled(tmp_path)
    (device,) = EMULATED.probe()

    assert "emulated" in device.name
    assert not device.present
    assert artifact.toolkit.startswith("emulated Ascend 310P3 on onnxruntime")
    session = EMULATED.open(artifact, tmp_path, RunOptions())
    assert isinstance(session, EmulatedSession)
    assert session.remark.startswith("emulated: Ascend 310P3 on this machine's CPU")
    assert "sums in float32;" in session.remark
    assert "in float32, sums in float32;" in session.remark
    assert "assumed" in replace(profile(ARCH), accumulator="").remark("fp16")
    assert "rounded to int8" in profile(ARCH).remark("int8")


def test_fp32_answers_as_the_engine_beneath(tmp_path: Path) -> None:
    engine, folder = registry.backend("onnxruntime"), tmp_path / "r"
    folder.mkdir()
    golden = engine.open(engine.compile(net(), CompileOptions(), folder), folder, RunOptions())
    want = next(iter(golden.run(feed()).values()))

    np.testing.assert_allclose(answer(tmp_path / "e", precision="fp32"), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("precision", "element", "bound"),
    [("fp16", np.float16, 2.0**-9), ("bf16", ml_dtypes.bfloat16, 2.0**-6)],
)
def test_every_operators_output_is_rounded_to_the_chips_element_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, element: type, bound: float
) -> None:
    own(monkeypatch)
    exact = answer(tmp_path / "exact", precision="fp32")
    got = answer(tmp_path / "low", precision=precision)

    np.testing.assert_array_equal(got, got.astype(element).astype(np.float32))
    assert np.abs(got - exact).max() > 0
    assert np.abs(got - exact).max() <= bound * np.abs(exact).max()


def test_a_chain_rounds_at_each_step_as_numpy_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = Builder(opset=17)
    x, add = b.input("x", [64]), b.constant(b.random.normal(size=64))
    scale = b.constant(b.random.normal(size=64))
    model = b.model(b.op("Mul", b.op("Add", x, add), scale))
    own(monkeypatch, table={op: OpRule() for op in ("Add", "Mul")})
    artifact = compiled(tmp_path, model, precision="fp16")
    values = {"x": np.random.default_rng(3).normal(size=64).astype(np.float32)}

    with EMULATED.open(artifact, tmp_path, RunOptions()) as session:  # type: ignore[attr-defined]
        got = next(iter(session.run(values).values()))

    weights = [np.asarray(v.const_value.numpy()) for v in model.graph.initializers.values()]
    low = [w.astype(np.float16).astype(np.float32) for w in weights]
    wide = values["x"].astype(np.float16).astype(np.float32)
    first = (wide + low[0]).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(got, (first * low[1]).astype(np.float16).astype(np.float32))


def test_nodes_that_stay_high_are_not_rounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own(monkeypatch)
    names = frozenset(f.name for f in node_facts(net()))

    kept = answer(tmp_path, precision="fp16", keep_high=names)

    assert not np.array_equal(kept, kept.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_what_an_operator_has_in_float32_only_is_not_rounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    b = Builder(opset=17)
    scales = b.constant(np.array([1, 1, 1.3, 1.3], np.float32))
    x = b.input("x", [1, 1, 10, 10])
    model = b.model(b.op("Resize", x, "", scales, mode="nearest"))
    own(monkeypatch, table={"Resize": OpRule()})
    artifact = compiled(tmp_path, model, precision=precision)

    with EMULATED.open(artifact, tmp_path, RunOptions()) as session:  # type: ignore[attr-defined]
        (found,) = session.run({"x": np.zeros((1, 1, 10, 10), np.float32)}).values()

    assert found.shape == (1, 1, 13, 13)


def test_a_weight_of_a_node_that_stays_high_is_exact_and_shared_ones_are_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = Builder(opset=17)
    x, third = b.input("x", [1]), b.constant(np.array([1 / 3], np.float32))
    model = b.model(b.op("Mul", x, third, name="low"), b.op("Mul", x, third, name="high"))
    own(monkeypatch, table={"Mul": OpRule()})
    keep = frozenset({"high"})
    artifact = compiled(tmp_path, model, precision="fp16", keep_high=keep)

    with EMULATED.open(artifact, tmp_path, RunOptions()) as session:  # type: ignore[attr-defined]
        low, high = session.run({"x": np.ones(1, np.float32)}).values()

    assert low[0] == np.float32(np.float16(1 / 3))
    assert high[0] == np.float32(1 / 3)


def test_int8_is_near_and_needs_calibration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own(monkeypatch)
    exact = answer(tmp_path / "exact", precision="fp32")
    got = answer(tmp_path / "low", precision="int8", calibration=(feed(1), feed(2)))

    assert 1e-4 < np.abs(got - exact).max() / np.abs(exact).max() < 0.05
    with pytest.raises(ConfigError, match="calibration"):
        compiled(tmp_path / "none", precision="int8")


def test_compiling_again_writes_the_same_bytes(tmp_path: Path) -> None:
    artifacts = [compiled(tmp_path / name, precision="fp16") for name in ("a", "b")]

    def digest(name: str) -> list[str]:
        files = sorted(p for p in (tmp_path / name).rglob("*") if p.is_file())
        return [hashlib.sha256(p.read_bytes()).hexdigest() for p in files]

    assert artifacts[0] == artifacts[1]
    assert digest("a") == digest("b") != []


def five(node: NodeFacts) -> Support:
    return no(Constraint.SHAPE, "at most 5 channels; found 8")


@pytest.mark.parametrize(
    ("changes", "options", "text"),
    [
        ({"table": {"Conv": OpRule()}}, {}, "takes no node .*Relu"),
        ({"table": {"Conv": OpRule(frozenset({"float16"}))}}, {}, "Conv takes float16; found"),
        ({"table": {"Conv": OpRule(when=five)}}, {}, "at most 5 channels"),
        ({"complete": False, "table": {}}, {}, "never measured"),
        ({"memory_bytes": 10_000}, {}, "has 10000 bytes of memory; .* need"),
        ({"precisions": {"fp32": yes()}}, {"precision": "fp16"}, "does not compile to fp16"),
        ({"alignment": 256}, {"memory_alignment": 32}, "aligned to 256 bytes; found .* 32"),
        ({}, {"settings": {"paec": "true"}}, "no setting 'paec'"),
        ({}, {"settings": {"pace": "-1"}}, "takes true, false or a factor"),
    ],
    ids=["op", "dtype", "shape", "unknown", "memory", "precision", "alignment", "key", "pace"],
)
def test_what_the_chip_would_refuse_is_refused_with_the_limit(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, object],
    options: dict[str, object],
    text: str,
) -> None:
    own(monkeypatch, **changes)

    with pytest.raises((CompileError, ConfigError), match=text):
        compiled(tmp_path, **options)


def test_a_smaller_element_type_makes_a_model_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own(monkeypatch, memory_bytes=20_000)

    with pytest.raises(CompileError, match="need"):
        compiled(tmp_path / "wide")
    assert compiled(tmp_path / "low", precision="fp16").precision == "fp16"


def test_the_default_alignment_is_raised_to_the_chips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own(monkeypatch, alignment=8192)
    compiled(tmp_path)

    model = ir.load(tmp_path / "model.onnx")
    tensors = [v.const_value for v in model.graph.initializers.values()]
    offsets = [t.offset for t in tensors if isinstance(t, ir.ExternalTensor)]
    assert offsets
    assert all(offset % 8192 == 0 for offset in offsets)


def test_a_paced_session_takes_the_chips_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = compiled(tmp_path, settings={"pace": "true"})
    slow = replace(artifact, meta={**artifact.meta, "estimated_s": 0.05})
    session = EMULATED.open(slow, tmp_path, RunOptions())
    assert isinstance(session, EmulatedSession)

    started = time.perf_counter()
    session.run(feed())
    took = time.perf_counter() - started

    assert took >= session.estimated_s >= 0.05
    if not session.overrun_s:  # a busy machine may need longer than that
        assert session.estimated_s == pytest.approx(0.05, rel=0.01)
    hasty = replace(artifact, meta={**artifact.meta, "estimated_s": 0.0})
    late = EMULATED.open(hasty, tmp_path, RunOptions())
    assert isinstance(late, EmulatedSession)
    late.run(feed())
    assert late.overrun_s > 0


def test_the_estimate_is_the_planners(tmp_path: Path) -> None:
    from autoglm.plan import graph_of, make_plan

    artifact = compiled(tmp_path, precision="fp16")
    plan = make_plan(
        graph_of(net()),
        {"emulated": EMULATED.capabilities(ARCH)},
        backend="emulated",
        policy="error",
        precision="fp16",
    )
    session = EMULATED.open(artifact, tmp_path, RunOptions())
    assert isinstance(session, EmulatedSession)
    session.run(feed())

    assert session.estimated_s == pytest.approx(plan.seconds, rel=1e-6)
    assert session.uncertainty == plan.uncertainty
    assert estimate_of(profile(ARCH), node_facts(net()), "fp16").seconds < plan.seconds


def test_feeds_and_a_closed_session_are_refused(tmp_path: Path) -> None:
    session = EMULATED.open(compiled(tmp_path), tmp_path, RunOptions())

    with pytest.raises(InputError, match="'x' is missing"):
        session.run({})
    session.close()
    session.close()
    with pytest.raises(ExecutionError, match="closed"):
        session.run(feed())


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=8) | st.floats().map(str))
def test_a_pace_is_a_number_from_0_on_or_a_named_refusal(text: str) -> None:
    with suppress(ConfigError):
        assert 0.0 <= pace_of({"pace": text}) < 1e6
