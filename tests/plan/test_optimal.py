"""How good the chosen plan is: never above what it was compared with, nearly always the optimum."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plan.checks import require_convex, require_prices_add_up, require_runnable
from plan.graphs import MACHINE, best_by_force, problem_of, random_dag, random_tables

from autoglm.plan import make_plan
from autoglm.plan.problem import PICO
from autoglm.spec import Plan


def plan_of(size: int, seed: int, names: tuple[str, ...], reach: int = 4) -> tuple[Plan, int]:
    """The chosen plan, and the optimum in picoseconds; 0 where the primary takes everything."""
    graph = random_dag(
        size, seed, reach=reach, largest=(60_000, 6_000, 600_000)[seed % 3], loose=seed % 4 > 1
    )
    tables = random_tables(graph, seed, names, refuse=(0.2, 0.4)[seed % 2])
    plan = make_plan(graph, tables, backend=names[0], policy=names[1:], machine=MACHINE)
    if len(plan.refusals) == sum(r.backend != names[0] for r in plan.refusals):
        return plan, 0
    return plan, best_by_force(problem_of(graph, tables))


@pytest.mark.parametrize(
    ("names", "size", "cases"),
    [(("a", "b"), 7, 120), (("a", "b"), 9, 40), (("a", "b", "c"), 6, 60)],
)
def test_the_chosen_plan_is_the_optimum_in_95_of_100_cases(
    names: tuple[str, ...], size: int, cases: int
) -> None:
    ratios = []
    for seed in range(cases):
        plan, best = plan_of(size, seed, names)
        if best:
            ratios.append(round(plan.seconds * PICO) / best)
    hits = sum(r < 1 + 1e-9 for r in ratios) / len(ratios)
    print(f"{len(names)} backends, {size} nodes: optimum in {hits:.1%}, worst {max(ratios):.3f}")

    assert len(ratios) > cases / 2
    assert min(ratios) > 1 - 1e-9, "cheaper than the optimum: one of the two prices is wrong"
    assert hits >= 0.95
    assert max(ratios) < 1.3


@settings(max_examples=60)
@given(
    st.integers(0, 10**6),
    st.integers(1, 30),
    st.sampled_from([("a", "b"), ("a", "b", "c"), ("a", "b", "c", "d")]),
    st.sampled_from([2, 5, 40]),
    st.booleans(),
)
def test_never_above_any_alternative_always_convex_and_runnable(
    seed: int, size: int, names: tuple[str, ...], reach: int, loose: bool
) -> None:
    graph = random_dag(size, seed, reach=reach, loose=loose)
    tables = random_tables(graph, seed, names)

    plan = make_plan(graph, tables, backend=names[0], policy=names[1:], machine=MACHINE)

    require_runnable(graph, plan)
    require_convex(graph, plan)
    require_prices_add_up(plan)
    assert plan.alternatives[0].name == "greedy"
    if any(r.backend == names[0] for r in plan.refusals):
        assert plan.seconds <= min(a.seconds for a in plan.alternatives) * (1 + 1e-9)
    else:
        assert [p.backend for p in plan.partitions] == [names[0]]


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 25))
def test_plans_with_nodes_that_nothing_takes_are_runnable_without_them(
    seed: int, size: int
) -> None:
    graph = random_dag(size, seed)
    tables = random_tables(graph, seed, ("a", "b", "c"), refuse=0.5)
    del tables["c"]

    plan = make_plan(graph, tables, backend="a", policy=["b"], machine=MACHINE)

    require_runnable(graph, plan)
    require_convex(graph, plan)
    both = {r.node for r in plan.refusals if r.backend == "a"} & {
        r.node for r in plan.refusals if r.backend == "b"
    }
    assert set(plan.unplaced) == both


def test_large_graphs_are_convex_and_no_dearer_than_greedy() -> None:
    graph = random_dag(600, 11, reach=12, loose=False)
    tables = random_tables(graph, 11, ("a", "b", "c"), refuse=0.2)

    plan = make_plan(graph, tables, backend="a", policy=["b", "c"], machine=MACHINE)

    require_runnable(graph, plan)
    require_convex(graph, plan)
    require_prices_add_up(plan)
    greedy = plan.alternatives[0]
    assert plan.seconds < greedy.seconds
    assert len(plan.partitions) <= greedy.partitions
