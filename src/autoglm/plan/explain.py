"""A plan as sentences and as JSON: why a node runs where it does, what differs between two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from autoglm.errors import InputError
from autoglm.messages import tr
from autoglm.spec import (
    Alternative,
    Boundary,
    Evidence,
    Fallback,
    Partition,
    Plan,
    Refusal,
    Verdict,
)

_PARTS: Mapping[str, type] = {
    "partitions": Partition,
    "boundaries": Boundary,
    "refusals": Refusal,
    "fallbacks": Fallback,
    "alternatives": Alternative,
}
_LISTS = ("nodes", "inputs", "outputs")


def to_dict(plan: Plan) -> dict[str, Any]:
    """The plan as JSON values; `from_dict` gives it back."""
    return _plain(asdict(plan))  # type: ignore[no-any-return]


def from_dict(values: Mapping[str, Any]) -> Plan:
    """The plan that `to_dict` was given."""
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    for key, kind in _PARTS.items():
        fields[key] = tuple(kind(**_typed(part)) for part in values.get(key, ()))
    return Plan(**fields)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value.value if isinstance(value, Verdict | Evidence) else value


def _typed(part: Mapping[str, Any]) -> dict[str, Any]:
    typed = dict(part)
    if "verdict" in typed:
        typed["verdict"] = Verdict(typed["verdict"])
        typed["evidence"] = Evidence(typed["evidence"])
    for key in _LISTS:
        if isinstance(typed.get(key), list):
            typed[key] = tuple(typed[key])
    return typed


def placement(plan: Plan) -> dict[str, str]:
    """Node -> backend, "" where nothing takes it."""
    placed = {node: p.backend for p in plan.partitions for node in p.nodes}
    return {**placed, **dict.fromkeys(plan.unplaced, "")}


def why(plan: Plan, node: str) -> str:
    """Where a node runs, why there, and what that costs; one paragraph."""
    where = next((p for p in plan.partitions if node in p.nodes), None)
    if where is None and node not in plan.unplaced:
        raise InputError("The plan has no node named {node!r}.", node=node)
    refusals = [r for r in plan.refusals if r.node == node]
    if where is None:
        return tr(
            "{node} has no place: {reasons}.", node=node, reasons="; ".join(map(_refusal, refusals))
        )
    fallback = next((f for f in plan.fallbacks if f.node == node), None)
    if fallback is None:
        return tr(
            "{node} runs on {backend} ({id}), as asked.",
            node=node,
            backend=where.backend,
            id=where.id,
        )
    text = tr(
        "{node} ({op}) was wanted on {wanted} and runs on {placed} ({id}): {reason} [{constraint}];"
        " it takes {price} of {total}.",
        node=node,
        op=fallback.op,
        wanted=fallback.wanted,
        placed=fallback.placed,
        id=where.id,
        reason=fallback.reason,
        constraint=fallback.constraint,
        price=duration(fallback.seconds),
        total=duration(plan.seconds),
    )
    others = [r for r in refusals if r.backend not in (fallback.wanted, fallback.placed)]
    if not others:
        return text
    return text + tr(" Also asked: {reasons}.", reasons="; ".join(map(_refusal, others)))


_MOST = 5


def lacks(plan: Plan) -> tuple[str, ...]:
    """Why a plan does not fit, a sentence each: the limits it breaks, the nodes without a place."""
    sentences = [*plan.violations, *(why(plan, node) for node in plan.unplaced)]
    more = len(sentences) - _MOST
    rest = [tr("{count} more nodes have no place.", count=more)] if more > 0 else []
    return (*sentences[:_MOST], *rest)


def _refusal(refusal: Refusal) -> str:
    answer, evidence = refusal.verdict.value, refusal.evidence.value
    return f"{refusal.backend} says {answer}, {refusal.reason} ({evidence})"


def diff(old: Plan, new: Plan) -> tuple[str, ...]:
    """What changed from one plan to another, a sentence each; () where nothing did."""
    sentences = []
    if old.precision != new.precision:
        sentences.append(tr("Precision: {old} -> {new}.", old=old.precision, new=new.precision))
    sentences += _moves(old, new)
    sentences += _reasons(old, new)
    if len(old.partitions) != len(new.partitions):
        sentences.append(
            tr("Partitions: {old} -> {new}.", old=len(old.partitions), new=len(new.partitions))
        )
    if old.seconds != new.seconds:
        sentences.append(
            tr("Predicted: {old} -> {new}.", old=duration(old.seconds), new=duration(new.seconds))
        )
    sentences += [tr("Gone: {text}", text=v) for v in old.violations if v not in new.violations]
    sentences += [tr("New: {text}", text=v) for v in new.violations if v not in old.violations]
    return tuple(sentences)


def _moves(old: Plan, new: Plan) -> list[str]:
    before, after = placement(old), placement(new)
    sentences = []
    for node in dict.fromkeys((*before, *after)):
        a, b = before.get(node), after.get(node)
        if a is None:
            sentences.append(tr("{node} is new, on {place}.", node=node, place=b or "-"))
        elif b is None:
            sentences.append(tr("{node} is gone, it was on {place}.", node=node, place=a or "-"))
        elif a != b:
            sentences.append(tr("{node}: {old} -> {new}.", node=node, old=a or "-", new=b or "-"))
    return sentences


def _reasons(old: Plan, new: Plan) -> list[str]:
    before = {(r.node, r.backend): r for r in old.refusals}
    after = {(r.node, r.backend): r for r in new.refusals}
    sentences = [
        tr("{backend} now takes {node}.", backend=key[1], node=key[0])
        for key in before
        if key not in after and key[0] in placement(new)
    ]
    sentences += [
        tr(
            "{backend} now refuses {node}: {reason}.",
            backend=r.backend,
            node=r.node,
            reason=r.reason,
        )
        for key, r in after.items()
        if key not in before or before[key].reason != r.reason
    ]
    return sentences


def duration(seconds: float) -> str:
    """`950 ns`, `12.3 us`, `4.56 ms`, `1.2 s`."""
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if abs(seconds) * scale >= 1:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"
