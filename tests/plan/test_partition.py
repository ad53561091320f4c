"""Partitions are convex, as few as two backends allow, and run in the order they are listed."""

from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st
from plan.graphs import dag, problem_of, random_dag, table

from autoglm.plan.partition import _variants, _walk, price, settle, solve_order
from autoglm.plan.problem import Problem


def free(size: int, seed: int, names: tuple[str, ...] = ("a", "b"), reach: int = 5) -> Problem:
    graph = random_dag(size, seed, reach=reach)
    ops = {n.op for n in graph.nodes}
    return problem_of(graph, {name: table(name, *ops) for name in names})


@settings(max_examples=150)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(2, 4), st.booleans())
def test_every_node_once_and_groups_in_topological_order(
    seed: int, size: int, count: int, wide: bool
) -> None:
    problem = free(size, seed, ("a", "b", "c", "d")[:count], reach=size if wide else 3)
    draw = random.Random(seed)
    labels = [draw.randrange(count) for _ in range(size)]

    found = solve_order(problem, labels)

    place = {v: i for i, group in enumerate(found.groups) for v in group.nodes}
    assert sorted(v for group in found.groups for v in group.nodes) == list(range(size))
    assert all(labels[v] == group.label for group in found.groups for v in group.nodes)
    assert all(place[p] <= place[v] for v in range(size) for p in problem.predecessors[v])
    assert all(a.label != b.label for a, b in pairwise(found.groups))
    assert found.cost == price(problem, labels, found.groups)


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 9))
@example(251177, 8)  # the cheapest has 4 groups, the fewest are 3
def test_of_two_labels_one_walk_has_the_fewest_groups_and_none_is_cheaper_than_the_chosen(
    seed: int, size: int
) -> None:
    problem = free(size, seed)
    draw = random.Random(seed)
    labels = tuple(draw.randrange(2) for _ in range(size))

    walks = [_walk(problem, labels, v) for v in _variants(problem, labels)]

    assert min(map(len, walks)) == fewest(problem, labels)
    assert solve_order(problem, labels).cost <= min(price(problem, labels, w) for w in walks)


def fewest(problem: Problem, labels: tuple[int, ...]) -> int:
    """By trying every topological order."""
    best = len(labels)
    stack: list[tuple[int, int, int]] = [(0, -1, 0)]
    seen = set(stack)
    while stack:
        done, last, groups = stack.pop()
        if done == (1 << len(labels)) - 1:
            best = min(best, groups)
        for v, label in enumerate(labels):
            ready = all(done >> p & 1 for p in problem.predecessors[v])
            step = (done | 1 << v, label, groups + (label != last))
            if not done >> v & 1 and ready and step not in seen:
                seen.add(step)
                stack.append(step)
    return best


def test_a_diamond_whose_sides_differ_is_split_where_a_path_would_come_back() -> None:
    # 0 -> 1 -> 3 and 0 -> 2 -> 3: with only 1 on b, {0, 2, 3} on a would not be convex.
    graph = dag([[], [0], [0], [1, 2]], ["A", "B", "A", "A"], [1, 1, 1, 1])
    problem = problem_of(graph, {"a": table("a", "A"), "b": table("b", "B")})

    found = solve_order(problem, [0, 1, 0, 0])

    assert [g.label for g in found.groups] == [0, 1, 0]
    assert found.groups[1].nodes == (1,)


def test_settling_never_makes_it_dearer_and_keeps_the_order() -> None:
    moved = 0
    for seed in range(150):
        problem = free(25, seed, reach=8)
        draw = random.Random(seed)
        labels = [draw.randrange(2) for _ in range(25)]
        groups = solve_order(problem, labels).groups
        scattered = scatter(groups, problem, draw)

        settled = settle(problem, labels, scattered)

        assert price(problem, labels, settled) <= price(problem, labels, scattered)
        place = {v: i for i, group in enumerate(settled) for v in group.nodes}
        assert all(place[p] <= place[v] for v in range(25) for p in problem.predecessors[v])
        moved += settled != tuple(scattered)
    assert moved > 20


def scatter(groups, problem, draw):  # type: ignore[no-untyped-def]
    """The same groups with some nodes as late as they may run, whatever that costs."""
    from autoglm.plan.partition import Group

    place = {v: i for i, group in enumerate(groups) for v in group.nodes}
    for v in range(problem.size - 1, -1, -1):
        last = min((place[s] for s in problem.successors[v]), default=len(groups) - 1)
        fits = [i for i in range(place[v], last + 1) if groups[i].label == groups[place[v]].label]
        place[v] = draw.choice(fits)
    nodes = [[v for v in sorted(place) if place[v] == i] for i in range(len(groups))]
    return tuple(Group(g.label, tuple(n)) for g, n in zip(groups, nodes, strict=True))
