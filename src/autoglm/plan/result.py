"""From labels and groups to the Plan that people read: partitions, boundaries, priced fallbacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoglm.catalog.roofline import BANDWIDTH_SHARE, PEAK_SHARE, Machine
from autoglm.messages import tr
from autoglm.plan.cost import Side, boundary_kinds
from autoglm.plan.graph import Graph, Node
from autoglm.plan.options import REFERENCE, Options
from autoglm.plan.partition import Group, Solution, crossed
from autoglm.plan.problem import PICO, UNPLACED, Problem
from autoglm.spec import Boundary, Constraint, Fallback, Partition, Plan, Verdict


@dataclass(frozen=True, slots=True)
class Setting:
    """What every plan of one question shares."""

    graph: Graph
    options: Options
    problem: Problem
    sides: Sequence[Side]
    precision: str
    machines: Sequence[Machine]  # [label]: whose speeds priced it


def build_plan(
    setting: Setting, solution: Solution, *, greedy: Solution, violations: Sequence[str] = ()
) -> Plan:
    """The solution in words and seconds; `greedy` says what absorbing nodes saves."""
    graph, problem = setting.graph, setting.problem
    groups = [g for g in solution.groups if g.label != UNPLACED]
    group_of = [UNPLACED] * problem.size
    for number, group in enumerate(groups):
        for node in group.nodes:
            group_of[node] = number
    edges = crossed(problem, solution.labels, group_of)
    partitions = _partitions(setting, groups, group_of)
    boundaries = _boundaries(setting, groups, edges)
    seconds = sum(p.seconds for p in partitions) + sum(b.seconds for b in boundaries)
    shares = _shares(setting, groups, edges)
    used = tuple(dict.fromkeys(g.label for g in groups))
    saving = (true_cost(problem, greedy) - true_cost(problem, solution)) / PICO
    fallbacks = (
        _fallback(setting, node, solution.labels[i], shares[group_of[i]], saving)
        for i, node in enumerate(graph.nodes)
        if solution.labels[i] != UNPLACED
    )
    return Plan(
        backend=problem.backends[0],
        precision=setting.precision,
        partitions=partitions,
        boundaries=boundaries,
        refusals=setting.options.refusals,
        fallbacks=tuple(f for f in fallbacks if f is not None),
        unplaced=tuple(
            n.name for n, b in zip(graph.nodes, solution.labels, strict=True) if b == UNPLACED
        ),
        violations=tuple(violations),
        seconds=seconds,
        uncertainty=max(setting.machines[b].uncertainty for b in used or (0,)),
        notes=tuple(n for b in used for n in _notes(setting, b)),
    )


def _notes(setting: Setting, label: int) -> tuple[str, ...]:
    """Where times are no measurement's: from which chip, how far off they may be, what is blind."""
    machine = setting.machines[label]
    if not machine.chip:
        return ()
    backend = setting.problem.backends[label]
    lead = tr(
        "Times of {backend} are {source}, not measured: {peak:.0%} of its peak, {bandwidth:.0%} of "
        "its bandwidth; within x{factor:g}.",
        backend=backend,
        source=machine.source,
        peak=PEAK_SHARE,
        bandwidth=BANDWIDTH_SHARE,
        factor=1 + machine.uncertainty,
    )
    names = ", ".join(machine.recalled)
    recalled = tr("Of {chip}, recalled and not verified: {names}.", chip=machine.chip, names=names)
    assumed = (tr("Of {chip}, {text}.", chip=machine.chip, text=text) for text in machine.assumed)
    return (lead, *assumed, *((recalled,) if names else ()))


def true_cost(problem: Problem, solution: Solution) -> int:
    """Predicted picoseconds, without the penalty for leaving the primary."""
    return solution.cost - sum(
        problem.penalty[node] for node, label in enumerate(solution.labels) if label > 0
    )


def _partitions(
    setting: Setting, groups: Sequence[Group], group_of: Sequence[int]
) -> tuple[Partition, ...]:
    graph, problem = setting.graph, setting.problem
    index = setting.options.index
    outputs = set(graph.outputs)
    home = {t.name: group_of[index[t.producer]] if t.producer else UNPLACED for t in graph.tensors}
    leaves = {
        t.name
        for t in graph.tensors
        if t.name in outputs
        or (t.producer and any(group_of[index[c]] != home[t.name] for c in t.consumers))
    }
    found = []
    for number, group in enumerate(groups):
        nodes = [graph.nodes[i] for i in group.nodes]
        reads = dict.fromkeys(t for n in nodes for t in n.inputs)
        side = setting.sides[group.label]
        time = problem.dispatch[group.label] + sum(
            problem.times[group.label][i] for i in group.nodes
        )
        found.append(
            Partition(
                id=f"p{number}",
                backend=side.backend,
                nodes=tuple(n.name for n in nodes),
                inputs=tuple(t for t in reads if home.get(t, UNPLACED) != number),
                outputs=tuple(t for n in nodes for t in n.outputs if t in leaves),
                precision=side.precision,
                seconds=time / PICO,
                layout=side.layout,
                chip=setting.machines[group.label].chip,
            )
        )
    return tuple(found)


def _boundaries(
    setting: Setting, groups: Sequence[Group], edges: Sequence[tuple[int, int, int, int]]
) -> tuple[Boundary, ...]:
    tensors = {t.name: t for t in setting.graph.tensors}
    found = []
    for crossing, home, away, price in edges:
        tensor = tensors[setting.problem.crossings[crossing].name]
        ends = setting.sides[groups[home].label], setting.sides[groups[away].label]
        kinds = boundary_kinds(*ends, tensor.dtype, tensor.rank)
        found.append(
            Boundary(
                tensor.name, f"p{home}", f"p{away}", tensor.bytes, "+".join(kinds), price / PICO
            )
        )
    return tuple(found)


def _shares(
    setting: Setting, groups: Sequence[Group], edges: Sequence[tuple[int, int, int, int]]
) -> list[float]:
    """Per group, each node's share of its session call and its boundaries.

    A boundary counts for the side that fell back; where both or neither did, half for each.
    """
    owed = [float(setting.problem.dispatch[g.label]) for g in groups]
    for _, home, away, price in edges:
        fell = [g for g in (home, away) if groups[g].label != 0] or [home, away]
        for group in fell:
            owed[group] += price / len(fell)
    return [o / len(g.nodes) / PICO for o, g in zip(owed, groups, strict=True)]


def _fallback(
    setting: Setting, node: Node, label: int, share: float, saving: float
) -> Fallback | None:
    """None where the node runs as asked: on the primary, or where it is pinned."""
    options, problem = setting.options, setting.problem
    index = options.index[node.name]
    wanted = options.pinned.get(node.name, problem.backends[0])
    placed = problem.backends[label]
    here = options.verdicts[index][label]
    if placed == wanted and here.verdict is Verdict.YES:
        return None
    reason, constraint = _reason(setting, index, label, wanted, saving)
    return Fallback(
        node.name,
        node.op,
        wanted,
        placed,
        reason,
        constraint,
        problem.times[label][index] / PICO + share,
    )


def _reason(
    setting: Setting, index: int, label: int, wanted: str, saving: float
) -> tuple[str, str]:
    options = setting.options
    placed = options.backends[label]
    asked = options.verdicts[index][options.backends.index(wanted)]
    here = options.verdicts[index][label]
    constraint = asked.constraint.value if asked.constraint else ""
    parts = [asked.reason]
    if asked.ok:
        constraint = "absorbed"
        parts = [_absorbed(wanted, placed, saving)]
    elif asked.verdict is Verdict.UNKNOWN:
        constraint = constraint or "unknown"
        parts = [tr("unknown: not measured"), asked.reason]
    if placed != wanted and here.verdict is Verdict.UNKNOWN:
        parts.append(tr("on {placed} it is unknown: not measured", placed=placed))
    elif placed != wanted and here.constraint is Constraint.PRECISION:
        parts.append(tr("on {placed} it runs in fp32", placed=placed))
    if placed != wanted and placed == REFERENCE:
        parts.append(tr("it runs on the onnx reference evaluator, which is slow"))
    return tr("; ").join(filter(None, parts)), constraint


def _absorbed(wanted: str, placed: str, saving: float) -> str:
    text = tr(
        "{wanted} takes it, but it is cheaper beside its neighbours on {placed}",
        wanted=wanted,
        placed=placed,
    )
    if saving <= 0:
        return text
    return text + tr("; all such moves together save {saving:.3g} us", saving=1e6 * saving)
