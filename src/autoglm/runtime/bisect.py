"""Find the nodes that a compiler refuses, by bisecting the graph to the smallest parts that still
fail.

Any prefix of a topological order is a graph of its own, so the shortest failing prefix ends in a
culprit and what lies before it compiles. Delta debugging over that prefix then finds the smallest
part that fails with it. Without the culprit the search goes on where it stood: about log2(nodes)
compiles for each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from autoglm.errors import BackendError

COMPILES = 64
# Of the time that is left, so that hanging parts can never use it all up.
_SHARE = 0.25


class Spent(Exception):
    """The compiles or the seconds of a search are used up."""


@dataclass(frozen=True, slots=True)
class Culprit:
    """A node to place elsewhere: the last of the smallest part found that still fails."""

    node: str
    part: tuple[str, ...]
    error: BackendError


@dataclass(frozen=True, slots=True)
class Found:
    """The culprits, and the nodes that were not proven to compile before the budget was spent."""

    culprits: tuple[Culprit, ...]
    unproven: tuple[str, ...] = ()


class Probe:
    """Compiles parts of one graph within a budget; a part compiles when `attempt` returns."""

    def __init__(
        self,
        attempt: Callable[[Sequence[str], float], None],
        *,
        compiles: int = COMPILES,
        seconds: float = 300.0,
    ) -> None:
        self._attempt = attempt
        self._left = compiles
        self._end = time.monotonic() + seconds

    def __call__(self, part: Sequence[str]) -> BackendError | None:
        """What the compiler says against these nodes; None where they compile."""
        remaining = self._end - time.monotonic()
        if not self._left or remaining <= 0:
            raise Spent
        self._left -= 1
        try:
            self._attempt(part, remaining * _SHARE)
        except BackendError as error:
            return error
        return None


def bisect(
    nodes: Sequence[str], ops: Mapping[str, str], probe: Probe, error: BackendError
) -> Found:
    """The culprits among `nodes` (in topological order), which fail together with `error`."""
    alive, found, proven = list(nodes), list[Culprit](), 0
    failure: BackendError | None = error
    try:
        named = _named(alive, error)
        if named and probe([n for n in alive if n not in named]) is None:
            return Found(tuple(Culprit(n, (n,), error) for n in named))
        while failure is not None:
            proven, failure = _shortest(alive, proven, probe, failure)
            culprit = _shrink(alive[:proven], alive[proven], probe, failure)
            new = [culprit]
            found.append(culprit)
            del alive[proven]
            if len(culprit.part) == 1:
                new = _same(alive[proven:], ops, probe, culprit)
                found += new
                alive = [n for n in alive if n not in {c.node for c in new}]
            failure = probe(alive) if proven < len(alive) else None
    except Spent:
        return Found(tuple(found), tuple(alive[proven:]))
    return Found(tuple(found))


def _named(alive: Sequence[str], error: BackendError) -> list[str]:
    # The vendor's message may blame nodes by name (autoglm.vendor_errors).
    nodes = error.facts.get("nodes")
    return [n for n in alive if n in nodes] if isinstance(nodes, list) else []


def _shortest(
    alive: Sequence[str], low: int, probe: Probe, failure: BackendError
) -> tuple[int, BackendError]:
    """`alive[:low]` compiles and `alive[: low + 1]` does not, with that failure."""
    high = len(alive)
    while high - low > 1:
        middle = (low + high) // 2
        here = probe(alive[:middle])
        if here is None:
            low = middle
        else:
            high, failure = middle, here
    return low, failure


def _shrink(before: Sequence[str], node: str, probe: Probe, failure: BackendError) -> Culprit:
    """The smallest part that fails with `node`, by leaving out ever smaller pieces (ddmin)."""
    kept, size = list(before), max(1, len(before))
    try:
        while kept:
            pieces = range(0, len(kept), size)
            for rest in (kept[:start] + kept[start + size :] for start in pieces):
                here = probe([*rest, node])
                if here is not None:
                    kept, failure = rest, here
                    size = max(1, min(size, len(kept) // 2))
                    break
            else:
                if size == 1:
                    break
                size = (size + 1) // 2
    except Spent:
        pass  # what is left still fails; it is only not the smallest
    return Culprit(node, (*kept, node), failure)


def _same(
    rest: Sequence[str], ops: Mapping[str, str], probe: Probe, culprit: Culprit
) -> list[Culprit]:
    """Later nodes of the culprit's operator that fail alone as well, up to the first that does
    not: a missing kernel is missing everywhere.
    """
    found: list[Culprit] = []
    for name in rest:
        if ops.get(name) == ops.get(culprit.node):
            failure = probe([name])
            if failure is None:
                break
            found.append(Culprit(name, (name,), failure))
    return found
