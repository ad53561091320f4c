"""The bisect finds exactly the nodes that a compiler refuses, within its budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.errors import BackendError, CompileError
from autoglm.runtime.bisect import COMPILES, Found, Probe, bisect

NODES = [f"n{i:03}" for i in range(200)]
OPS = {name: f"Op{i}" for i, name in enumerate(NODES)}


def compiler(
    *bad: set[str], ran: list[int] | None = None
) -> Callable[[Sequence[str], float], None]:
    """Refuses every part that holds one of these sets."""

    def attempt(part: Sequence[str], _: float) -> None:
        if ran is not None:
            ran.append(len(part))
        for names in bad:
            if names <= set(part):
                raise CompileError("no " + "+".join(sorted(names)))

    return attempt


def search(*bad: set[str], nodes: Sequence[str] = NODES, **limits: int) -> tuple[Found, int]:
    ran: list[int] = []
    probe = Probe(compiler(*bad, ran=ran), **{"compiles": 10_000, **limits})
    return bisect(nodes, OPS, probe, CompileError("it failed")), len(ran)


@pytest.mark.parametrize("position", [0, 1, 57, 198, 199])
def test_one_bad_node_is_found_with_a_logarithm_of_compiles(position: int) -> None:
    found, compiles = search({NODES[position]})

    assert [(c.node, c.part) for c in found.culprits] == [(NODES[position], (NODES[position],))]
    assert str(found.culprits[0].error) == f"no {NODES[position]}"
    assert found.unproven == ()
    assert compiles <= 11


def test_two_neighbours_that_fail_only_together_are_one_culprit_with_its_partner() -> None:
    found, compiles = search({"n100", "n101"})

    assert [(c.node, c.part) for c in found.culprits] == [("n101", ("n100", "n101"))]
    assert compiles <= 40


def test_a_distant_pair_and_a_single_node_are_all_found() -> None:
    found, _ = search({"n003", "n190"}, {"n050"})

    assert {c.part for c in found.culprits} == {("n050",), ("n003", "n190")}


def test_a_missing_kernel_is_looked_for_in_every_node_of_that_operator() -> None:
    ops = {name: "Softmax" if i % 5 == 0 else "Add" for i, name in enumerate(NODES)}
    bad = [{n} for n, op in ops.items() if op == "Softmax"]

    found = bisect(NODES, ops, Probe(compiler(*bad)), CompileError("it failed"))

    assert {c.node for c in found.culprits} == {n for names in bad for n in names}
    assert found.unproven == ()


def test_nodes_that_the_vendor_names_are_believed_after_one_compile() -> None:
    ran: list[int] = []
    probe = Probe(compiler({"n004"}, {"n009"}, ran=ran))
    error = CompileError("E19010", nodes=["n004", "n009", "elsewhere"])

    found = bisect(NODES, OPS, probe, error)

    assert [c.node for c in found.culprits] == ["n004", "n009"]
    assert ran == [198]


def test_nodes_that_the_vendor_blames_wrongly_are_not_believed() -> None:
    probe = Probe(compiler({"n004"}))

    found = bisect(NODES, OPS, probe, CompileError("E19010", nodes=["n100"]))

    assert [c.node for c in found.culprits] == ["n004"]


def test_a_spent_budget_leaves_what_is_not_proven() -> None:
    found, compiles = search(*({n} for n in NODES), compiles=12)

    assert compiles == 12
    culprits = {c.node for c in found.culprits}
    assert culprits | set(found.unproven) == set(NODES)


def test_no_time_means_nothing_is_proven() -> None:
    found, compiles = search({"n004"}, seconds=0)

    assert (compiles, found.culprits, found.unproven) == (0, (), tuple(NODES))


def test_a_probe_gets_a_share_of_the_time_that_is_left() -> None:
    given_s: list[float] = []

    def attempt(_: Sequence[str], timeout_s: float) -> None:
        given_s.append(timeout_s)

    Probe(attempt, seconds=100)(["a"])

    assert 20 < given_s[0] <= 25


@given(
    st.lists(st.sets(st.sampled_from(NODES[:30]), min_size=1, max_size=3), min_size=1, max_size=4)
)
def test_what_is_left_compiles_and_every_part_fails(bad: list[set[str]]) -> None:
    nodes = NODES[:30]
    attempt = compiler(*bad)
    found = bisect(nodes, OPS, Probe(attempt, compiles=10_000), CompileError("it failed"))

    attempt([n for n in nodes if n not in {c.node for c in found.culprits}], 1)
    assert found.unproven == ()
    for culprit in found.culprits:
        with pytest.raises(BackendError):
            attempt(culprit.part, 1)
        for name in culprit.part:  # and nothing can be left out of it
            attempt([n for n in culprit.part if n != name], 1)


def test_the_usual_budget_suffices_for_a_few_culprits_in_a_large_graph() -> None:
    found, compiles = search({"n010"}, {"n020", "n021"}, {"n150"}, compiles=COMPILES)

    assert {c.node for c in found.culprits} == {"n010", "n021", "n150"}
    assert found.unproven == ()
    assert compiles <= COMPILES
