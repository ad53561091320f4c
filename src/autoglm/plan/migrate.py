"""One model on two chips, side by side: what is lost, forced and unknown; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from autoglm.messages import tr
from autoglm.plan.graph import Graph
from autoglm.plan.options import precision_support
from autoglm.spec import (
    Capabilities,
    Chip,
    Constraint,
    Evidence,
    Fit,
    Plan,
    Refusal,
    Support,
    Verdict,
)

GO: Mapping[Fit, str] = {Fit.FITS: "GO", Fit.FALLBACKS: "GO WITH FALLBACKS", Fit.NO: "NO-GO"}
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
# What takes the place of a precision that a chip lacks: first what costs the least accuracy.
_SUBSTITUTES: Mapping[str, tuple[str, ...]] = {
    "fp32": ("fp16", "bf16"),
    "fp16": ("fp32", "bf16"),
    "bf16": ("fp32", "fp16"),
    "int8": ("fp16", "bf16", "fp32"),
    "int8-dynamic": ("fp16", "bf16", "fp32"),
}
_SIZE = {"fp16": 0.5, "bf16": 0.5, "int8": 0.25}  # of a float32 tensor
_CONFLICTS = (
    Constraint.DTYPE,
    Constraint.OPSET,
    Constraint.LAYOUT,
    Constraint.RANK,
    Constraint.SHAPE,
    Constraint.ATTRIBUTE,
    Constraint.MEMORY,
)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one chip's table says of the prepared model, and the plan that followed."""

    target: str  # as it was named: backend, or backend:chip
    table: Capabilities
    asked: str  # the precision asked for; the plan has the one that the chip allows
    verdicts: Mapping[str, Support]  # of each node of the prepared model
    ops: Mapping[str, str]  # node of the prepared model -> its operator
    rewritten: Mapping[str, str]  # node -> the rule that took it apart
    graph: Graph  # as taken apart for this chip
    plan: Plan

    @property
    def used(self) -> bool:
        """Whether anything runs on the chip."""
        return any(p.backend == self.plan.backend for p in self.plan.partitions)

    @property
    def fit(self) -> Fit:
        """The plan's verdict; a chip on which nothing runs is no fit, nor one that forces another
        precision a plain one.
        """
        if not self.used:
            return Fit.NO
        if self.plan.fit is Fit.FITS and self.plan.precision != self.asked:
            return Fit.FALLBACKS
        return self.plan.fit

    def takes(self, node: str) -> bool:
        """Whether the chip runs that node, as it is or taken apart."""
        return self.verdicts[node].ok or node in self.rewritten


@dataclass(frozen=True, slots=True)
class OpChange:
    """Nodes of one operator that one chip takes and the other does not, and why not."""

    op: str
    nodes: tuple[str, ...]
    verdict: Verdict
    constraint: str
    reason: str
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Conflict:
    """Something that the chip wants otherwise than the model has it."""

    kind: str  # dtype, opset, layout, alignment, rank, shape, attribute, memory, precision
    text: str
    nodes: int


@dataclass(frozen=True, slots=True)
class FallbackGroup:
    """Nodes of one operator that leave the chip for one reason, and what that costs."""

    op: str
    nodes: tuple[str, ...]
    placed: str
    constraint: str
    reason: str
    evidence: str  # of the refusal; "unknown" where nobody knows
    seconds: float


def legal_precision(table: Capabilities, asked: str) -> str:
    """The precision asked for where the chip has it, else the nearest that it has."""
    choices = (asked, *_SUBSTITUTES.get(asked, ()))
    return next((p for p in choices if precision_support(table, p).ok), asked)


def changes(have: Evaluation, lack: Evaluation) -> tuple[OpChange, ...]:
    """What `have` takes and `lack` does not, by operator and reason."""
    nodes = [n for n in lack.ops if have.takes(n) and not lack.takes(n)]
    found = []
    for (op, _, reason), names in _grouped(nodes, lambda n: _key(lack, n)):
        verdict = lack.verdicts[names[0]]
        limit = verdict.constraint.value if verdict.constraint else ""
        found.append(OpChange(op, names, verdict.verdict, limit, reason, verdict.evidence))
    return tuple(sorted(found, key=lambda c: (-len(c.nodes), c.op)))


def _key(side: Evaluation, node: str) -> tuple[str, str, str]:
    return side.ops[node], side.verdicts[node].verdict.value, side.verdicts[node].reason


def _grouped(items: Iterable[str], key: object) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    ordered = sorted(items, key=key)  # type: ignore[call-overload]
    return [(k, tuple(v)) for k, v in groupby(ordered, key=key)]  # type: ignore[call-overload]


def fallback_groups(plan: Plan) -> tuple[FallbackGroup, ...]:
    """The plan's fallbacks by operator and reason, the dearest first, each with its evidence."""
    known = {(r.node, r.backend): r for r in plan.refusals}
    groups: dict[tuple[str, ...], list[int]] = {}
    for i, f in enumerate(plan.fallbacks):
        groups.setdefault((f.op, f.placed, f.constraint, f.reason), []).append(i)
    found = []
    for (op, placed, constraint, reason), numbers in groups.items():
        rows = [plan.fallbacks[i] for i in numbers]
        refusal = known.get((rows[0].node, rows[0].wanted))
        names = tuple(f.node for f in rows)
        price = sum(f.seconds for f in rows)
        grade = evidence(refusal)
        found.append(FallbackGroup(op, names, placed, constraint, reason, grade, price))
    return tuple(sorted(found, key=lambda g: -g.seconds))


def evidence(refusal: Refusal | None) -> str:
    """How a refusal is known; a node that only cheaper neighbours drew away is inferred."""
    if refusal is None:
        return Evidence.INFERRED.value
    unknown = refusal.verdict is Verdict.UNKNOWN
    return Verdict.UNKNOWN.value if unknown else refusal.evidence.value


def conflicts(side: Evaluation, source: Evaluation, alignment: int) -> tuple[Conflict, ...]:
    """Dtypes, opsets, layouts, shapes, alignment and precision that do not fit as they are."""
    table, other = side.table, source.table
    found = [] if side.plan.precision == side.asked else [_precision_conflict(side)]
    if table.layouts[:1] != other.layouts[:1] and table.layouts and other.layouts:
        images = sum(t.rank in (4, 5) for t in side.graph.tensors)
        text = tr(
            "it prefers {layout}, {source} {other}: its compiler lays images out anew",
            layout=table.layouts[0],
            source=source.target,
            other=other.layouts[0],
        )
        found += [Conflict("layout", text, images)] if images else []
    given = max(alignment, other.alignment)
    if given % table.alignment:
        text = tr(
            "buffers are aligned to {given} bytes, its addresses are multiples of {alignment}",
            given=given,
            alignment=table.alignment,
        )
        found.append(Conflict("alignment", text, 0))
    return (*found, *_limits(side.plan))


def _precision_conflict(side: Evaluation) -> Conflict:
    reason = precision_support(side.table, side.asked).reason
    return Conflict("precision", f"{forced(side)} ({reason})", len(side.graph.nodes))


def _limits(plan: Plan) -> list[Conflict]:
    kinds = {c.value for c in _CONFLICTS}
    found: dict[tuple[str, str], int] = {}
    for r in plan.refusals:
        if r.backend == plan.backend and r.constraint in kinds and r.verdict is Verdict.NO:
            key = (r.constraint, r.reason)
            found[key] = found.get(key, 0) + 1
    return [Conflict(kind, reason, count) for (kind, reason), count in sorted(found.items())]


def forced(side: Evaluation) -> str:
    """The precision that the chip forces, in words; "" where it has the one asked for."""
    if side.plan.precision == side.asked:
        return ""
    return tr(
        "{asked} is not on it: planned in {precision}",
        asked=side.asked,
        precision=side.plan.precision,
    )


def memory_need(graph: Graph, precision: str) -> int:
    """Weights and the most activations alive at once, the whole model on one chip."""
    sizes = {t.name: t.bytes for t in graph.tensors}
    uses = {t.name: len(t.consumers) for t in graph.tensors}
    live = sum(t.bytes for t in graph.tensors if not t.producer)
    peak = live
    for node in graph.nodes:
        live += sum(sizes.get(t, 0) for t in node.outputs)
        peak = max(peak, live)
        for name in dict.fromkeys(node.inputs):
            uses[name] = uses.get(name, 1) - 1
            live -= 0 if uses[name] else sizes.get(name, 0)
    return round((graph.weight_bytes + peak) * _SIZE.get(precision, 1.0))


def energy_joules(plan: Plan, chip: Chip | None) -> float | None:
    """Of one inference at the chip's rated power; None where no source gives that or none runs."""
    seconds = sum(p.seconds for p in plan.partitions if p.backend == plan.backend)
    if chip is None or chip.watts is None or not seconds:
        return None
    return chip.watts * seconds


def why(side: Evaluation) -> str:
    """The verdict's reasons in one line."""
    plan, count = side.plan, len(side.graph.nodes)
    parts = [forced(side)]
    if plan.unplaced:
        ops = {n.name: n.op for n in side.graph.nodes}
        lost = counted([ops[n] for n in plan.unplaced])
        parts.append(
            tr("no backend takes {count} nodes ({ops})", count=len(plan.unplaced), ops=lost)
        )
    if plan.fallbacks:
        share = 100 * sum(f.seconds for f in plan.fallbacks) / (plan.seconds or 1.0)
        parts.append(
            tr(
                "{count} of {nodes} nodes fall back ({ops}), {percent} % of the time",
                count=len(plan.fallbacks),
                nodes=count,
                ops=counted([f.op for f in plan.fallbacks]),
                percent=f"{min(share, 100):.0f}",
            )
        )
    unknown = sum(r.backend == plan.backend and r.verdict is Verdict.UNKNOWN for r in plan.refusals)
    if unknown:
        parts.append(tr("{count} are unknown, which is no yes", count=unknown))
    if not side.used:
        parts.append(tr("nothing of it would run on {backend}", backend=plan.backend))
    parts += plan.violations
    if side.fit is Fit.FITS:
        parts.append(
            tr("all {nodes} nodes run on it in {precision}", nodes=count, precision=plan.precision)
        )
    return "; ".join(filter(None, parts))


def counted(names: Sequence[str], most: int = 3) -> str:
    """`Erf ×6, Mod, …`: the most frequent first."""
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    order = sorted(counts, key=lambda n: (-counts[n], n))
    shown = [f"{n} ×{counts[n]}" if counts[n] > 1 else n for n in order[:most]]
    return ", ".join([*shown, *(["…"] if len(order) > most else [])])


def unknowns(side: Evaluation) -> tuple[str, ...]:
    """What nobody has measured or published of this chip, as far as this model asks for it."""
    asked = [
        n for n, s in side.verdicts.items() if s.verdict is Verdict.UNKNOWN and not side.takes(n)
    ]
    groups = sorted(_grouped(asked, lambda n: _key(side, n)), key=lambda g: -len(g[1]))
    found = [f"{op} ×{len(names)}: {reason}" for (op, _, reason), names in groups]
    for precision in PRECISIONS:
        support = precision_support(side.table, precision)
        if support.verdict is Verdict.UNKNOWN:
            found.append(f"{precision}: {support.reason}")
    figures = missing_figures(side)
    if figures and side.table.chip:
        names = ", ".join(figures)
        chip = side.table.chip.name
        found.append(tr("no source gives the {figures} of {chip}", figures=names, chip=chip))
    return tuple(found)


def missing_figures(side: Evaluation) -> tuple[str, ...]:
    """What the catalog does not say of the chip, so that its times and energy are rougher."""
    chip = side.table.chip
    if chip is None:
        return ()
    precision = side.plan.precision.removesuffix("-dynamic")
    figures = (
        (tr("memory"), chip.memory_bytes),
        (tr("bandwidth"), chip.bandwidth_gbps),
        (tr("power"), chip.watts),
        (tr("peak rate in {precision}", precision=precision), chip.peak_tflops.get(precision)),
    )
    return tuple(title for title, value in figures if value is None)
