"""Measuring: findings, rows, packs, and what a second measurement says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autoglm.testing.measure as module
from autoglm import registry
from autoglm.catalog import read_pack
from autoglm.catalog.packs import OpVersion, with_rows
from autoglm.errors import BackendUnavailableError, CompileError
from autoglm.spec import Artifact, Capabilities, CompileOptions, Device, RunOptions, TensorInfo
from autoglm.testing.cases import Case
from autoglm.testing.generate import build
from autoglm.testing.measure import (
    Finding,
    diff_packs,
    examine,
    find,
    first_line,
    measure,
    plain_cases,
    redescribed,
    rows_of,
    write_pack,
)
from autoglm.testing.operators import SPECS
from autoglm.testing.patterns import patterns
from autoglm.testing.special import special


def case(op: str, dtype: str = "float32", tag: str = "", since: int = 13) -> Case:
    made = build(next(s for s in SPECS if s.op == op and s.tag == tag), since, dtype)
    assert made is not None
    return made


class Faulty:
    """Answers zeros, refuses Erf."""

    name = "faulty"
    api_version = 1

    def probe(self) -> Sequence[Device]:
        return []

    def version(self) -> str:
        return ""

    def capabilities(self, arch: str = "") -> Capabilities:
        return Capabilities(self.name, "faulty", {})

    def compile(self, model: Any, options: CompileOptions, out: Path) -> Artifact:
        if any(node.op_type == "Erf" for node in model.graph):
            raise CompileError("No Erf in {path} at 0x7f12.", path=out)
        names = tuple(TensorInfo(v.name, "", None) for v in model.graph.outputs)
        shapes = [list(v.shape.numpy()) for v in model.graph.outputs]
        return Artifact(self.name, "x", "x", "", (), names, meta={"shapes": shapes})

    def open(self, artifact: Artifact, folder: Path, options: RunOptions) -> Any:
        class Zeros:
            def run(self, feeds: Any) -> Any:
                shapes = artifact.meta["shapes"]
                pairs = zip(artifact.outputs, shapes, strict=True)
                return {o.name: np.zeros(s, np.float32) for o, s in pairs}

            def close(self) -> None: ...

        return Zeros()


def test_findings_are_yes_refused_or_wrong() -> None:
    found = [find(Faulty(), case(op)) for op in ("Relu", "Erf")]  # type: ignore[arg-type]

    assert [f.outcome for f in found] == ["wrong", "refused"]
    assert found[0].reason.startswith("max error ")
    assert found[0].nodes[0].op == "Relu"


def test_reasons_do_not_change_from_run_to_run() -> None:
    first, second = (find(Faulty(), case("Erf")).reason for _ in range(2))  # type: ignore[arg-type]

    assert first == second
    assert "0x7f12" not in first
    assert "autoglm-case" not in first
    assert first_line(ValueError("a\n  b")) == "ValueError: a b"


def test_a_case_of_one_node_speaks_for_it_and_a_chain_only_when_it_works() -> None:
    relu, chain = case("Relu"), next(c for c in patterns() if c.name == "pattern:matmul_bias_relu")
    good = find(registry.backend("onnxruntime"), chain)
    bad = replace(good, outcome="refused", reason="no")

    assert set(rows_of([good])) == {"MatMul", "Add", "Relu"}
    assert rows_of([bad]) == {}
    assert [r.outcome for r in rows_of([find(Faulty(), relu)])["Relu"][14].rows] == ["wrong"]  # type: ignore[arg-type]


def test_nodes_that_work_apart_and_fail_together_are_a_row_of_their_own() -> None:
    chain = next(c for c in special() if c.name.startswith("DequantizeLinear+MatMul"))
    good = find(registry.backend("onnxruntime"), chain)
    bad = replace(good, outcome="wrong", reason="max error 0.0157 of 1")

    assert "DequantizeLinear+MatMul" in rows_of([good, bad])


def test_measuring_twice_writes_the_same_file(tmp_path: Path) -> None:
    cases = [
        case("Relu"),
        case("Relu", "int16"),
        case("MatMul"),
        case("Softmax"),
        case("Softmax", tag="axis1"),
    ]

    packs = [measure("onnxruntime", cases=cases) for _ in range(2)]
    paths = [write_pack(p, tmp_path / str(i)) for i, p in enumerate(packs)]

    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert diff_packs(*packs).same
    assert read_pack(paths[0]) == packs[0]


def test_a_difference_is_said_row_by_row() -> None:
    old = measure("onnxruntime", cases=[case("Relu"), case("MatMul")])
    findings = examine("onnxruntime", [case("Relu"), case("Softmax")])
    broken = [replace(f, outcome="wrong", reason="max error 1 of 1") for f in findings[:1]]
    new = replace(old, ops=rows_of([*broken, *findings[1:]]))

    diff = diff_packs(old, new)

    assert not diff.same
    assert [d.partition("@")[0] for d in diff.added] == ["Softmax"]
    assert [d.partition("@")[0] for d in diff.removed] == ["MatMul"]
    assert diff.changed[0].endswith("yes -> wrong (max error 1 of 1)")


def test_a_backend_that_is_not_installed_cannot_be_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(registry._load(registry.BACKENDS)[0], "faulty", Faulty())

    with pytest.raises(BackendUnavailableError):
        measure("faulty", cases=[])


def test_a_finding_without_nodes_makes_no_row() -> None:
    assert rows_of([Finding("a", "skipped", "our frontend refuses it")]) == {}


def test_a_pack_is_resumed_with_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = case("Relu", since=14), case("Erf")
    old = measure("onnxruntime", cases=[first])
    asked: list[Case] = []
    monkeypatch.setattr(module, "examine", lambda _, cases, **__: asked.extend(cases) or [])

    measure("onnxruntime", cases=[first, second], resume=old)
    measure("onnxruntime", cases=[first, second], resume=replace(old, version="0"))

    assert [c.name for c in asked] == [second.name, first.name, second.name]


def test_a_resumed_pack_keeps_its_rows_and_takes_new_outcomes() -> None:
    old = measure("onnxruntime", cases=[case("Relu", since=14)])
    ((op, since, row),) = old.rows()
    other = replace(row, outcome="wrong", reason="max error 1 of 1", case="again")
    layout = old.ops[op][since].layout
    new = {op: {since: OpVersion(layout, (replace(row, case="again"), other))}}

    assert {r.outcome: r.case for _, _, r in with_rows(old, new).rows()} == {
        "yes": row.case,
        "wrong": "again",
    }


def test_a_pack_is_described_by_todays_features_and_loses_no_row() -> None:
    known = case("ReduceSum")
    new = measure("onnxruntime", cases=[known])
    ((op, since, row),) = new.rows()
    features = {k: v for k, v in row.features.items() if not k.startswith("terms")}
    rows = (replace(row, features=features), replace(row, features=features, case="gone"))
    old = replace(new, ops={op: {since: OpVersion(new.ops[op][since].layout, rows)}})

    today = {r.case: r for _, _, r in redescribed(old, [known]).rows()}

    assert today[known.name].features == row.features
    assert today["gone"].features == features


def test_a_precision_has_a_pack_of_its_own_and_a_tolerance_of_its_own() -> None:
    half = measure("onnxruntime", cases=[case("MatMul")], precision="fp16")

    assert half.backend == "onnxruntime-fp16"
    assert [row.outcome for *_, row in half.rows()] == ["yes"]


def test_the_plain_cases_of_a_precision_are_those_that_the_table_takes() -> None:
    names = {c.name for c in plain_cases("onnxruntime")}

    assert {"MatMul@13:float32", "MatMul@13:float32~constants"} <= names
