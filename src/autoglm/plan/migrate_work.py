"""What to do for a chip, ordered by gain: each entry is what planning without that refusal brings.

One more plan an entry, so the price is linear in the number of entries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from autoglm.messages import tr
from autoglm.plan.migrate import Evaluation, counted
from autoglm.plan.options import precision_support
from autoglm.spec import Capabilities, Constraint, Fit, NodeFacts, Plan, Refusal, Support, Verdict

MOST = 12  # refused operators that are planned without, the dearest first
_ORDER = {Fit.FITS: 0, Fit.FALLBACKS: 1, Fit.NO: 2}
_LOWER = ("fp16", "bf16", "int8")


@dataclass(frozen=True, slots=True)
class Work:
    """One thing to do, and the plan's time and verdict once it is done."""

    action: str  # add, rewrite, measure, shapes, dtype, opset, memory, precision, pin, all
    text: str
    command: str  # "" where no command does it
    nodes: tuple[str, ...]  # () = the whole model
    gain_s: float  # negative where the verdict is bought with time
    seconds: float
    fit: Fit


class Replan(Protocol):
    """Plans the same graph for the same chip again, with something granted: nodes, a precision,
    more memory, or pins.
    """

    def __call__(
        self,
        *,
        granted: frozenset[str] = frozenset(),
        memory: bool = True,
        precision: str = "",
        pins: Mapping[str, str] | None = None,
    ) -> Plan: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered(Capabilities):
    """A table that was asked about every node already: planning again costs no more questions."""

    answers: Mapping[str, Support]

    def support(self, node: NodeFacts) -> Support:
        """What the table said."""
        return self.answers[node.name]


@dataclass(frozen=True, slots=True)
class Part:
    """A rule that takes an operator apart, and what of its parts the chip does not take."""

    rule: str
    lacks: tuple[str, ...]


def work_list(
    side: Evaluation, replan: Replan, *, rules: Mapping[str, Part], shapes: str
) -> tuple[Work, ...]:
    """Every action that would bring something, the best verdict and the largest gain first.

    `rules`: operator -> a rewrite that exists; `shapes`: the options that fix the open dimensions.
    """
    groups = _groups(side)[:MOST]
    found = [_entry(side, group, replan, rules, shapes) for group in groups]
    if len(groups) > 1:
        found.append(_together(side, groups, replan))
    now = _ORDER[side.fit]
    free = (*_pins(side, replan), *_precisions(side, replan), *_forced(side, replan))
    found += [w for w in free if w.gain_s > 0 or _ORDER[w.fit] < now]
    return tuple(sorted(found, key=lambda w: (_ORDER[w.fit], -w.gain_s)))


def _together(side: Evaluation, groups: Sequence[Sequence[Refusal]], replan: Replan) -> Work:
    every = [r for group in groups for r in group]
    memory = not any(r.constraint == Constraint.MEMORY for r in every)
    plan = replan(granted=frozenset(r.node for r in every), memory=memory)
    text = tr("All of {ops} together", ops=counted([r.op for r in every], most=MOST))
    return _work(side, "all", text, "", tuple(r.node for r in every), plan)


def _groups(side: Evaluation) -> list[list[Refusal]]:
    """The chip's refusals by operator and limit; those whose nodes cost most first.

    What is unknown is one group, for one command measures it all.
    """
    price = {f.node: f.seconds for f in side.plan.fallbacks}
    price.update(dict.fromkeys(side.plan.unplaced, side.plan.seconds))
    groups: dict[tuple[str, ...], list[Refusal]] = {}
    for r in side.plan.refusals:
        if r.backend == side.plan.backend and r.node in price:
            key = (r.op, r.constraint) if r.verdict is Verdict.NO else ()
            groups.setdefault(key, []).append(r)
    return sorted(groups.values(), key=lambda g: -sum(price[r.node] for r in g))


def _entry(
    side: Evaluation,
    group: Sequence[Refusal],
    replan: Replan,
    rules: Mapping[str, Part],
    shapes: str,
) -> Work:
    first, nodes = group[0], tuple(r.node for r in group)
    action, text, command = (
        _measure(group) if first.verdict is Verdict.UNKNOWN else _what(first, rules, shapes)
    )
    plan = replan(granted=frozenset(nodes), memory=first.constraint != Constraint.MEMORY)
    return _work(side, action, text, command, nodes, plan)


def _measure(group: Sequence[Refusal]) -> tuple[str, str, str]:
    text = tr("Measure {ops}: nobody knows whether they run", ops=counted([r.op for r in group]))
    return "measure", text, f"autoglm ops measure --backend {group[0].backend} -o packs/"


def _what(refusal: Refusal, rules: Mapping[str, Part], shapes: str) -> tuple[str, str, str]:
    op, backend, reason = refusal.op, refusal.backend, refusal.reason
    if (part := rules.get(op)) is not None and refusal.constraint == Constraint.OP:
        text = tr(
            "Replace {op} by the rewrite {rule}, once it takes {parts}",
            op=op,
            rule=part.rule,
            parts=counted(part.lacks),
        )
        return "rewrite", text, ""
    if refusal.constraint in (Constraint.SHAPE, Constraint.RANK) and shapes:
        return "shapes", tr("Fix the shapes of {op}: {reason}", op=op, reason=reason), shapes
    match refusal.constraint:
        case Constraint.DTYPE:
            return "dtype", tr("Change the dtype of {op}: {reason}", op=op, reason=reason), ""
        case Constraint.OPSET:
            return "opset", tr("Export {op} in another opset: {reason}", op=op, reason=reason), ""
        case Constraint.MEMORY:
            return "memory", tr("Make the model smaller: {reason}", reason=reason), ""
        case _:
            text = tr("Add {op} to {backend}: {reason}", op=op, backend=backend, reason=reason)
            return "add", text, ""


def _pins(side: Evaluation, replan: Replan) -> list[Work]:
    """Nodes that the chip takes, but that run elsewhere because it is cheaper there."""
    drawn = [f for f in side.plan.fallbacks if f.constraint == "absorbed"]
    if not drawn:
        return []
    backend = side.plan.backend
    nodes = tuple(f.node for f in drawn)
    plan = replan(pins=dict.fromkeys(nodes, backend))
    ops = counted([f.op for f in drawn])
    text = tr("Pin {ops} to {backend}, which takes them", ops=ops, backend=backend)
    command = " ".join(f"--pin {op}={backend}" for op in sorted({f.op for f in drawn}))
    return [_work(side, "pin", text, command, nodes, plan)]


def _precisions(side: Evaluation, replan: Replan) -> list[Work]:
    if not side.used:
        return []
    found = []
    for precision in _LOWER:
        if precision == side.plan.precision or not precision_support(side.table, precision).ok:
            continue
        plan = replan(precision=precision)
        text = tr("Run in {precision}; its accuracy is to be measured", precision=precision)
        found.append(_work(side, "precision", text, f"--precision {precision}", (), plan))
    return found


def _forced(side: Evaluation, replan: Replan) -> list[Work]:
    """The precision asked for, where nobody knows whether the chip has it."""
    support = precision_support(side.table, side.asked)
    if side.plan.precision == side.asked or support.verdict is not Verdict.UNKNOWN:
        return []
    text = tr("Measure {precision} on it: {reason}", precision=side.asked, reason=support.reason)
    return [_work(side, "measure", text, "", (), replan(precision=side.asked))]


def _work(
    side: Evaluation, action: str, text: str, command: str, nodes: tuple[str, ...], plan: Plan
) -> Work:
    asked = plan.precision if action == "precision" else side.asked
    fit = replace(side, plan=plan, asked=asked).fit
    return Work(action, text, command, nodes, side.plan.seconds - plan.seconds, plan.seconds, fit)
