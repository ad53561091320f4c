"""What a move to another chip loses, forces and leaves unknown."""

from __future__ import annotations

import pytest
from plan.graphs import chain, judged, table
from plan.migrations import OPS, side

from autoglm.plan.migrate import (
    changes,
    conflicts,
    counted,
    energy_joules,
    evidence,
    fallback_groups,
    legal_precision,
    memory_need,
    unknowns,
    why,
)
from autoglm.spec import Chip, Constraint, Evidence, Fit, OpRule, Support, no, unknown, yes

GRAPH = chain("MatMul", "Erf", "Add", "Erf", size=400_000)
HALF = {"fp32": yes(), "fp16": yes(), "bf16": no(Constraint.PRECISION, "it has no bf16")}


def test_operators_that_only_the_source_takes_are_lost_with_reason_and_evidence() -> None:
    source, target = side(GRAPH, table("gpu", *OPS)), side(GRAPH, table("npu", "MatMul", "Add"))

    (lost,) = changes(source, target)

    assert (lost.op, lost.nodes) == ("Erf", ("Erf_1", "Erf_3"))
    assert lost.reason == "Erf is not in npu 1.0's table"
    assert lost.evidence is Evidence.INFERRED
    assert changes(target, source) == ()


def test_operators_that_only_the_target_takes_are_gained() -> None:
    source, target = side(GRAPH, table("gpu", "Add")), side(GRAPH, table("npu", *OPS))

    assert {c.op for c in changes(target, source)} == {"Erf", "MatMul"}


def test_a_rewritten_operator_is_not_lost() -> None:
    rewritten = {"Erf_1": "erf", "Erf_3": "erf"}
    source = side(GRAPH, table("gpu", *OPS))
    target = side(GRAPH, table("npu", "MatMul", "Add"), rewritten=rewritten)

    assert changes(source, target) == ()


def test_unknown_is_lost_and_listed_apart_never_a_yes() -> None:
    verdicts = {"Erf_1": unknown("nobody measured it"), "Erf_3": unknown("nobody measured it")}
    source, target = side(GRAPH, table("gpu", *OPS)), side(GRAPH, judged("npu", verdicts, OPS))

    assert [c.verdict.value for c in changes(source, target)] == ["unknown"]
    assert "Erf ×2: nobody measured it" in unknowns(target)
    assert target.fit is Fit.FALLBACKS
    assert [g.evidence for g in fallback_groups(target.plan) if g.op == "Erf"] == ["unknown"]


@pytest.mark.parametrize(
    ("asked", "has", "planned"),
    [
        ("fp16", ("fp32", "fp16"), "fp16"),
        ("fp16", ("fp32", "bf16"), "fp32"),
        ("bf16", ("fp16", "fp32"), "fp32"),
        ("int8", ("fp16", "fp32"), "fp16"),
        ("fp32", ("fp16", "int8"), "fp16"),
        ("int8", (), "int8"),
    ],
)
def test_a_precision_that_is_not_there_gives_way_to_the_nearest(
    asked: str, has: tuple[str, ...], planned: str
) -> None:
    all_four = ("fp32", "fp16", "bf16", "int8")
    told: dict[str, Support] = {
        p: yes() if p in has else no(Constraint.PRECISION, "") for p in all_four
    }

    assert legal_precision(table("npu", *OPS, precisions=told), asked) == planned


def test_a_silent_table_forces_a_precision_that_is_known() -> None:
    assert legal_precision(table("npu", *OPS), "fp16") == "fp32"


def test_a_forced_precision_is_no_plain_go() -> None:
    chip = table("npu", *OPS, precisions=HALF)
    target = side(GRAPH, chip, asked="bf16", precision="fp32")

    assert target.plan.fit is Fit.FITS
    assert target.fit is Fit.FALLBACKS
    assert why(target) == "bf16 is not on it: planned in fp32"
    (conflict,) = conflicts(target, target, 64)
    assert (conflict.kind, conflict.nodes) == ("precision", 4)
    assert "it has no bf16" in conflict.text


def test_a_chip_on_which_nothing_runs_is_a_no_go() -> None:
    target = side(GRAPH, table("npu"))

    assert target.plan.fit is Fit.FALLBACKS
    assert target.fit is Fit.NO
    assert "nothing of it would run on npu" in why(target)


def test_a_go_says_what_runs_in_which_precision() -> None:
    assert why(side(GRAPH, table("npu", *OPS))) == "all 4 nodes run on it in fp32"


def test_layout_alignment_dtype_and_opset_conflicts_are_named() -> None:
    rules = {
        "MatMul": OpRule(dtypes=frozenset({"float16"})),
        "Erf": OpRule(since=(1, 9)),
        "Add": OpRule(),
    }
    chip = table("npu", alignment=128, layouts=("NC1HWC0",))
    target = side(GRAPH, judged("npu", {}, (), alignment=128))
    limited = side(GRAPH, type(chip)("npu", "npu 1.0", rules, alignment=128))

    found = {c.kind: c for c in conflicts(limited, side(GRAPH, table("gpu", *OPS)), 64)}

    assert set(found) == {"alignment", "dtype", "opset"}
    assert found["dtype"].text == "MatMul takes float16; found float32"
    assert found["opset"].nodes == 2
    assert "multiples of 128" in found["alignment"].text
    assert "alignment" not in {c.kind for c in conflicts(target, target, 256)}


def test_memory_counts_weights_and_the_most_that_lives_at_once() -> None:
    graph = chain("MatMul", "Erf", "Add", size=1000)

    # x and t0 live while MatMul runs, then t0 and t1: two tensors of 4000 bytes at any time.
    assert memory_need(graph, "fp32") == 8000
    assert memory_need(graph, "fp16") == 4000


def test_energy_is_rated_power_times_the_time_on_the_chip() -> None:
    plan = side(GRAPH, table("npu", *OPS)).plan
    chip = Chip("X1", "maker", "npu", "npu", watts=50.0)

    assert energy_joules(plan, chip) == pytest.approx(50.0 * plan.partitions[0].seconds)
    assert energy_joules(plan, None) is None
    assert energy_joules(plan, Chip("X1", "maker", "npu", "npu")) is None


def test_figures_that_no_source_gives_are_unknown() -> None:
    chip = Chip("X1", "maker", "npu", "npu", memory_bytes=2**34, peak_tflops={"fp32": 3.0})
    found = unknowns(side(GRAPH, table("npu", *OPS, chip=chip)))

    assert found[-1] == "no source gives the bandwidth, power of X1"


def test_the_most_frequent_operators_are_counted_first() -> None:
    assert counted(["A", "B", "B", "C", "D"]) == "B ×2, A, C, …"


def test_an_absorbed_node_is_known_by_inference() -> None:
    assert evidence(None) == "inferred"
