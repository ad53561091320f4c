"""A vendor compiler that aborts, hangs or exhausts memory: only what it refuses falls back, with
the translated message as the reason and a folder that repeats the failure.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import models
import numpy as np
import onnx_ir as ir
import pytest

import autoglm
from autoglm import registry, toolchain
from autoglm.config import AdaptConfig
from autoglm.errors import AutoGLMError, CompileError
from autoglm.plan import Machine
from autoglm.runtime.build import build, compile_part
from autoglm.runtime.prepare import load, plan_for
from autoglm.runtime.refused import refused_nodes
from autoglm.runtime.reproduce import FOLDER
from autoglm.spec import (
    Artifact,
    Capabilities,
    CompileOptions,
    Device,
    OpRule,
    RunOptions,
    Session,
    yes,
)

# What the compiler does with a bad graph, in the words of TPU-MLIR where it says anything.
DEATHS = {
    "abort": "print('UNREACHABLE executed at /w/tpu-mlir/lib/X.cpp:32!', flush=True); os.abort()",
    "hang": "time.sleep(600)",
    "memory": "bytearray(4 << 30)",
    "message": "print('E19010: No parser is registered for Op [' + name + ', optype [ai.onnx::'"
    "'11::' + op + ']].'); raise SystemExit(1)",
}
SCRIPT = """
import json, os, sys, time
nodes, bad = json.loads(sys.argv[1]), json.loads(sys.argv[2])
for at, (name, op) in enumerate(nodes):
    before = nodes[at - 1][1] if at else ""
    if op in bad or f"{{before}}+{{op}}" in bad:
        {death}
"""


@dataclass
class Chip:
    """A vendor chip whose compiler is a program apart; it dies on the operators `bad`, and on a
    pair `A+B` where B follows A.
    """

    name: str
    death: str
    bad: tuple[str, ...]
    api_version: int = 1

    def probe(self) -> Sequence[Device]:
        return []

    def version(self) -> str:
        return "1.0"

    def capabilities(self, arch: str = "") -> Capabilities:
        ops = {"Conv", "BatchNormalization", "Relu", "MaxPool", "Add", "Flatten", "Gemm"}
        ops |= {"GlobalAveragePool", "ReduceMean", "Reshape"}
        rules = {op: OpRule() for op in ops}
        return Capabilities(self.name, "chip 1.0", rules, precisions={"fp32": yes()}, speed=50.0)

    def compile(self, model: ir.Model, options: CompileOptions, out: Path) -> Artifact:
        nodes = [(n.name, n.op_type) for n in model.graph if n.op_type != "Constant"]
        script = SCRIPT.format(death=DEATHS[self.death])
        argv = [sys.executable, "-c", script, json.dumps(nodes), json.dumps(self.bad)]
        toolchain.run(argv, log=out / "chip.log", timeout_s=options.timeout_s, memory_bytes=1 << 30)
        made = registry.backend("onnxruntime").compile(model, options, out)
        return replace(made, backend=self.name)

    def open(self, artifact: Artifact, folder: Path, options: RunOptions) -> Session:
        return registry.backend("onnxruntime").open(artifact, folder, options)


@pytest.fixture
def chip() -> Iterator[Any]:
    made: list[str] = []

    def make(death: str, *bad: str) -> str:
        name = f"chip{len(made)}-{death}"
        registry.register_backend(Chip(name, death, bad))
        made.append(name)
        return name

    yield make
    for name in made:
        registry._load(registry.BACKENDS)[0].pop(name)


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "cnn.onnx"
    ir.save(models.cnn(size=32), path)
    return path


def image() -> dict[str, Any]:
    return {"image": np.random.default_rng(0).standard_normal((1, 3, 32, 32), np.float32)}


def refused(result: Any) -> dict[str, str]:
    """Node -> reason, of what the compiler itself refused."""
    return {
        f.node: f.reason
        for f in result.report.plan.refusals
        if "its compiler refused it" in f.reason
    }


@pytest.mark.parametrize(
    ("death", "words"),
    [
        ("abort", "reached a case that is not implemented"),
        ("memory", "MemoryError"),
        ("message", "ATC has no ONNX parser for ai.onnx::11::MaxPool"),
    ],
)
def test_one_operator_kills_the_compiler_and_only_it_falls_back(
    cnn: Path, tmp_path: Path, chip: Any, death: str, words: str
) -> None:
    name = chip(death, "MaxPool")
    result = autoglm.compile(cnn, tmp_path / "out", backend=name)
    got = autoglm.run(tmp_path / "out", image())

    reasons = refused(result)
    ops = {n.name: n.op for n in result.report.graph.nodes}
    assert {ops[node] for node in reasons} == {"MaxPool"}
    assert all(words in reason for reason in reasons.values())
    assert all(f"(reproducer {name}-" in reason for reason in reasons.values())
    session = autoglm.open(cnn, backend="onnxruntime")
    with session:
        (expected,) = session.run(image()).values()
    np.testing.assert_allclose(next(iter(got.values())), expected, atol=1e-4)


def test_a_hanging_compiler_is_bisected_within_the_time_it_was_given(
    cnn: Path, tmp_path: Path, chip: Any
) -> None:
    name = chip("hang", "MaxPool")
    result = autoglm.compile(cnn, tmp_path / "out", backend=name, timeout_s=10)

    ops = {n.name: n.op for n in result.report.graph.nodes}
    assert "MaxPool" in {ops[node] for node in refused(result)}
    assert any("no end after" in reason for reason in refused(result).values())


def test_of_a_pair_that_fails_only_together_one_falls_back(
    cnn: Path, tmp_path: Path, chip: Any
) -> None:
    name = chip("abort", "MaxPool+Conv")
    result = autoglm.compile(cnn, tmp_path / "out", backend=name)

    ops = {n.name: n.op for n in result.report.graph.nodes}
    reasons = refused(result)
    assert {ops[node] for node in reasons} == {"Conv"}
    assert all("only together with" in reason for reason in reasons.values())
    assert all("(MaxPool)" in reason for reason in reasons.values())


def test_the_error_names_a_folder_that_repeats_the_failure(
    cnn: Path, tmp_path: Path, chip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOGLM_CACHE_DIR", str(tmp_path / "cache"))
    name = chip("abort", "MaxPool")

    with pytest.raises(AutoGLMError) as caught:
        autoglm.compile(cnn, tmp_path / "out", backend=name, fallback_policy="error")

    (place,) = (tmp_path / "cache" / FOLDER).iterdir()
    assert str(place) in str(caught.value) + caught.value.hint
    small = ir.load(place / "model.onnx")
    assert [n.op_type for n in small.graph] == ["MaxPool"]
    assert "UNREACHABLE" in (place / "compile.log").read_text()
    assert json.loads((place / "versions.json").read_text())[name] == "1.0"
    assert json.loads((place / "failure.json").read_text())["command"][0] == sys.executable
    script = (place / "run.sh").read_text()
    assert f"--backend {name}" in script
    subprocess.run(["sh", "-n", place / "run.sh"], check=True)
    assert not list(place.parent.glob(".*"))


def test_a_failure_that_only_calibration_shows_moves_the_whole_partition(
    cnn: Path, tmp_path: Path, chip: Any
) -> None:
    config = AdaptConfig(backend=chip("abort"))
    planned = plan_for(load(cnn, config), config.backend, config, Machine())
    partition = replace(planned.plan.partitions[0], precision="int8")
    error = CompileError("int8: no scale for a tensor")

    refused = refused_nodes(planned, partition, CompileOptions(), tmp_path, error)

    assert dict(refused.reasons) == dict.fromkeys(partition.nodes, "int8: no scale for a tensor")
    assert refused.reproducers == ()
    assert refused.raised(error) is error


@dataclass
class Emulation:
    """An emulated BM1684X whose compiler refuses one operator of its own table."""

    name: str = "emulation"
    bad: str = "MaxPool"
    calibrated: list[set[str]] = field(default_factory=list)
    api_version: int = 1

    def probe(self) -> Sequence[Device]:
        return []

    def version(self) -> str:
        return "1.0"

    def capabilities(self, arch: str = "") -> Capabilities:
        table = registry.backend("emulated").capabilities("bm1684x")
        return replace(table, backend=self.name, speed=50.0)

    def compile(self, model: ir.Model, options: CompileOptions, out: Path) -> Artifact:
        for node in model.graph:
            if node.op_type == self.bad:
                raise CompileError("no kernel for {op}", op=self.bad)
        made = registry.backend("emulated").compile(model, options, out)
        if options.precision == "int8":
            self.calibrated += [set(feed) for feed in options.calibration]
        return replace(made, backend=self.name)

    def open(self, artifact: Artifact, folder: Path, options: RunOptions) -> Session:
        return registry.backend("emulated").open(artifact, folder, options)


@pytest.fixture
def emulation() -> Iterator[Emulation]:
    made = Emulation()
    registry.register_backend(made)
    yield made
    registry._load(registry.BACKENDS)[0].pop(made.name)


# So small a model is quicker on the CPU, whatever the chip.
PINS = dict.fromkeys(("first", "second", "third"), "emulation")


@pytest.fixture(scope="module")
def lacking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three convolutions: after the first an operator that the chip lacks, then a MaxPool."""
    b = models.Builder()
    x = b.op("Conv", b.input("image", [1, 3, 32, 32]), b.weight(8, 3, 3, 3), name="first")
    x = b.op("Acosh", b.op("Add", b.op("Relu", x), b.constant(1.5)), name="lacked")
    x = b.op("Conv", x, b.weight(8, 8, 3, 3), name="second")
    x = b.op("MaxPool", x, name="pool", kernel_shape=[2, 2], strides=[2, 2])
    x = b.op("Conv", x, b.weight(8, 8, 3, 3), name="third")
    path = tmp_path_factory.mktemp("models") / "lacking.onnx"
    ir.save(b.model(x), path)
    return path


def test_int8_behind_fallbacks_is_calibrated_on_what_reaches_it(
    lacking: Path, tmp_path: Path, emulation: Emulation
) -> None:
    result = autoglm.compile(
        lacking,
        tmp_path / "out",
        backend="emulation",
        precision="int8",
        pins=PINS,
        accept_accuracy=True,
    )

    ops = {n.name: n.op for n in result.report.graph.nodes}
    assert {ops[node] for node in refused(result)} == {"MaxPool"}
    placed = {n: p.backend for p in result.report.plan.partitions for n in p.nodes}
    assert {name: placed[name] for name in PINS} == PINS
    assert placed["lacked"] != "emulation" != placed["pool"]
    assert len(set(map(frozenset, emulation.calibrated))) >= 3  # each part on its own inputs
    got = autoglm.run(tmp_path / "out", image())
    with autoglm.open(lacking, backend="onnxruntime") as session:
        (expected,) = session.run(image()).values()
    error = np.abs(next(iter(got.values())) - expected).max()
    assert 0 < error < 0.05 * np.abs(expected).max()


def test_a_model_opened_without_proof_is_calibrated_the_same_way(
    lacking: Path, emulation: Emulation
) -> None:
    with autoglm.open(lacking, backend="emulation", precision="int8", pins=PINS) as session:
        (got,) = session.run(image()).values()
    with autoglm.open(lacking, backend="onnxruntime") as session:
        (expected,) = session.run(image()).values()

    assert 0 < np.abs(got - expected).max() < 0.05 * np.abs(expected).max()
    assert len(set(map(frozenset, emulation.calibrated))) >= 3  # each part on its own inputs


def test_a_sample_without_an_input_is_an_error(emulation: Emulation, tmp_path: Path) -> None:
    config = AdaptConfig(backend="emulation", precision="int8")
    b = models.Builder()
    ir.save(b.model(b.op("Add", b.input("x", [2, 4]), b.input("y", [2, 4]))), tmp_path / "m.onnx")
    planned = plan_for(load(tmp_path / "m.onnx", config), "emulation", config, Machine())
    options = CompileOptions(precision="int8", calibration=[{"x": np.ones((2, 4), np.float32)}])

    with pytest.raises(CompileError, match="sample 0 has no value for y"):
        build(planned, options, tmp_path / "out", use_cache=False)


class Local(Chip):
    """A chip that compiles for what is here."""

    here = "GPU A"

    def compile_identity(self, options: CompileOptions) -> Mapping[str, str]:
        return {"gpu": self.here}


def test_the_cache_tells_calibration_files_and_machines_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOGLM_CACHE_DIR", str(tmp_path / "cache"))
    plug = Local("local", "abort", ())
    told = tmp_path / "aipp.cfg"
    told.write_text("one")
    zeros = np.zeros((2, 4), np.float32)
    plain = CompileOptions(calibration=[{"x": zeros}], settings={"engine": str(told)})
    monkeypatch.setattr(plug, "compile", lambda m, o, out: _written(out))
    registry.register_backend(plug)
    places = iter(tmp_path / f"out{n}" for n in range(99))

    def hit(options: CompileOptions) -> bool:
        model = models.chain("Relu")
        return compile_part(model, "local", options, next(places), use_cache=True)[1]

    try:
        assert [hit(plain), hit(plain)] == [False, True]
        assert not hit(replace(plain, calibration=[{"x": zeros.view(np.int32)}]))
        assert not hit(replace(plain, calibration=[{"x": zeros.reshape(4, 2)}]))
        told.write_text("two")
        assert not hit(plain)
        plug.here = "GPU B"
        assert [hit(plain), hit(plain)] == [False, True]
    finally:
        registry._load(registry.BACKENDS)[0].pop("local")


def _written(out: Path) -> Artifact:
    (out / "model.bin").write_text("compiled")
    return Artifact("local", "binary", "model.bin", "chip 1.0", (), ())
