"""The work list: each gain is the difference to the plan that the mended chip would get."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plan.graphs import chain, judged, random_dag, random_tables, table
from plan.migrations import OPS, planned, replanner, side

from autoglm.plan import Graph
from autoglm.plan.migrate_work import Part, Work, work_list
from autoglm.spec import Capabilities, Constraint, Fit, no, unknown, yes

GRAPH = chain("MatMul", "Erf", "Add", "Softmax", "MatMul", size=400_000)


def works(graph: Graph, chip: Capabilities, **more: object) -> tuple[Work, ...]:
    options: dict[str, object] = {"rules": {}, "shapes": "", **more}
    return work_list(side(graph, chip), replanner(graph, chip), **options)  # type: ignore[arg-type]


def test_an_operator_brings_what_a_chip_that_has_it_would_need_less() -> None:
    chip = table("npu", "MatMul", "Add", "Softmax", speed=20.0)
    whole = planned(GRAPH, table("npu", *OPS, speed=20.0))

    (entry,) = works(GRAPH, chip)

    assert (entry.action, entry.nodes, entry.fit) == ("add", ("Erf_1",), Fit.FITS)
    assert entry.seconds == whole.seconds
    assert entry.gain_s == pytest.approx(planned(GRAPH, chip).seconds - whole.seconds)
    assert entry.gain_s > 0
    assert "Erf is not in npu 1.0's table" in entry.text


def test_several_operators_also_stand_together_and_the_best_verdict_comes_first() -> None:
    chip = table("npu", "MatMul", "Add", speed=20.0)

    first, *others = works(GRAPH, chip)

    assert (first.action, first.fit) == ("all", Fit.FITS)
    added = {w.text.partition(":")[0] for w in others if w.action == "add"}
    assert added == {"Add Erf to npu", "Add Softmax to npu"}
    assert all(w.fit is Fit.FALLBACKS for w in others)
    assert [w.gain_s for w in others] == sorted((w.gain_s for w in others), reverse=True)


def test_what_nobody_knows_is_to_be_measured() -> None:
    chip = judged("npu", {"Erf_1": unknown("nobody measured it")}, OPS, speed=20.0)

    (entry,) = works(GRAPH, chip)

    assert entry.action == "measure"
    assert entry.command == "autoglm ops measure --backend npu -o packs/"
    assert entry.fit is Fit.FITS


def test_a_rewrite_that_exists_is_named_with_the_parts_it_waits_for() -> None:
    chip = table("npu", "MatMul", "Add", "Softmax", speed=20.0)

    (entry,) = works(GRAPH, chip, rules={"Erf": Part("erf-tanh", ("Tanh", "Tanh", "Mul"))})

    assert entry.action == "rewrite"
    assert "erf-tanh" in entry.text
    assert "Tanh ×2, Mul" in entry.text


@pytest.mark.parametrize(
    ("constraint", "action"),
    [
        (Constraint.SHAPE, "shapes"),
        (Constraint.DTYPE, "dtype"),
        (Constraint.OPSET, "opset"),
        (Constraint.ATTRIBUTE, "add"),
    ],
)
def test_each_limit_has_its_own_action(constraint: Constraint, action: str) -> None:
    chip = judged("npu", {"Erf_1": no(constraint, "the limit")}, OPS, speed=20.0)

    (entry,) = works(GRAPH, chip, shapes="--shape x=1,8")

    assert entry.action == action
    assert entry.command == ("--shape x=1,8" if action == "shapes" else "")


def test_a_model_that_is_too_large_brings_nothing_until_it_is_smaller() -> None:
    chip = table("npu", *OPS, speed=20.0, memory_bytes=2_000_000)

    found = works(GRAPH, chip)

    assert {w.action for w in found if w.fit is Fit.FITS} & {"memory", "all"}


def test_a_lower_precision_counts_only_where_it_gains() -> None:
    told = {"fp32": yes(), "fp16": yes(), "bf16": no(Constraint.PRECISION, "no bf16")}
    chip = table("npu", *OPS, speed=20.0, precisions=told)

    (entry,) = works(GRAPH, chip)

    assert (entry.action, entry.command) == ("precision", "--precision fp16")
    assert entry.gain_s > 0
    assert works(GRAPH, table("npu", *OPS, speed=20.0)) == ()


def test_a_forced_precision_that_nobody_knows_is_to_be_measured() -> None:
    chip = table(
        "npu", *OPS, speed=20.0, precisions={"fp32": yes(), "fp16": unknown("never at hand")}
    )
    forced = side(GRAPH, chip, asked="fp16", precision="fp32")

    (entry,) = work_list(forced, replanner(GRAPH, chip), rules={}, shapes="")

    assert (entry.action, entry.fit) == ("measure", Fit.FITS)
    assert entry.text == "Measure fp16 on it: never at hand"
    assert entry.gain_s > 0


def test_nodes_that_only_cheaper_neighbours_draw_away_can_be_pinned() -> None:
    graph = chain("Erf", "Add", "Erf", "Add", size=1000)
    chip = table("npu", "Add", speed=2.0)
    drawn = {f.node for f in planned(graph, chip).fallbacks if f.constraint == "absorbed"}

    pins = [w for w in works(graph, chip) if w.action == "pin"]

    assert drawn == {"Add_1", "Add_3"}
    assert [set(w.nodes) for w in pins] == [drawn]
    assert pins[0].command == "--pin Add=npu"
    assert (side(graph, chip).fit, pins[0].fit) == (Fit.NO, Fit.FALLBACKS)
    assert pins[0].gain_s < 0


def test_a_pin_that_only_costs_time_is_no_work() -> None:
    graph = chain("MatMul", *["Erf", "Add"] * 6, size=20_000)

    assert [
        w for w in works(graph, table("npu", "MatMul", "Add", speed=2.0)) if w.action == "pin"
    ] == []


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_granting_everything_leaves_no_refusal(seed: int) -> None:
    graph = random_dag(14, seed)
    chip, _ = random_tables(graph, seed, ("npu", "onnxruntime")).values()

    found = works(graph, chip)

    assert all(w.nodes and w.text for w in found)
    together = [w for w in found if w.action == "all"]
    refused = {n.name for n in graph.nodes if not chip.support(n.facts).ok}
    assert [set(w.nodes) for w in together] in ([], [refused])
