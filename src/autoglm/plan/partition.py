"""From one backend per node to partitions that can run one after the other, as few as can be.

A partition must be convex: no path may leave it and come back. Sets that follow one another in some
topological order always are, so the partitions are built by walking the graph: take every node of one
backend that is ready, and what becomes ready by that, until none is left; then go on with another backend.
With two backends no order of steps gives fewer partitions than the better of the two beginnings; with more,
the backend comes next that has the most changes of backend still ahead of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoglm.plan.problem import UNPLACED, Problem


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes (ascending, which is topological) of one label that run as one partition."""

    label: int
    nodes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Solution:
    """Labels, the groups in running order, and what the objective charges for them (picoseconds)."""

    labels: tuple[int, ...]
    groups: tuple[Group, ...]
    cost: int


def solve_order(problem: Problem, labels: Sequence[int]) -> Solution:
    """The cheapest of the schedules that begin with each possible label."""
    heights = _heights(problem, labels)
    firsts = sorted({labels[v] for v in range(problem.size) if not problem.predecessors[v]})
    best: Solution | None = None
    for first in firsts or [0]:
        groups = _schedule(problem, labels, heights, first)
        cost = price(problem, labels, groups)
        if best is None or (cost, len(groups)) < (best.cost, len(best.groups)):
            best = Solution(tuple(labels), groups, cost)
    assert best is not None
    return best


def price(problem: Problem, labels: Sequence[int], groups: Sequence[Group]) -> int:
    """Node times, one session call per group, and every tensor once per group that reads it from outside."""
    total = 0
    group_of = [0] * problem.size
    for number, group in enumerate(groups):
        if group.label == UNPLACED:
            for node in group.nodes:
                group_of[node] = UNPLACED
            continue
        total += problem.dispatch[group.label]
        times = problem.times[group.label]
        for node in group.nodes:
            group_of[node] = number
            total += times[node]
        if group.label:
            total += sum(problem.penalty[node] for node in group.nodes)
    return total + sum(c for _, _, _, c in crossed(problem, labels, group_of))


def crossed(
    problem: Problem, labels: Sequence[int], group_of: Sequence[int]
) -> list[tuple[int, int, int, int]]:
    """(crossing, producing group, reading group, price) of every tensor that leaves its group."""
    found = []
    for number, crossing in enumerate(problem.crossings):
        home = group_of[crossing.producer]
        if home == UNPLACED:
            continue
        if len(crossing.consumers) == 1:
            reader = crossing.consumers[0]
            away = group_of[reader]
            if away not in (home, UNPLACED):
                row = crossing.prices[labels[crossing.producer]]
                found.append((number, home, away, row[labels[reader]]))
            continue
        row = crossing.prices[labels[crossing.producer]]
        readers = {group_of[c]: row[labels[c]] for c in crossing.consumers if group_of[c] != home}
        readers.pop(UNPLACED, None)
        found.extend((number, home, away, readers[away]) for away in sorted(readers))
    return found


def _heights(problem: Problem, labels: Sequence[int]) -> list[int]:
    """Changes of label on the longest way to an end of the graph."""
    heights = [0] * problem.size
    for node in range(problem.size - 1, -1, -1):
        label = labels[node]
        heights[node] = max(
            (heights[s] + (labels[s] != label) for s in problem.successors[node]), default=0
        )
    return heights


def _schedule(
    problem: Problem, labels: Sequence[int], heights: Sequence[int], first: int
) -> tuple[Group, ...]:
    waiting = [len(p) for p in problem.predecessors]
    ready: dict[int, list[int]] = {}
    ahead: dict[int, int] = {}

    def admit(node: int) -> None:
        label = labels[node]
        ready.setdefault(label, []).append(node)
        ahead[label] = max(ahead.get(label, 0), heights[node])

    for node in range(problem.size):
        if not waiting[node]:
            admit(node)
    groups = []
    label = first
    while ready:
        stack, taken = ready.pop(label), []
        del ahead[label]
        while stack:
            node = stack.pop()
            taken.append(node)
            for after in problem.successors[node]:
                waiting[after] -= 1
                if not waiting[after]:
                    if labels[after] == label:
                        stack.append(after)
                    else:
                        admit(after)
        groups.append(Group(label, tuple(sorted(taken))))
        if ready:
            label = min(ready, key=lambda b: (-ahead[b], -len(ready[b]), b))
    return tuple(groups)
