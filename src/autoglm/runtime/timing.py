"""Times that can be compared: candidates take turns in shuffled order, so that a slow spell of
the machine hits all.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Samples:
    """Seconds of one candidate's calls, in the order they were made."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle sample, in seconds."""
        return median(self.seconds)

    @property
    def best(self) -> float:
        """The fastest sample, in seconds."""
        return min(self.seconds)

    @property
    def estimate(self) -> float:
        """Mean of the fastest quarter, in seconds: noise only ever adds time."""
        quarter = sorted(self.seconds)[: max(1, len(self.seconds) // 4)]
        return sum(quarter) / len(quarter)


def interleave(
    calls: Mapping[str, Callable[[], object]],
    *,
    budget_s: float = 2.0,
    least: int = 5,
    most: int = 200,
    gap_s: float = 0.002,
    seed: int = 0,
) -> dict[str, Samples]:
    """Call each candidate in turn, in a new random order each round, until the budget is spent.

    A gap lets the threads of the previous engine stop spinning: without it an engine's place in the
    round can change its time by half.
    """
    order = list(calls)
    shuffle = random.Random(seed).shuffle
    for name in order:
        calls[name]()
    seconds: dict[str, list[float]] = {name: [] for name in order}
    until = time.perf_counter() + budget_s
    rounds = 0
    while rounds < least or (rounds < most and time.perf_counter() < until):
        shuffle(order)
        for name in order:
            if gap_s:
                time.sleep(gap_s)
            started = time.perf_counter()
            calls[name]()
            seconds[name].append(time.perf_counter() - started)
        rounds += 1
    return {name: Samples(tuple(values)) for name, values in seconds.items()}
