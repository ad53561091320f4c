"""Planning is linear in nodes: work is counted, not seconds, because the machine is shared."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from plan.graphs import MACHINE, chain, random_dag, random_tables, table

from autoglm.plan import Graph, make_plan
from autoglm.spec import Capabilities

NAMES = ("a", "b", "c")


def calls(action: Callable[[], object]) -> int:
    """Function calls made by `action`, built-in ones too: each push, raise and append is one."""
    count = 0

    def seen(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(seen)
    try:
        action()
    finally:
        sys.setprofile(None)
    return count


def planning(graph: Graph, tables: dict[str, Capabilities], names: tuple[str, ...]) -> int:
    return calls(
        lambda: make_plan(graph, tables, backend=names[0], policy=names[1:], machine=MACHINE)
    )


@pytest.mark.parametrize(
    ("names", "reach"),
    [(("a", "b"), 4), (NAMES, 4), (("a", "b"), 1200)],
    ids=["two", "three", "wide"],
)
def test_four_times_the_nodes_take_less_than_six_times_the_work(
    names: tuple[str, ...], reach: int
) -> None:
    work = []
    for size in (300, 1200):
        graph = random_dag(size, 7, reach=min(reach, size), loose=False)
        work.append(planning(graph, random_tables(graph, 7, names, refuse=0.1), names))

    assert work[1] / work[0] < 6


def split_chain(size: int) -> tuple[Graph, dict[str, Capabilities]]:
    """One refused node in the middle of a chain, the worst case for a flow's distances."""
    ops = ["MatMul"] * size
    ops[size // 2] = "Erf"
    tables = {"a": table("a", "MatMul", speed=3.0), "b": table("b", "MatMul", "Erf")}
    return chain(*ops, size=10_000), tables


def test_a_long_chain_whose_middle_is_refused_stays_linear() -> None:
    work = [planning(*split_chain(size), ("a", "b")) for size in (600, 2400)]

    assert work[1] / work[0] < 6


def test_8000_nodes_in_a_chain_do_not_recurse() -> None:
    graph, tables = split_chain(8000)

    plan = make_plan(graph, tables, backend="a", policy=["b"], machine=MACHINE)

    assert [len(p.nodes) for p in plan.partitions] == [4000, 1, 3999]


def test_a_primary_that_takes_everything_is_planned_without_a_cut() -> None:
    graph = random_dag(800, 3, loose=False)
    tables = {n: table(n, *{x.op for x in graph.nodes}) for n in NAMES}
    mixed = random_tables(graph, 3, NAMES)

    assert planning(graph, tables, NAMES) < planning(graph, mixed, NAMES) / 3
