"""Local moves under the true price, after the cut: splitting changed what islands cost.

A move gives a connected piece of one partition, or one node, or two neighbours, to a backend beside
it. The number of trials is bounded by the graph's size, so that planning stays linear in nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from autoglm.plan.partition import Solution, solve_order
from autoglm.plan.problem import UNPLACED, Problem

_WORK = 30_000  # trials x (nodes + edges)
_LEAST_TRIALS = 6
_MOST_TRIALS = 800
_SMALL = 60


def improve(problem: Problem, starts: Sequence[Solution]) -> Solution:
    """The best plan that moves lead to: from the cheapest start, then from others."""
    edges = sum(map(len, problem.successors))
    trials = min(_MOST_TRIALS, max(_LEAST_TRIALS, _WORK // (problem.size + edges + 1)))
    best = min(starts, key=lambda s: s.cost)
    for start in sorted(dict.fromkeys(starts), key=lambda s: s.cost):
        found, trials = _climb(problem, start, trials)
        best = min(best, found, key=lambda s: s.cost)
        if trials <= 0:
            break
    return best


def _climb(problem: Problem, start: Solution, trials: int) -> tuple[Solution, int]:
    """Take every move that makes the plan cheaper, until none does or the trials are spent."""
    best = start
    improved = True
    while improved:
        improved = False
        for nodes, label in _moves(problem, best):
            if trials <= 0:
                return best, 0
            trials -= 1
            labels = list(best.labels)
            for node in nodes:
                labels[node] = label
            # Large graphs can pay for one walk per trial; small ones try them all.
            variants = (best.variant,) if problem.size > _SMALL else ()
            found = solve_order(problem, labels, variants)
            if found.cost < best.cost:
                best, improved = found, True
                break
    return best, trials


def _moves(problem: Problem, solution: Solution) -> Iterator[tuple[tuple[int, ...], int]]:
    pieces = sorted(_pieces(problem, solution), key=lambda p: (_time(problem, solution, p), p))
    for piece in pieces:
        yield from _to_neighbours(problem, solution.labels, piece)
    for node in range(problem.size):
        yield from _to_neighbours(problem, solution.labels, (node,))
    for node in range(problem.size):
        for after in problem.successors[node]:
            yield from _to_neighbours(problem, solution.labels, (node, after))


def _to_neighbours(
    problem: Problem, labels: Sequence[int], nodes: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], int]]:
    around: dict[int, list[int]] = {}
    inside = set(nodes)
    for node in nodes:
        for other in (*problem.predecessors[node], *problem.successors[node]):
            if other not in inside and labels[other] != UNPLACED:
                around[labels[other]] = []
    for label in sorted(around):
        movable = tuple(v for v in nodes if labels[v] != label and label in problem.options[v])
        if movable:
            yield movable, label


def _time(problem: Problem, solution: Solution, piece: Sequence[int]) -> int:
    label = solution.labels[piece[0]]
    return sum(problem.times[label][node] for node in piece)


def _pieces(problem: Problem, solution: Solution) -> list[tuple[int, ...]]:
    """Connected parts of the groups."""
    pieces = []
    seen = [False] * problem.size
    for group in solution.groups:
        if group.label == UNPLACED:
            continue
        inside = set(group.nodes)
        for root in group.nodes:
            if seen[root]:
                continue
            seen[root], stack, piece = True, [root], []
            while stack:
                node = stack.pop()
                piece.append(node)
                for other in (*problem.predecessors[node], *problem.successors[node]):
                    if other in inside and not seen[other]:
                        seen[other] = True
                        stack.append(other)
            pieces.append(tuple(sorted(piece)))
    return pieces
