"""Local moves under the true price, after the cut: splitting changed what islands cost.

A move gives a connected piece of a partition, a partition, a backend's nodes, one node, or two
neighbours to another backend. The number of trials is bounded by the graph's
size, so that planning stays linear in nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from autoglm.plan.expand import choices
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
    """Nodes and the label to give them: small pieces, partitions, backends, nodes, pairs."""
    pieces = sorted(_pieces(problem, solution), key=lambda p: (_time(problem, solution, p), p))
    groups = [group.nodes for group in solution.groups]
    every = [
        tuple(v for v, b in enumerate(solution.labels) if b == label)
        for label in sorted(set(solution.labels))
    ]
    nodes = [(v,) for v in range(problem.size)]
    pairs = [(v, after) for v in range(problem.size) for after in problem.successors[v]]
    targets = choices(problem)
    for some in dict.fromkeys((*pieces, *groups, *every, *nodes, *pairs)):
        for label in targets:
            movable = tuple(
                v for v in some if solution.labels[v] != label and label in problem.options[v]
            )
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
