"""Alpha-expansion: one minimum cut decides which nodes move to one backend; exact for two backends.

Priced here: node times, and each tensor once for every other backend that reads it (its copy, cast
and layout, and a session call of the reader). Partitions of one backend that had to be split apart,
and session calls shared by several tensors, are not seen here; `place` prices the outcome truly and
improves on it.
"""

from __future__ import annotations

from collections.abc import Sequence

from autoglm.plan.cut import Network, sink_side
from autoglm.plan.problem import UNPLACED, Crossing, Problem

_SWEEPS = 2


def expand_all(
    problem: Problem, labels: Sequence[int], *, share: float = 1.0, without: int = UNPLACED
) -> list[int]:
    """Expand each backend (but `without`) in turn until nothing gets cheaper.

    `share` scales the session calls.
    """
    current = list(labels)
    used = [label for label in choices(problem) if label != without]
    energy = relaxed_cost(problem, current, share=share)
    for _ in range(_SWEEPS if len(used) > 2 else 1):
        before = energy
        for label in used:
            trial = expand(problem, current, label, share=share)
            cost = relaxed_cost(problem, trial, share=share)
            if cost < energy:
                current, energy = trial, cost
        if before - energy <= before // 1000:
            break
    return current


def choices(problem: Problem) -> list[int]:
    """The labels that some node may take or leave."""
    return sorted({label for options in problem.options if len(options) > 1 for label in options})


def relaxed_cost(problem: Problem, labels: Sequence[int], *, share: float = 1.0) -> int:
    """What `expand` minimises."""
    total = sum(
        problem.node_cost(node, label) for node, label in enumerate(labels) if label != UNPLACED
    )
    for crossing in problem.crossings:
        home = labels[crossing.producer]
        if home == UNPLACED:
            continue
        away = {labels[c] for c in crossing.consumers} - {home, UNPLACED}
        total += sum(_weight(problem, crossing, home, label, share) for label in away)
    return total


def expand(problem: Problem, labels: Sequence[int], alpha: int, *, share: float = 1.0) -> list[int]:
    """The best labels in which each node keeps its label or takes `alpha`.

    Source side: keep; sink side: take alpha.
    """
    network = Network()
    places: dict[int, int] = {}
    for node, label in enumerate(labels):
        if label != alpha and alpha in problem.options[node]:
            places[node] = place = network.node()
            network.supply[place] = problem.node_cost(node, alpha)
            network.demand[place] = problem.node_cost(node, label)
    if not places:
        return list(labels)
    for crossing in problem.crossings:
        if crossing.producer in places or any(c in places for c in crossing.consumers):
            _Terms(problem, labels, alpha, share, network, places).add(crossing)
    moved = sink_side(network)
    return [
        alpha if node in places and moved[places[node]] else label
        for node, label in enumerate(labels)
    ]


def _weight(problem: Problem, crossing: Crossing, start: int, end: int, share: float) -> int:
    return crossing.prices[start][end] + round(share * problem.dispatch[end])


class _Terms:
    """Adds the price of one tensor's crossings to a network."""

    def __init__(
        self,
        problem: Problem,
        labels: Sequence[int],
        alpha: int,
        share: float,
        network: Network,
        places: dict[int, int],
    ) -> None:
        self.problem, self.labels, self.alpha, self.share = problem, labels, alpha, share
        self.network, self.places = network, places

    def add(self, crossing: Crossing) -> None:
        home = self.labels[crossing.producer]
        if home == UNPLACED:
            return
        producer = self.places.get(crossing.producer)
        readers: dict[int, list[int]] = {}
        for consumer in crossing.consumers:
            readers.setdefault(self.labels[consumer], []).append(consumer)
        readers.pop(UNPLACED, None)
        if home != self.alpha:
            self._to_alpha(crossing, home, producer, bool(readers.get(self.alpha)))
        for label, consumers in readers.items():
            if label != self.alpha:
                self._to_other(crossing, home, producer, label, consumers)

    def _to_alpha(self, crossing: Crossing, home: int, producer: int | None, certain: bool) -> None:
        """Paid while the producer keeps its label and some reader is alpha."""
        weight = _weight(self.problem, crossing, home, self.alpha, self.share)
        if certain:
            if producer is not None:
                self.network.demand[producer] += weight
            return
        takers = [self.places[c] for c in crossing.consumers if c in self.places]
        if takers:
            self._when_any_takes(producer, takers, weight)

    def _to_other(
        self, crossing: Crossing, home: int, producer: int | None, label: int, consumers: list[int]
    ) -> None:
        """Paid while some reader keeps `label` and the producer has another one."""
        keepers = [self.places[c] for c in consumers if c in self.places]
        certain = len(keepers) < len(consumers)
        kept = _weight(self.problem, crossing, home, label, self.share) if home != label else 0
        if producer is None:
            if kept and not certain:
                self._when_any_keeps(None, keepers, kept)
            return
        taken = _weight(self.problem, crossing, self.alpha, label, self.share)
        if certain:
            self.network.demand[producer] += kept
            self.network.supply[producer] += taken
            return
        # Where keeping costs more (three labels), the difference is no cut; it is left out.
        always = min(kept, taken)
        if always:
            self._when_any_keeps(None, keepers, always)
        if taken > always:
            self._when_any_keeps(producer, keepers, taken - always)

    def _when_any_takes(self, producer: int | None, takers: list[int], weight: int) -> None:
        network = self.network
        if len(takers) == 1:
            if producer is None:
                network.supply[takers[0]] += weight
            else:
                network.link(producer, takers[0], weight)
            return
        joint = network.node()
        if producer is None:
            network.supply[joint] += weight
        else:
            network.link(producer, joint, weight)
        for taker in takers:
            network.link(joint, taker, weight + 1)

    def _when_any_keeps(self, producer: int | None, keepers: list[int], weight: int) -> None:
        network = self.network
        if len(keepers) == 1:
            if producer is None:
                network.demand[keepers[0]] += weight
            else:
                network.link(keepers[0], producer, weight)
            return
        joint = network.node()
        if producer is None:
            network.demand[joint] += weight
        else:
            network.link(joint, producer, weight)
        for keeper in keepers:
            network.link(keeper, joint, weight + 1)
