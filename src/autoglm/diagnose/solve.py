"""Which pair does not fit, and the nearest set of versions that does: fewest changes first."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from autoglm.diagnose.rules import Component, Rule
from autoglm.diagnose.versions import key

# Sets of versions looked at before the search gives up.
LIMIT = 5_000
_REMOVAL = 3  # changes that doing without a component counts for

Cost = tuple[int, int, int]  # changes, their price, how far from what is here
Changes = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Change:
    """One component to bring to another version; `after` is "" where it goes."""

    component: str
    before: str
    after: str
    command: str


@dataclass(frozen=True, slots=True)
class Solution:
    """Changes that make everything fit; None where no known versions do."""

    changes: tuple[Change, ...]


def conflicts(facts: Mapping[str, str], rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """The rules that these versions break."""
    return tuple(rule for rule in rules if not rule.holds(facts))


def chains(broken: Sequence[Rule]) -> list[tuple[Rule, ...]]:
    """Broken rules that share a component belong together."""
    groups: list[tuple[Rule, ...]] = []
    for rule in broken:
        touching = [g for g in groups if any(set(r.components) & set(rule.components) for r in g)]
        groups = [g for g in groups if g not in touching]
        groups.append((*itertools.chain.from_iterable(touching), rule))
    return groups


def solve(
    facts: Mapping[str, str], rules: Sequence[Rule], known: Mapping[str, Component]
) -> Solution | None:
    """The fewest changes after which no rule is broken; None where none is found.

    Uniform-cost search that always mends the first broken rule. Of as many changes the cheaper
    ones win (a wheel before a driver), then the nearer versions.
    """
    queue: list[tuple[Cost, Changes]] = [((0, 0, 0), ())]
    seen: set[Changes] = {()}
    for _ in range(LIMIT):
        if not queue:
            return None
        cost, changed = heapq.heappop(queue)
        now = _applied(facts, changed)
        broken = next((rule for rule in rules if not rule.holds(now)), None)
        if broken is None:
            return Solution(tuple(_change(name, v, facts, known) for name, v in changed))
        for name, version, step in _mends(broken, now, {n for n, _ in changed}, known):
            after = tuple(sorted([*changed, (name, version)]))
            if after not in seen:
                seen.add(after)
                total = (cost[0] + step[0], cost[1] + step[1], cost[2] + step[2])
                heapq.heappush(queue, (total, after))
    return None


def _mends(
    rule: Rule, now: Mapping[str, str], done: set[str], known: Mapping[str, Component]
) -> Iterator[tuple[str, str, Cost]]:
    """Changes of one component that mend the rule, or (of two that go together) may begin to."""
    for name in dict.fromkeys(rule.components):
        row = known.get(name)
        if row is None or not row.cost or name in done:
            continue
        half = rule.same and name != rule.component  # the other one follows
        for version, distance in _nearest(row, now.get(name)):
            if half or rule.holds({**now, name: version}):
                yield name, version, (1, row.cost, distance)
        if row.remove and name in now:
            yield name, "", (_REMOVAL, row.cost, 0)


def _nearest(component: Component, current: str | None) -> Iterator[tuple[str, int]]:
    """Other known versions with their distance; every upgrade is nearer than any downgrade."""
    versions = sorted({*component.versions, *([current] if current else [])}, key=key)
    here = versions.index(current) if current else len(versions)
    for place, version in enumerate(versions):
        if version != current:
            yield version, abs(place - here) + (len(versions) if place < here else 0)


def _applied(facts: Mapping[str, str], changed: Sequence[tuple[str, str]]) -> dict[str, str]:
    now = {**facts, **dict(changed)}
    return {name: version for name, version in now.items() if version}


def _change(
    name: str, version: str, facts: Mapping[str, str], known: Mapping[str, Component]
) -> Change:
    row = known[name]
    command = row.change.format(version=version) if version else row.remove
    return Change(name, facts.get(name, ""), version, command)
