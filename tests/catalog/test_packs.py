"""Packs: text and back, choosing one for a version, and the speed of looking up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import autoglm.catalog.packs as module
from autoglm.catalog import describe, dumps, load_pack, merge, read_pack, shipped
from autoglm.catalog.features import Layout
from autoglm.catalog.packs import OpVersion, Pack, with_rows
from autoglm.catalog.rules import Row
from autoglm.errors import FileMissingError
from autoglm.spec import Capabilities, Constraint, Evidence, NodeFacts, OpRule, ValueFacts, Verdict

LAYOUT = Layout(("i0",), ("X",), 1, False, {"axis": 1})


def pack(version: str = "1.2.0") -> Pack:
    rows = (
        Row(("float32",), {"attr.axis": 1, "rank": 2}, "yes", "", "a", 3),
        Row(("int8",), {"attr.axis": 1, "rank": 2}, "refused", "kein «int8»", "b"),
    )
    return Pack(
        "toy", version, f"toy {version}", "1.23.2", {"Softmax": {13: OpVersion(LAYOUT, rows)}}
    )


def softmax(dtype: str) -> NodeFacts:
    value = ValueFacts(dtype, (2, 3))
    return NodeFacts("n", "Softmax", 13, (value,), (value,), {"axis": 1})


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    for version in ("1.2.0", "1.10.0"):
        (tmp_path / f"toy-{version}.json").write_text(dumps(pack(version)), "utf-8")
    return tmp_path


def test_a_pack_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "toy-1.2.0.json"
    path.write_text(dumps(pack()), "utf-8")

    assert read_pack(path) == pack()
    assert dumps(read_pack(path)) == dumps(pack())


def test_a_missing_pack_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(FileMissingError) as caught:
        read_pack(tmp_path / "none.json")

    assert "ops measure" in caught.value.hint


def test_rows_are_added_and_none_is_lost() -> None:
    new = Row(("int8",), {"attr.axis": 2, "rank": 2, "plane": "small"}, "yes", "", "c")

    more = with_rows(pack(), {"Softmax": {13: OpVersion(LAYOUT, (new,))}})

    assert {row.case for _, _, row in more.rows()} == {"a", "b", "c"}


def test_the_pack_of_the_installed_version_is_measured(shelf: Path) -> None:
    table = load_pack("toy", "1.2.0")

    assert table.toolkit == "toy 1.2.0"
    assert table.evidence is Evidence.MEASURED
    assert table.support(softmax("float32")).evidence is Evidence.MEASURED


def test_another_version_takes_the_nearest_lower_pack_and_says_so(shelf: Path) -> None:
    table = load_pack("toy", "1.9.3")

    assert table.toolkit == "toy 1.9.3 (measured with 1.2.0)"
    assert table.support(softmax("float32")).evidence is Evidence.INFERRED
    assert table.support(softmax("int8")).evidence is Evidence.INFERRED


def test_no_version_takes_the_newest_pack_by_number(shelf: Path) -> None:
    assert load_pack("toy").toolkit == "toy 1.10.0"


def test_a_backend_without_a_pack_knows_nothing(shelf: Path) -> None:
    verdict = load_pack("other", "3.0").support(softmax("float32"))

    assert verdict.verdict is Verdict.UNKNOWN
    assert verdict.reason == "Softmax was never measured with other 3.0"


def test_a_refusal_carries_the_engine_s_words(shelf: Path) -> None:
    verdict = load_pack("toy", "1.2.0").support(softmax("int8"))

    assert verdict.reason == "Softmax of int8 is refused: kein «int8»"


def test_a_vendor_s_table_is_laid_over_a_pack(shelf: Path) -> None:
    document = OpRule(frozenset({"int8"}), evidence=Evidence.DOCUMENT)

    table = merge(load_pack("toy", "1.2.0"), {"Softmax": document})

    assert table.support(softmax("int8")).evidence is Evidence.DOCUMENT


def test_a_precision_refuses_more_than_the_table_and_says_so(shelf: Path) -> None:
    relu = OpRule(evidence=Evidence.MEASURED)
    plain = Capabilities("toy", "toy 1", {"Softmax": relu, "Relu": relu})
    table = replace(plain, also={"int8": load_pack("toy", "1.2.0").table})

    quantised = table.at("int8")

    verdict = quantised.support(softmax("int8"))
    assert verdict.constraint is Constraint.PRECISION
    assert verdict.reason == "in int8, Softmax of int8 is refused: kein «int8»"
    assert quantised.support(softmax("float32")).evidence is Evidence.MEASURED
    # What was not measured in int8 is as in fp32, and inferred.
    assert quantised.support(softmax("float16")).evidence is Evidence.INFERRED
    assert table.support(softmax("int8")).ok
    assert table.at("fp16") is table


def test_the_table_reads_as_rows(shelf: Path) -> None:
    table = load_pack("toy", "1.2.0")

    (row,) = describe(table)["operators"]
    (detail,) = describe(table, "Softmax")["versions"]

    assert row["dtypes"] == "float32"
    assert row["cases"] == 4
    assert detail["limits"] == ["Softmax of int8 is refused: kein «int8»"]
    assert describe(table, "Nope")["support"] == "never measured"


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "torch", "numpy", "reference"])
def test_a_shipped_pack_loads_and_answers_two_thousand_nodes(backend: str) -> None:
    assert shipped(backend), f"no pack is shipped for {backend}"
    module._table.cache_clear()
    value = ValueFacts("float32", (2, 3))
    graph = [NodeFacts("n", "Transpose", 13, (value,), (value,))] * 2000

    table = load_pack(backend)
    assert all(table.support(node).verdict is not Verdict.UNKNOWN for node in graph)


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_known_wrong_answers_are_in_the_shipped_packs(op: str) -> None:
    openvino, onnxruntime = load_pack("openvino"), load_pack("onnxruntime")

    verdict = openvino.support(recurrent(op, ("t", "b", 3), lengths=True))

    assert verdict.verdict is Verdict.NO
    assert verdict.constraint is Constraint.ANSWER
    assert "sequence_lens" in verdict.reason
    assert onnxruntime.support(recurrent(op, ("t", "b", 3), lengths=True)).ok
    # What it gets right stays a yes: fixed dimensions, or no lengths.
    assert openvino.support(recurrent(op, (4, 2, 3), lengths=True)).ok
    assert openvino.support(recurrent(op, ("t", "b", 3), lengths=False)).ok


def recurrent(op: str, shape: tuple[int | str, ...], *, lengths: bool) -> NodeFacts:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    steps, batch = shape[:2]
    weights = [(1, 5 * gates, 3), (1, 5 * gates, 5), (1, 10 * gates)]
    inputs = [ValueFacts("float32", shape), *(ValueFacts("float32", w, True) for w in weights)]
    inputs += [ValueFacts("int32", (batch,))] if lengths else []
    states = [(1, batch, 5)] * (2 if op == "LSTM" else 1)
    outputs = tuple(ValueFacts("float32", s) for s in ((steps, 1, batch, 5), *states))
    attributes = {"hidden_size": 5, "direction": "forward"}
    return NodeFacts("n", op, 14, tuple(inputs), outputs, attributes)
