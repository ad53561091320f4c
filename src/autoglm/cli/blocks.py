"""What the drawing shows: every node, or runs and whole partitions where they are many."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from autoglm.plan.graph import Graph
from autoglm.spec import Plan

MOST = 300
_SHOWN_NAMES = 8


@dataclass(frozen=True, slots=True)
class Block:
    """One box: a node, or several nodes of one partition."""

    label: str
    partition: str
    nodes: tuple[str, ...]
    lines: tuple[str, ...] = field(default=())
    alarm: str = ""  # fallback, unknown or unplaced


def blocks_of(
    graph: Graph, plan: Plan, most: int = MOST
) -> tuple[list[Block], list[tuple[int, int]]]:
    """Boxes in topological order and the edges between them; at most `most` where possible."""
    home = {name: p.id for p in plan.partitions for name in p.nodes}
    names = [node.name for node in graph.nodes]
    for group in (_each, _runs, _partitions):
        groups = group(graph, home)
        if len(set(groups.values())) <= most or group is _partitions:
            break
    order = _topological(list(dict.fromkeys(groups[n] for n in names)), _edges(graph, groups))
    number = {group: i for i, group in enumerate(order)}
    members: dict[str, list[str]] = {group: [] for group in order}
    for name in names:
        members[groups[name]].append(name)
    ops = {node.name: node.op for node in graph.nodes}
    lines, alarms = _remarks(plan)
    boxes = [_block(members[g], home, ops, lines, alarms) for g in order]
    edges = [(number[a], number[b]) for a, b in _edges(graph, groups)]
    return boxes, [(a, b) for a, b in edges if a < b]


def _each(graph: Graph, home: Mapping[str, str]) -> dict[str, str]:
    return {node.name: node.name for node in graph.nodes}


def _runs(graph: Graph, home: Mapping[str, str]) -> dict[str, str]:
    """Chains of one partition in which each node feeds only the next."""
    after: dict[str, set[str]] = {}
    before: dict[str, set[str]] = {}
    for tensor in graph.tensors:
        for consumer in tensor.consumers:
            if tensor.producer:
                after.setdefault(tensor.producer, set()).add(consumer)
                before.setdefault(consumer, set()).add(tensor.producer)
    groups: dict[str, str] = {}
    for node in graph.nodes:
        feeders = before.get(node.name, set())
        one = next(iter(feeders)) if len(feeders) == 1 else ""
        joins = one and len(after[one]) == 1 and home.get(one) == home.get(node.name)
        groups[node.name] = groups[one] if joins else node.name
    return groups


def _partitions(graph: Graph, home: Mapping[str, str]) -> dict[str, str]:
    return {node.name: home.get(node.name, "") or node.name for node in graph.nodes}


def _edges(graph: Graph, groups: Mapping[str, str]) -> list[tuple[str, str]]:
    found = {
        (groups[t.producer], groups[c]): None
        for t in graph.tensors
        if t.producer in groups
        for c in t.consumers
        if groups[c] != groups[t.producer]
    }
    return list(found)


def _topological(groups: Sequence[str], edges: Sequence[tuple[str, str]]) -> list[str]:
    """Groups in an order that every edge follows; partitions are convex, so there is one."""
    waiting = dict.fromkeys(groups, 0)
    after: dict[str, list[str]] = {}
    for source, target in edges:
        waiting[target] += 1
        after.setdefault(source, []).append(target)
    ready = [g for g in groups if not waiting[g]]
    for group in ready:
        for target in after.get(group, ()):
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    return [*ready, *(g for g in groups if g not in set(ready))]


def _remarks(plan: Plan) -> tuple[dict[str, list[str]], dict[str, str]]:
    from autoglm.cli.words import seconds
    from autoglm.messages import tr

    lines: dict[str, list[str]] = {}
    alarms: dict[str, str] = {}
    for refusal in plan.refusals:
        text = f"{refusal.backend}: {refusal.verdict.value}, {refusal.reason} ({refusal.evidence})"
        lines.setdefault(refusal.node, []).append(text)
    for fallback in plan.fallbacks:
        price = tr("fallback to {placed}, price {price}", placed=fallback.placed, price="{price}")
        text = price.replace("{price}", seconds(fallback.seconds))
        lines.setdefault(fallback.node, []).append(text)
        alarms[fallback.node] = "fallback"
    for name in plan.unplaced:
        lines.setdefault(name, []).append(tr("no backend takes it"))
        alarms[name] = "unplaced"
    return lines, alarms


def _block(
    names: Sequence[str],
    home: Mapping[str, str],
    ops: Mapping[str, str],
    lines: Mapping[str, Sequence[str]],
    alarms: Mapping[str, str],
) -> Block:
    first = names[0]
    alarm = next((alarms[n] for n in names if n in alarms), "")
    remarks = [line for n in names for line in lines.get(n, ())]
    if len(names) == 1:
        return Block(ops[first], home.get(first, ""), tuple(names), tuple(remarks), alarm)
    most = sorted({ops[n] for n in names}, key=lambda op: -_count(names, ops.get, op))
    label = f"{len(names)} × {', '.join(most[:2])}{'…' if len(most) > 2 else ''}"
    return Block(label, home.get(first, ""), tuple(names), tuple(remarks[:_SHOWN_NAMES]), alarm)


def _count(names: Sequence[str], op_of: Callable[[str], str | None], op: str) -> int:
    return sum(op_of(name) == op for name in names)
