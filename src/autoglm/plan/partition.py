"""From one backend per node to partitions that can run one after the other, as few as can be.

A partition must be convex: no path may leave it and come back. Sets that follow one another in some
topological order always are, so the partitions are built by walking the graph: take every node of
one backend that is ready, and what becomes ready by that, until none is left; then go on with
another backend. With two backends no order of steps gives fewer partitions than the better of the
two beginnings; with more, the backend comes next that has the most changes of backend ahead of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autoglm.plan.problem import UNPLACED, Problem


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes (ascending, which is topological) of one label that run as one partition."""

    label: int
    nodes: tuple[int, ...]


_SMALL = 60  # nodes up to which every walk is priced

Variant = tuple[bool, int]  # walk backward from the outputs?, and the label to begin with


@dataclass(frozen=True, slots=True)
class Solution:
    """Labels, groups in running order, and what the objective charges for them (picoseconds)."""

    labels: tuple[int, ...]
    groups: tuple[Group, ...]
    cost: int
    variant: Variant = (False, 0)


def solve_order(
    problem: Problem, labels: Sequence[int], variants: Sequence[Variant] = ()
) -> Solution:
    """The cheapest walk: from the inputs or back from the outputs, beginning with each label there.

    Walked from the inputs every node runs as early as its backend comes up, walked back as late;
    `settle` then moves single nodes between partitions of their backend.
    """
    walks = {v: _walk(problem, labels, v) for v in variants or _variants(problem, labels)}
    if problem.size > _SMALL:
        walks = {v: walks[v] for v in _fewest(walks)}
    best: Solution | None = None
    for variant, walk in walks.items():
        groups = settle(problem, labels, walk)
        cost = price(problem, labels, groups)
        if best is None or (cost, len(groups)) < (best.cost, len(best.groups)):
            best = Solution(tuple(labels), groups, cost, variant)
    assert best is not None
    return best


def _variants(problem: Problem, labels: Sequence[int]) -> list[Variant]:
    firsts = {labels[v] for v in range(problem.size) if not problem.predecessors[v]}
    lasts = {labels[v] for v in range(problem.size) if not problem.successors[v]}
    if len(set(labels)) < 2:
        return [(False, first) for first in firsts or {0}]
    return [*((False, b) for b in sorted(firsts)), *((True, b) for b in sorted(lasts))]


def _fewest(walks: Mapping[Variant, Sequence[Group]]) -> list[Variant]:
    """The shortest walk of each direction."""
    found = [[v for v in walks if v[0] is backward] for backward in (False, True)]
    return [min(some, key=lambda v: len(walks[v])) for some in found if some]


def price(problem: Problem, labels: Sequence[int], groups: Sequence[Group]) -> int:
    """Node times, a session call per group, each tensor once per group it is brought to."""
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


def settle(problem: Problem, labels: Sequence[int], groups: Sequence[Group]) -> tuple[Group, ...]:
    """Move single nodes to another group of their label where less has to be brought across.

    A node may go wherever its predecessors' groups are not later and its successors' not earlier,
    so the groups stay in a valid order.
    """
    if len(groups) < 3:
        return tuple(groups)
    group_of = [0] * problem.size
    for number, group in enumerate(groups):
        for node in group.nodes:
            group_of[node] = number
    moved = False
    for node in (*range(problem.size - 1, -1, -1), *range(problem.size)):
        moved |= _settle_one(problem, labels, groups, group_of, node)
    if not moved:
        return tuple(groups)
    nodes: list[list[int]] = [[] for _ in groups]
    for node, number in enumerate(group_of):
        nodes[number].append(node)
    kept = [Group(g.label, tuple(n)) for g, n in zip(groups, nodes, strict=True) if n]
    return tuple(_joined(kept))


def _settle_one(
    problem: Problem,
    labels: Sequence[int],
    groups: Sequence[Group],
    group_of: list[int],
    node: int,
) -> bool:
    label, here = labels[node], group_of[node]
    before = [group_of[v] for v in problem.predecessors[node]]
    after = [group_of[v] for v in problem.successors[node]]
    low, high = max(before, default=0), min(after, default=len(groups) - 1)
    if low == high or label == UNPLACED:
        return False
    near = {g for g in (*before, *after) if low <= g <= high and g != here}
    choices = sorted(g for g in near if groups[g].label == label)
    if not choices:
        return False
    touching = problem.touching[node]
    best, cost = here, _toll(problem, labels, group_of, touching)
    for choice in choices:
        group_of[node] = choice
        found = _toll(problem, labels, group_of, touching)
        if found < cost:
            best, cost = choice, found
    group_of[node] = best
    return best != here


def _toll(
    problem: Problem, labels: Sequence[int], group_of: Sequence[int], touching: Sequence[int]
) -> int:
    total = 0
    for number in touching:
        crossing = problem.crossings[number]
        home = group_of[crossing.producer]
        row = crossing.prices[labels[crossing.producer]]
        readers = {group_of[c]: row[labels[c]] for c in crossing.consumers if labels[c] != UNPLACED}
        readers.pop(home, None)
        total += sum(readers.values())
    return total


def _joined(groups: Sequence[Group]) -> list[Group]:
    joined: list[Group] = []
    for group in groups:
        if joined and joined[-1].label == group.label:
            group = Group(group.label, tuple(sorted((*joined.pop().nodes, *group.nodes))))
        joined.append(group)
    return joined


def _walk(problem: Problem, labels: Sequence[int], variant: Variant) -> tuple[Group, ...]:
    backward, first = variant
    if not backward:
        order = range(problem.size)
        return tuple(_steps(labels, problem.predecessors, problem.successors, order, first))
    order = range(problem.size - 1, -1, -1)
    steps = _steps(labels, problem.successors, problem.predecessors, order, first)
    return tuple(reversed(steps))


def _heights(
    labels: Sequence[int], after: Sequence[Sequence[int]], order: Sequence[int]
) -> list[int]:
    """Changes of label on the longest way to an end of the graph."""
    heights = [0] * len(labels)
    for node in reversed(order):
        label = labels[node]
        heights[node] = max((heights[s] + (labels[s] != label) for s in after[node]), default=0)
    return heights


def _steps(
    labels: Sequence[int],
    before: Sequence[Sequence[int]],
    after: Sequence[Sequence[int]],
    order: Sequence[int],
    first: int,
) -> list[Group]:
    heights = _heights(labels, after, order) if len(set(labels)) > 2 else [0] * len(labels)
    waiting = [len(p) for p in before]
    ready: dict[int, list[int]] = {}
    ahead: dict[int, int] = {}

    def admit(node: int) -> None:
        label = labels[node]
        ready.setdefault(label, []).append(node)
        ahead[label] = max(ahead.get(label, 0), heights[node])

    for node in order:
        if not waiting[node]:
            admit(node)
    groups = []
    label = first if first in ready else min(ready, default=first)
    while ready:
        stack, taken = ready.pop(label), []
        while stack:
            node = stack.pop()
            taken.append(node)
            for other in after[node]:
                waiting[other] -= 1
                if not waiting[other]:
                    if labels[other] == label:
                        stack.append(other)
                    else:
                        admit(other)
        groups.append(Group(label, tuple(sorted(taken))))
        ahead[label] = 0
        if ready:
            label = min(ready, key=lambda b: (-ahead[b], -len(ready[b]), b))
    return groups
