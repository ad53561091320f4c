"""Plans as JSON and as sentences."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan.graphs import MACHINE, chain, random_dag, random_tables, table

from autoglm.errors import InputError
from autoglm.plan import diff, from_dict, make_plan, to_dict, why
from autoglm.plan.explain import duration
from autoglm.spec import (
    Alternative,
    Boundary,
    Evidence,
    Fallback,
    Partition,
    Plan,
    Refusal,
    Verdict,
)

text = st.text(max_size=6)
texts = st.lists(text, max_size=3).map(tuple)
seconds = st.floats(0, 1e6, allow_nan=False)
plans = st.builds(
    Plan,
    backend=text,
    precision=text,
    partitions=st.lists(
        st.builds(
            Partition,
            id=text,
            backend=text,
            nodes=texts,
            inputs=texts,
            outputs=texts,
            precision=text,
            seconds=seconds,
            layout=text,
        ),
        max_size=3,
    ).map(tuple),
    boundaries=st.lists(st.builds(Boundary, text, text, text, st.integers(0), text, seconds)).map(
        tuple
    ),
    refusals=st.lists(
        st.builds(
            Refusal,
            text,
            text,
            text,
            st.sampled_from(Verdict),
            text,
            text,
            st.sampled_from(Evidence),
        ),
        max_size=3,
    ).map(tuple),
    fallbacks=st.lists(st.builds(Fallback, text, text, text, text, text, text, seconds)).map(tuple),
    unplaced=texts,
    violations=texts,
    alternatives=st.lists(st.builds(Alternative, text, st.integers(0), seconds)).map(tuple),
    seconds=seconds,
    uncertainty=seconds,
)


@given(plans)
def test_json_and_back(plan: Plan) -> None:
    written = json.dumps(to_dict(plan))

    again = from_dict(json.loads(written))

    assert again == plan
    assert again.fit is plan.fit
    assert all(type(r.verdict) is Verdict for r in again.refusals)


def test_a_real_plan_survives_json() -> None:
    graph = random_dag(40, 3)
    tables = random_tables(graph, 3, ("a", "b", "c"))
    plan = make_plan(graph, tables, backend="a", policy=["b", "c"], machine=MACHINE)

    assert plan.fallbacks
    assert from_dict(json.loads(json.dumps(to_dict(plan)))) == plan


def test_an_older_file_without_newer_fields_still_reads() -> None:
    assert from_dict({"backend": "a", "precision": "fp32", "partitions": []}) == Plan(
        "a", "fp32", ()
    )


TABLES = {
    "npu": table("npu", "MatMul", speed=1000.0),
    "onnxruntime": table("onnxruntime", "MatMul", "Erf"),
}
GRAPH = chain("MatMul", "Erf", "MatMul", size=100_000)


def test_why_a_node_fell_back_names_reason_and_price() -> None:
    plan = make_plan(GRAPH, TABLES, backend="npu", machine=MACHINE)

    sentence = why(plan, "Erf_1")

    assert "wanted on npu and runs on onnxruntime (p1)" in sentence
    assert "Erf is not in npu 1.0's table [op]" in sentence
    assert duration(plan.fallbacks[0].seconds) in sentence
    assert duration(plan.seconds) in sentence


def test_why_a_node_is_where_it_was_asked_to_be() -> None:
    plan = make_plan(GRAPH, TABLES, backend="npu", machine=MACHINE)

    assert why(plan, "MatMul_0") == "MatMul_0 runs on npu (p0), as asked."


def test_why_a_node_has_no_place_names_every_refusal() -> None:
    tables = {"npu": TABLES["npu"], "openvino": table("openvino", "MatMul")}
    plan = make_plan(GRAPH, tables, backend="npu", machine=MACHINE)

    sentence = why(plan, "Erf_1")

    assert sentence.startswith("Erf_1 has no place")
    assert "npu says no, Erf is not in npu 1.0's table (inferred)" in sentence
    assert "openvino says no" in sentence


def test_why_also_names_the_other_engines_that_refused() -> None:
    tables = {**TABLES, "openvino": table("openvino", "MatMul")}
    plan = make_plan(GRAPH, tables, backend="npu", machine=MACHINE)

    assert "Also asked: openvino says no" in why(plan, "Erf_1")


def test_why_of_a_node_that_is_not_there() -> None:
    plan = make_plan(GRAPH, TABLES, backend="npu", machine=MACHINE)

    with pytest.raises(InputError, match="'nowhere'"):
        why(plan, "nowhere")


def test_diff_says_which_nodes_moved_and_which_refusals_are_gone() -> None:
    old = make_plan(GRAPH, TABLES, backend="npu", machine=MACHINE)
    newer = {**TABLES, "npu": table("npu", "MatMul", "Erf", speed=1000.0)}
    new = make_plan(GRAPH, newer, backend="npu", machine=MACHINE)

    sentences = diff(old, new)

    assert "Erf_1: onnxruntime -> npu." in sentences
    assert "npu now takes Erf_1." in sentences
    assert "Partitions: 3 -> 1." in sentences
    assert any(s.startswith("Predicted: ") for s in sentences)


def test_diff_names_new_refusals_violations_precision_and_nodes() -> None:
    old = Plan(
        "npu", "fp32", (Partition("p0", "npu", ("a", "b"), (), (), "fp32", 1.0),), seconds=1.0
    )
    refusal = Refusal("a", "Erf", "npu", Verdict.NO, "op", "it is gone", Evidence.MEASURED)
    new = Plan(
        "npu",
        "int8",
        (Partition("p0", "npu", ("c",), (), (), "int8", 1.0),),
        refusals=(refusal,),
        unplaced=("a",),
        violations=("Too slow.",),
        seconds=1.0,
    )

    sentences = diff(old, new)

    assert "Precision: fp32 -> int8." in sentences
    assert "a: npu -> -." in sentences
    assert "b is gone, it was on npu." in sentences
    assert "c is new, on npu." in sentences
    assert "npu now refuses a: it is gone." in sentences
    assert "New: Too slow." in sentences
    assert "Gone: Too slow." in diff(new, old)


def test_a_plan_does_not_differ_from_itself() -> None:
    plan = make_plan(GRAPH, TABLES, backend="npu", machine=MACHINE)

    assert diff(plan, plan) == ()


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1.5, "1.5 s"), (2e-3, "2 ms"), (1.234e-5, "12.3 us"), (4e-9, "4 ns"), (0, "0 ns")],
)
def test_durations(value: float, shown: str) -> None:
    assert duration(value) == shown
