"""Figures as people read them, and the facts of a report that both renderings group alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autoglm.messages import tr
from autoglm.spec import Alternative, Fallback, Partition, Plan, Refusal, Verdict


def seconds(value: float | None) -> str:
    """A duration: 12.3 ms."""
    if value is None or value != value:
        return "–"
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if abs(value) >= scale * 0.9995 or unit == "µs":
            return f"{value / scale:.3g} {unit}" if value else "0"
    return "0"


def place(part: Partition) -> str:
    """Where a partition runs, with the chip whose catalog figures its time is estimated from."""
    return f"{part.backend} ({part.chip})" if part.chip else part.backend


def within(plan: Plan) -> str:
    """How far off a prediction may be, and from which chips' catalog figures it is estimated."""
    low, high = plan.seconds / (1 + plan.uncertainty), plan.seconds * (1 + plan.uncertainty)
    chips = ", ".join(dict.fromkeys(p.chip for p in plan.partitions if p.chip))
    if not chips:
        return tr("within ×{factor}", factor=f"{1 + plan.uncertainty:.2g}")
    return tr(
        "{low} to {high}, estimated from the catalog: {chips}",
        low=seconds(low),
        high=seconds(high),
        chips=chips,
    )


def size(value: float) -> str:
    """Bytes: 1.5 MiB."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value:.0f} B"


def flops(value: float) -> str:
    """Floating-point operations: 3.6 GFLOP."""
    for unit, scale in (("TFLOP", 1e12), ("GFLOP", 1e9), ("MFLOP", 1e6), ("kFLOP", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value:.0f} FLOP"


def error(value: float | None) -> str:
    """A relative error: 1.2e-05."""
    return "–" if value is None else f"{value:.2g}"


def share(part: float, whole: float) -> float:
    """`part` of `whole`, from 0 to 1."""
    return max(0.0, min(1.0, part / whole)) if whole > 0 else 0.0


@dataclass(frozen=True, slots=True)
class RefusalGroup:
    """Nodes that one backend refuses for one reason."""

    backend: str
    op: str
    verdict: Verdict
    constraint: str
    reason: str
    evidence: str
    nodes: tuple[str, ...]


def grouped(refusals: Iterable[Refusal]) -> list[RefusalGroup]:
    """Refusals by backend, operator and reason, the most frequent first."""
    groups: dict[tuple[str, ...], list[Refusal]] = defaultdict(list)
    for r in refusals:
        groups[(r.backend, r.op, r.verdict.value, r.constraint, r.reason)].append(r)
    found = [
        RefusalGroup(
            first.backend,
            first.op,
            first.verdict,
            first.constraint,
            first.reason,
            first.evidence.value,
            tuple(r.node for r in rows),
        )
        for rows in groups.values()
        for first in rows[:1]
    ]
    return sorted(found, key=lambda g: (g.backend, -len(g.nodes), g.op))


def grouped_fallbacks(fallbacks: Iterable[Fallback]) -> list[list[Fallback]]:
    """Fallbacks of one operator to one place for one reason, the dearest first."""
    groups: dict[tuple[str, ...], list[Fallback]] = defaultdict(list)
    for f in fallbacks:
        groups[(f.op, f.wanted, f.placed, f.reason)].append(f)
    return sorted(groups.values(), key=lambda g: -sum(f.seconds for f in g))


def some(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    more = f" +{len(names) - most}" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def tail(name: str, most: int = 28) -> str:
    """A long name by its end, which tells nodes apart."""
    return name if len(name) <= most else "…" + name[1 - most :]


def greedy(plan: Plan) -> Alternative | None:
    """The plan that taking every supported node greedily would have given."""
    return next((a for a in plan.alternatives if a.name == "greedy"), None)
