"""A record says what happened: how far each cell climbed, and on what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import pytest

from autoglm import registry
from autoglm.errors import BackendUnavailableError
from autoglm.spec import Artifact, Capabilities, CompileOptions, Device, RunOptions, Session
from autoglm.testing.conformance import Level, Reached
from autoglm.testing.patterns import patterns
from autoglm.testing.verify import (
    Record,
    climb,
    main,
    read_records,
    stages,
    verify,
    write_record,
)
from autoglm.testing.worker import Lost

CASE = next(patterns())


class Absent:
    """A vendor whose tool is not here; its table is the reference's."""

    name = "absent"
    api_version = 1

    def probe(self) -> Sequence[Device]:
        return [
            Device("npu", "Model of the chip", "absent", facts={"simulator": "C model"}),
            Device("npu", "Chip", "absent", present=False),
        ]

    def version(self) -> str:
        return ""

    def capabilities(self, arch: str = "") -> Capabilities:
        return registry.backend("reference").capabilities()

    def compile(self, model: ir.Model, options: CompileOptions, out: Path) -> Artifact:
        raise BackendUnavailableError("The tool is not here.")

    def open(self, artifact: Artifact, folder: Path, options: RunOptions) -> Session:
        raise AssertionError("nothing to open")


class Broken(Absent):
    """A vendor whose tool is here and fails."""

    def version(self) -> str:
        return "1"

    def compile(self, model: ir.Model, options: CompileOptions, out: Path) -> Artifact:
        raise RuntimeError("tpuc-opt: UNREACHABLE")


def test_a_right_answer_is_the_top() -> None:
    assert climb(registry.backend("reference"), CASE).level is Level.RAN


@pytest.mark.parametrize(
    ("runs_on", "device"), [("simulator", ""), ("device", "Chip"), ("", "Chip")]
)
def test_the_device_is_where_the_artifacts_ran(
    monkeypatch: pytest.MonkeyPatch, runs_on: str, device: str
) -> None:
    def answers(*_: object, **__: object) -> list[Reached]:
        return [Reached(Level.RAN, runs_on=runs_on) for _ in patterns()]

    monkeypatch.setattr("autoglm.testing.verify.ask_all", answers)
    monkeypatch.setattr("autoglm.testing.verify.stages", lambda plug: ("Chip", "C model"))

    record = verify("reference")

    assert (record.device, record.simulator) == (device, "C model")


def test_an_artifact_says_where_it_ran() -> None:
    class Simulated(Absent):
        def version(self) -> str:
            return "1"

        def compile(self, model: ir.Model, options: CompileOptions, out: Path) -> Artifact:
            made = registry.backend("reference").compile(model, options, out)
            return replace(made, meta={**made.meta, "runs_on": "simulator"})

        def open(self, artifact: Artifact, folder: Path, options: RunOptions) -> Session:
            return registry.backend("reference").open(artifact, folder, options)

    reached = climb(Simulated(), CASE)

    assert (reached.level, reached.runs_on) == (Level.RAN, "simulator")


def test_without_the_tool_nothing_gets_beyond_lowered() -> None:
    reached = climb(Absent(), CASE)

    assert (reached.level, reached.reason) == (Level.LOWERED, "its toolkit is not installed here")


def test_a_tool_that_fails_ends_the_climb_with_its_words() -> None:
    reached = climb(Broken(), CASE)

    assert (reached.level, reached.reason) == (
        Level.LOWERED,
        "RuntimeError: tpuc-opt: UNREACHABLE",
    )


def test_a_wrong_answer_was_only_compiled() -> None:
    reached = climb(registry.backend("null"), CASE)  # answers zeros

    assert reached.level is Level.COMPILED
    assert reached.reason


def test_a_model_that_the_table_refuses_is_not_even_declared() -> None:
    reached = climb(registry.backend("numpy"), CASE)

    assert reached.level is Level.REFUSED
    assert "MatMul" in reached.reason or "Gemm" in reached.reason


def test_a_simulator_is_no_device() -> None:
    assert stages(Absent()) == ("", "Model of the chip")


def test_levels_are_counted_from_below() -> None:
    cells = {"a": Level.RAN, "b": Level.LOWERED, "c": Level.REFUSED}
    record = Record("x", "1", "x 1", "", "", cells, {})

    counts = [record.reached(level) for level in (Level.DECLARED, Level.LOWERED, Level.RAN)]

    assert counts == [2, 2, 1]


def test_a_record_with_the_tool_replaces_the_one_without(tmp_path: Path) -> None:
    without = Record("x", "", "x 1", "", "", {"a": Level.LOWERED}, {"a": "not here"})
    having = Record("x", "1.2", "x 1", "chip", "", {"a": Level.RAN}, {})
    write_record(without, tmp_path)
    assert read_records(tmp_path) == {"x": [without]}

    write_record(having, tmp_path)

    assert read_records(tmp_path) == {"x": [having]}


def test_verifying_climbs_with_every_cell_in_a_child(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reference", "nobody", "-o", str(tmp_path)]) == 0

    (record,) = read_records(tmp_path)["reference"]
    assert record.reached(Level.RAN) == len(record.cells) == len(list(patterns()))
    said = capsys.readouterr()
    assert "reference: declared 9, lowered 9, compiled 9, ran 9 of 9" in said.out
    assert "nobody" in said.err


def test_a_cell_that_ends_its_process_is_lowered_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = [Lost("crash", "signal SIGSEGV") for _ in patterns()]
    monkeypatch.setattr("autoglm.testing.verify.ask_all", lambda *_, **__: lost)

    record = verify("reference")

    assert set(record.cells.values()) == {Level.LOWERED}
    assert set(record.reasons.values()) == {"crash: signal SIGSEGV"}
