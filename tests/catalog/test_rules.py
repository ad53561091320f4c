"""Rules from rows: what separates failures, and what a verdict says of nodes nobody measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.catalog.features import Layout, features, signature
from autoglm.catalog.rules import Habits, Measured, Row, derive, habits_of, version_of, whole
from autoglm.messages import set_language
from autoglm.spec import (
    Capabilities,
    Constraint,
    Evidence,
    NodeFacts,
    OpRule,
    ValueFacts,
    Verdict,
)

X = Layout(("i0",), ("X", "lens"), 1)


def node(
    dtype: str = "float32", *, since: int = 1, lens: bool = False, **attributes: object
) -> NodeFacts:
    value = ValueFacts(dtype, (2, 3))
    inputs = (value, ValueFacts("int32", (2,)) if lens else None)
    return NodeFacts("n", "Op", since, inputs, (value,), attributes)


def row(outcome: str, example: NodeFacts, reason: str = "") -> Row:
    return Row(signature(example, X), features(example, X), outcome, reason, "case")


def measured(*rows: Row, since: int = 1) -> Measured:
    return Measured("Op", {since: version_of("Op", since, X, rows)})


def test_all_yes_is_a_measured_yes() -> None:
    verdict = measured(row("yes", node()))(node())

    assert verdict.ok
    assert verdict.evidence is Evidence.MEASURED


def test_the_smallest_separating_feature_becomes_the_reason() -> None:
    rows = (
        row("yes", node(mode="linear", axis=1)),
        row("yes", node(mode="linear", axis=2)),
        row("refused", node(mode="cubic", axis=1), "no cubic"),
        row("refused", node(mode="cubic", axis=2), "no cubic"),
    )

    verdict = measured(*rows)(node(mode="cubic", axis=7))

    assert verdict.verdict is Verdict.NO
    assert verdict.constraint is Constraint.ATTRIBUTE
    assert verdict.reason == "Op mode=cubic is refused: no cubic"


def test_a_wrong_answer_names_the_input_and_the_error() -> None:
    rows = (row("yes", node()), row("wrong", node(lens=True), "max error 0.154 of 1"))

    verdict = measured(*rows)(node(lens=True))

    assert verdict.constraint is Constraint.ANSWER
    assert verdict.reason == "Op with input lens answers wrongly (max error 0.154 of 1)"
    assert measured(*rows)(node()).ok


def test_two_features_are_named_where_one_does_not_separate() -> None:
    rows = (
        row("yes", node(mode="a", group=1)),
        row("yes", node(mode="a", group=2)),
        row("yes", node(mode="b", group=1)),
        row("refused", node(mode="b", group=2), "no"),
    )

    verdict = measured(*rows)(node(mode="b", group=2))

    assert verdict.reason == "Op mode=b group=2 is refused: no"
    assert measured(*rows)(node(mode="b", group=1)).ok


def test_a_kind_of_node_that_is_sometimes_wrong_is_refused_whole() -> None:
    rows = (row("yes", node()), row("wrong", node(), "max error 1"), row("yes", node(mode="a")))

    verdict = measured(*rows)(node())

    assert (
        verdict.reason
        == "Op of float32 as used here, for some values, answers wrongly (max error 1)"
    )
    assert verdict.constraint is Constraint.VALUE
    assert measured(*rows)(node(mode="a")).ok


def test_a_dtype_nobody_measured_is_unknown_and_says_which_were() -> None:
    verdict = measured(row("yes", node("float32")))(node("float64"))

    assert verdict.verdict is Verdict.UNKNOWN
    assert verdict.reason == "Op of float64 was never measured; measured: float32"


def test_a_refused_dtype_is_named() -> None:
    rows = (row("yes", node("float32")), row("refused", node("bfloat16"), "no kernel"))

    verdict = measured(*rows)(node("bfloat16"))

    assert (verdict.verdict, verdict.constraint) == (Verdict.NO, Constraint.DTYPE)


def test_a_string_attribute_nobody_measured_is_unknown_but_numbers_generalise() -> None:
    table = measured(row("yes", node(mode="a", axis=0)))

    assert table(node(mode="z", axis=0)).verdict is Verdict.UNKNOWN
    assert table(node(mode="a", axis=5)).ok


def test_a_version_between_two_measured_ones_is_an_inferred_yes_and_others_unknown() -> None:
    table = Measured("Op", {v: version_of("Op", v, X, [row("yes", node())]) for v in (11, 22)})

    between = table(node(since=13))

    assert between.ok
    assert between.evidence is Evidence.INFERRED
    assert table(node(since=25)).verdict is Verdict.UNKNOWN


def test_a_dtype_measured_in_a_neighbouring_version_counts_as_inferred() -> None:
    old = version_of("Op", 11, X, [row("yes", node()), row("yes", node("int8"))])
    table = Measured("Op", {11: old, 22: version_of("Op", 22, X, [row("yes", node())])})

    verdict = table(node("int8", since=22))

    assert verdict.ok
    assert verdict.evidence is Evidence.INFERRED


def test_a_limit_on_a_rank_that_is_not_known_is_unknown() -> None:
    flat = replace(node(), inputs=(ValueFacts("float32", (2,)), None))
    rows = (row("yes", node()), row("refused", flat, "rank 1"))
    blind = replace(
        node(), inputs=(ValueFacts("float32", None), None), outputs=(ValueFacts("float32"),)
    )

    assert measured(*rows)(blind).verdict is Verdict.UNKNOWN


def test_a_limit_of_open_dimensions_spares_fixed_ones() -> None:
    loose = replace(node(), inputs=(ValueFacts("float32", ("n", 3)), None))
    rows = (row("yes", node()), row("wrong", loose, "max error 1"))

    verdict = measured(*rows)(loose)

    assert verdict.reason == "Op with open dimensions answers wrongly (max error 1)"
    assert measured(*rows)(node()).ok


def test_a_dtype_that_is_not_known_is_unknown() -> None:
    assert measured(row("yes", node()))(node("")).verdict is Verdict.UNKNOWN


def test_one_failure_is_a_no_for_itself_and_unknown_for_its_like() -> None:
    alone = node(mode="cubic", axis=1)
    table = measured(row("yes", node(mode="linear")), row("refused", alone, "no cubic"))

    like = table(node(mode="cubic", axis=2))

    assert table(alone).verdict is Verdict.NO
    assert like.verdict is Verdict.UNKNOWN
    assert (
        like.reason == "Op mode=cubic is refused: no cubic; whether its like is, was not measured"
    )


def test_a_dtype_that_only_failed_is_not_told_as_never_measured() -> None:
    table = measured(
        row("yes", node("float32", mode="a")), row("wrong", node("int8", mode="b"), "max error 1")
    )

    verdict = table(node("int8", mode="a"))

    assert verdict.verdict is Verdict.UNKNOWN
    assert verdict.reason == "Op of int8 failed in every case; worked: float32"


@pytest.mark.parametrize(
    "works",
    [[], [node("float32", axis=1)], [node("float32", axis=0), node("float32", axis=1)]],
)
@pytest.mark.parametrize("outcome", ["refused", "wrong"])
def test_what_failed_once_in_a_precision_is_no_yes_there(
    works: list[NodeFacts], outcome: str
) -> None:
    rows = [*(row("yes", n) for n in works), row(outcome, node("int8", axis=1), "why")]
    narrow = {"Op": OpRule(when=measured(*rows))}
    table = Capabilities("toy", "toy 1", {"Op": OpRule()}, also={"int8": narrow}).at("int8")

    like = table.support(node("int8", axis=2))

    assert table.support(node("int8", axis=1)).verdict is Verdict.NO
    assert (like.verdict, like.constraint) == (Verdict.UNKNOWN, Constraint.PRECISION)
    assert like.reason.startswith("in int8, Op")
    assert table.support(node("int8", since=2, axis=2)).ok  # never asked: as without a precision


@pytest.mark.parametrize("reason", ["a.py failed (signal SIGFPE)", "crash: signal 11"])
def test_crashes_speak_for_their_own_question_only(reason: str) -> None:
    crashes = [row("refused", node(mode="cubic", axis=axis), reason) for axis in (1, 2)]
    table = measured(row("yes", node(mode="linear")), *crashes)

    assert table(node(mode="cubic", axis=1)).constraint is Constraint.VALUE
    assert table(node(mode="cubic", axis=3)).verdict is Verdict.UNKNOWN


def test_what_no_operator_takes_is_refused_of_those_never_asked() -> None:
    habits = habits_of([*((f"Op{i}", True, False) for i in range(20)), ("Op", False, True)])
    loose = replace(node(), inputs=(ValueFacts("float32", ("n", 3)), None))
    version = version_of("Op", 1, X, [row("yes", node())], habits)

    assert version.verdict(loose).verdict is Verdict.NO
    assert version.verdict(loose).evidence is Evidence.INFERRED
    assert version.verdict(node()).ok
    assert not habits_of([("Op", True, True), ("Op", True, False)]).fixed_shapes


def test_open_dimensions_that_the_operator_itself_was_refused_with_are_measured() -> None:
    loose = replace(node(), inputs=(ValueFacts("float32", ("n", 3)), None))
    rows = [row("yes", node()), row("refused", loose, "fixed shapes only")]

    verdict = version_of("Op", 1, X, rows, Habits(fixed_shapes=True)).verdict(loose)

    assert verdict.evidence is Evidence.MEASURED


def test_a_node_with_the_other_explanation_of_the_same_refusals_is_unknown() -> None:
    rows = (
        row("yes", node(axis=0, mode="a")),
        row("refused", node(axis=1, mode="b"), "no"),
        row("refused", node(axis=1, mode="b", lens=True), "no"),
    )
    table = measured(*rows)

    other = table(node(axis=1, mode="a"))

    assert table(node(axis=9, mode="b")).verdict is Verdict.NO
    assert other.verdict is Verdict.UNKNOWN
    assert other.reason == "Op axis=1 is refused: no; whether its like is, was not measured"
    assert table(node(axis=9, mode="a")).ok


def test_a_single_refusal_has_other_explanations_too() -> None:
    table = measured(
        row("yes", node(axis=0, mode="a")), row("refused", node(axis=1, mode="b"), "no")
    )

    other = table(node(axis=1, mode="a"))

    assert other.verdict is Verdict.UNKNOWN
    assert other.reason == "Op axis=1 is refused: no; whether its like is, was not measured"
    assert table(node(axis=9, mode="a")).ok


def test_an_approximation_has_no_rank_but_another_function_may() -> None:
    flat = replace(node(), inputs=(ValueFacts("float32", (2,)), None))

    slight, gross = (
        measured(row("yes", node()), row("wrong", node(), f"max error {error} of 1"))(flat)
        for error in ("2e-4", "0.4")
    )

    assert slight.constraint is Constraint.VALUE
    assert gross.ok


def test_the_integers_of_a_constant_are_a_feature() -> None:
    layout = Layout(("i0",), ("data", "steps"), 1)
    value = ValueFacts("float32", (4, 5))
    steps = [ValueFacts("int64", (2,), True, ints=found) for found in ((2, -1), (1, 1), None)]
    nodes = [NodeFacts("n", "Slice", 13, (value, s), (value,)) for s in steps]

    found = [features(n, layout)["values.steps"] for n in nodes]

    assert found == ["with negative", "all 1", "?"]


@pytest.mark.parametrize(
    ("op", "shapes", "attributes", "more_than_32"),
    [
        ("MatMul", ((3, 33), (33, 2)), {}, True),
        ("MatMul", ((3, 32), (32, 2)), {}, False),
        ("Gemm", ((33, 3), (33, 2)), {"transA": 1}, True),
        ("Conv", ((1, 4, 9, 9), (8, 4, 3, 3)), {}, True),
        ("ConvTranspose", ((1, 2, 9, 9), (2, 8, 3, 3)), {}, False),
        ("MatMul", ((3, "k"), ("k", 2)), {}, "?"),
    ],
)
def test_how_many_numbers_are_summed_is_a_feature(
    op: str,
    shapes: tuple[tuple[int | str, ...], ...],
    attributes: dict[str, int],
    more_than_32: Any,
) -> None:
    values = tuple(ValueFacts("float32", shape) for shape in shapes)
    node = NodeFacts("n", op, 13, values, (ValueFacts("float32"),), attributes)

    assert features(node, Layout(("i0",), ("A", "B"), 2))["terms.32"] == more_than_32


def test_a_measured_reason_is_in_the_user_s_language() -> None:
    table = measured(row("yes", node()), row("refused", node("bfloat16"), "no kernel"))

    set_language("zh")
    try:
        reason = table(node("bfloat16")).reason
    finally:
        set_language("en")

    assert reason == "Op 类型 bfloat16被拒绝：no kernel"


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ((2, 3, 4), (2, 3, 1), "together"),
        ((2, 3, 4), (1, 3, 1), "apart"),
        ((2, 3, 4), (3,), "apart"),
        ((2, 3, 4), (), "all"),
        ((2, 3, 4), (2, 3, 4), "none"),
        ((3, 4, 3), (3, 4), "together"),
        ((2, 2, 2), (2,), "?"),
        (("n", 3), ("n", 1), "?"),
    ],
)
def test_the_axes_of_a_reduction_are_read_off_the_shapes(
    before: tuple[int | str, ...], after: tuple[int | str, ...], found: str
) -> None:
    values = ValueFacts("float32", before), ValueFacts("float32", after)
    reduction = NodeFacts("n", "ReduceSum", 13, values[:1], values[1:], {})

    assert features(reduction, X)["reduced"] == found


def test_a_normalization_over_channels_has_a_plane() -> None:
    sizes = {6: "small", 14: "small", 15: "large", 55: "large"}

    for n, found in sizes.items():
        value = ValueFacts("float32", (1, 64, n, n))
        assert features(NodeFacts("n", "LRN", 13, (value,), (value,), {}), X)["plane"] == found


outcomes = st.sampled_from(["yes", "yes", "refused", "wrong", "imprecise"])
nodes = st.builds(
    lambda dtype, lens, mode, axis: node(dtype, lens=lens, mode=mode, axis=axis),
    st.sampled_from(["float32", "float16", "int8"]),
    st.booleans(),
    st.sampled_from(["a", "b", "c"]),
    st.integers(0, 3),
)


@given(st.lists(st.tuples(nodes, outcomes), min_size=1, max_size=25))
def test_every_failing_row_is_refused_and_every_clean_passing_row_is_taken(
    cases: list[tuple[NodeFacts, str]],
) -> None:
    table = measured(*(row(outcome, example, "why") for example, outcome in cases))
    failing = {row("x", example).key for example, outcome in cases if outcome != "yes"}

    for example, _ in cases:
        assert table(example).ok == (row("x", example).key not in failing)


@given(st.lists(st.tuples(nodes, outcomes), min_size=1, max_size=25))
def test_conditions_do_not_depend_on_chance(cases: list[tuple[NodeFacts, str]]) -> None:
    rows = [row(outcome, example, "why") for example, outcome in cases]

    assert derive(rows, X) == derive(list(rows), X)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_an_empty_tensor_is_a_feature(shape: tuple[int, int]) -> None:
    empty = replace(node(), inputs=(ValueFacts("float32", shape), None))

    assert features(empty, X)["empty"] is True
    assert whole(("float32",), features(node(), X), X)["empty"] is False
