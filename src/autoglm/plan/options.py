"""Which backends may take each node, in what precision, and every refusal with its first reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from autoglm.errors import BackendNotFoundError
from autoglm.messages import tr
from autoglm.plan.graph import Graph, Node
from autoglm.spec import Capabilities, Constraint, Refusal, Support, Verdict, no, unknown, yes

# The order in which CPU engines are asked under the policy "cpu".
CPU_ENGINES = ("onnxruntime", "openvino", "torch", "numpy")
REFERENCE = "reference"


@dataclass(frozen=True, slots=True)
class Options:
    """Per node, the labels (indices into `backends`) it may take; empty where nothing takes it.

    Only the best tier is kept: a plain yes; else a yes in fp32 where the precision asked for is
    refused; else the reference evaluator's yes; else the CPU engines whose answer is unknown, which
    compiling tries. A chip is never given a node on a guess, nor is any engine where no fallback is
    allowed; a pin is what asks for that.
    """

    index: Mapping[str, int]  # node -> its place in the graph
    backends: tuple[str, ...]  # the primary first, then the policy's, then those only pinned to
    precisions: tuple[str, ...]  # of each backend's partitions
    labels: tuple[tuple[int, ...], ...]
    verdicts: tuple[tuple[Support, ...], ...]  # [node][backend], at the precision asked for
    pinned: Mapping[str, str] = field(default_factory=dict)  # node -> backend, where it is obeyed
    refusals: tuple[Refusal, ...] = ()
    violations: tuple[str, ...] = ()


def candidates(
    backend: str,
    policy: str | Sequence[str],
    tables: Mapping[str, Capabilities],
    *,
    allow_reference: bool,
) -> tuple[str, ...]:
    """The primary, then the backends that the policy lets nodes fall back to."""
    if policy == "error":
        chosen: list[str] = []
    elif policy == "cpu":
        chosen = [name for name in CPU_ENGINES if name in tables]
        chosen += [REFERENCE] if allow_reference and REFERENCE in tables else []
    else:
        chosen = [policy] if isinstance(policy, str) else list(policy)
    names = tuple(dict.fromkeys((backend, *chosen)))
    for name in names:
        if name not in tables:
            raise BackendNotFoundError(
                "The plan needs a capability table for {name!r}; given: {known}.",
                hint="`autoglm backends` lists the backends that are registered.",
                name=name,
                known=", ".join(sorted(tables)) or "none",
            )
    return names


def choose_options(
    graph: Graph,
    tables: Mapping[str, Capabilities],
    names: Sequence[str],
    *,
    precision: str,
    pins: Mapping[str, str],
    forbid: Sequence[str],
    triers: Sequence[str] = (*CPU_ENGINES, REFERENCE),
) -> Options:
    """Ask every table about every node; pins and forbidden fallbacks narrow what is allowed.

    `triers`: backends that may be given what they are not known to take.
    """
    wanted = {n.name: pin for n in graph.nodes if (pin := _pin(n, pins)) is not None}
    allowed = len(names)
    known = [b for _, b in wanted.values() if b in tables]
    backends = tuple(dict.fromkeys((*names, *known)))
    precise = [_precision(tables[b], precision, primary=i == 0) for i, b in enumerate(backends)]
    verdicts = _verdicts(graph, [tables[b] for b in backends], precise)
    labels: list[tuple[int, ...]] = []
    pinned: dict[str, str] = {}
    violations: dict[str, None] = {}
    for node, row in zip(graph.nodes, verdicts, strict=True):
        options = _best_tier(row, precise, backends[:allowed], triers)
        if node.name in wanted:
            pattern, target = wanted[node.name]
            sentence = _pin_violation(node, pattern, target, backends, row, precise)
            if sentence:
                violations[sentence] = None
            else:
                options = (backends.index(target),)
                pinned[node.name] = target
        elif 0 in options and any(fnmatchcase(node.op, p) for p in forbid):
            options = (0,)
        labels.append(options)
    return Options(
        {n.name: i for i, n in enumerate(graph.nodes)},
        backends,
        tuple(p.runs_in for p in precise),
        tuple(labels),
        verdicts,
        pinned,
        _refusals(graph, verdicts, backends, allowed, pinned),
        tuple(violations),
    )


def triers_of(backend: str, device: str, policy: str | Sequence[str]) -> tuple[str, ...]:
    """The engines that may try a node: on the CPU a wrong guess costs a compilation and no more.

    The primary is none of them where its device is a chip (`npu:0`, `GPU`), nor is any under the
    policy "error".
    """
    cpu = device.partition(":")[0].lower() in ("", "cpu", "meta") or device.isdecimal()
    known = () if policy == "error" else (*CPU_ENGINES, REFERENCE)
    return tuple(name for name in known if cpu or name != backend)


@dataclass(frozen=True, slots=True)
class _Precision:
    support: Support  # at the precision asked for
    runs_in: str  # what its partitions are compiled in
    in_fp32: bool = False  # it refuses that precision, but may still help out in fp32

    def rescues(self, verdict: Support) -> bool:
        """Whether only the precision stands against a node that this backend takes in fp32."""
        return self.in_fp32 and verdict is self.support


def _precision(table: Capabilities, precision: str, *, primary: bool) -> _Precision:
    asked = precision_support(table, precision)
    if asked.verdict is Verdict.NO and not primary and precision_support(table, "fp32").ok:
        return _Precision(asked, "fp32", True)
    return _Precision(asked, precision)


def precision_support(table: Capabilities, precision: str) -> Support:
    """Whether a backend computes in `precision`; a silent table means fp32."""
    found = table.precisions.get(precision)
    if found is None:
        if precision == "fp32":
            return yes()
        return unknown(
            tr(
                "{toolkit}'s table does not say whether it runs in {precision}",
                toolkit=table.toolkit,
                precision=precision,
            ),
            Constraint.PRECISION,
        )
    if found.ok:
        return found
    reason = found.reason or tr(
        "{toolkit} does not run in {precision}", toolkit=table.toolkit, precision=precision
    )
    return Support(found.verdict, Constraint.PRECISION, reason, found.evidence)


def _verdicts(
    graph: Graph, tables: Sequence[Capabilities], precise: Sequence[_Precision]
) -> tuple[tuple[Support, ...], ...]:
    asked = [(t.at(p.runs_in), p) for t, p in zip(tables, precise, strict=True)]
    columns = [
        _memory(graph, table, [_both(table.support(n.facts), at) for n in graph.nodes])
        for table, at in asked
    ]
    return tuple(zip(*columns, strict=True)) if graph.nodes else ()


def _both(node: Support, at: _Precision) -> Support:
    # The operator's own refusal is named first: no choice of precision would mend it.
    if node.verdict is Verdict.NO or at.support.ok:
        return node
    if node.ok or (at.support.verdict is Verdict.NO and not at.in_fp32):
        return at.support
    return node


def _memory(graph: Graph, table: Capabilities, column: list[Support]) -> list[Support]:
    """Refuse, in graph order, the nodes from which on weights and live activations are too much."""
    limit = table.memory_bytes
    if limit is None and table.chip is not None:
        limit = table.chip.memory_bytes
    if limit is None:
        return column
    sizes = {t.name: t.bytes for t in graph.tensors}
    uses = {t.name: len(t.consumers) for t in graph.tensors}
    held: set[str] = set()
    live = sum(t.bytes for t in graph.tensors if not t.producer)
    weights = peak = 0
    result = []
    for node, verdict in zip(graph.nodes, column, strict=True):
        if verdict.verdict is not Verdict.NO:
            made = sum(sizes.get(t, 0) for t in node.outputs)
            more = sum(graph.weights.get(w, 0) for w in set(node.weights) - held)
            need = weights + more + max(peak, live + made)
            if need > limit:
                verdict = no(Constraint.MEMORY, _memory_text(table, need, limit), table.evidence)
            else:
                weights, live = weights + more, live + made
                peak = max(peak, live)
                held.update(node.weights)
        for name in dict.fromkeys(node.inputs):
            uses[name] = uses.get(name, 1) - 1
            if not uses[name]:
                live -= min(live, sizes.get(name, 0))
        result.append(verdict)
    return result


def _memory_text(table: Capabilities, need: int, limit: int) -> str:
    return tr(
        "{backend} holds {limit} bytes of weights and activations; the nodes up to this one need "
        "{need}",
        backend=table.backend,
        limit=limit,
        need=need,
    )


def _best_tier(
    row: Sequence[Support],
    precise: Sequence[_Precision],
    backends: Sequence[str],
    triers: Sequence[str],
) -> tuple[int, ...]:
    tiers: list[list[int]] = [[], [], [], []]
    for label, backend in enumerate(backends):
        verdict = row[label]
        rescued = precise[label].rescues(verdict)
        if verdict.ok or rescued:
            last = backend == REFERENCE and label > 0
            tiers[2 if last else int(rescued)].append(label)
        elif verdict.verdict is Verdict.UNKNOWN and backend in triers:
            tiers[3].append(label)
    return tuple(next((t for t in tiers if t), []))


def _pin(node: Node, pins: Mapping[str, str]) -> tuple[str, str] | None:
    for pattern, backend in pins.items():
        if fnmatchcase(node.name, pattern) or fnmatchcase(node.op, pattern):
            return pattern, backend
    return None


def _pin_violation(
    node: Node,
    pattern: str,
    target: str,
    backends: Sequence[str],
    row: Sequence[Support],
    precise: Sequence[_Precision],
) -> str:
    if target not in backends:
        return tr(
            "Pin {pattern!r} names backend {target!r}, which has no capability table here.",
            pattern=pattern,
            target=target,
        )
    label = backends.index(target)
    verdict = row[label]
    if verdict.verdict is not Verdict.NO or precise[label].rescues(verdict):
        return ""
    return tr(
        "Pin {pattern!r} asks for {target}, which refuses node {node!r}: {reason}.",
        pattern=pattern,
        target=target,
        node=node.name,
        reason=verdict.reason,
    )


def _refusals(
    graph: Graph,
    verdicts: Sequence[Sequence[Support]],
    backends: Sequence[str],
    allowed: int,
    pinned: Mapping[str, str],
) -> tuple[Refusal, ...]:
    found = []
    for node, row in zip(graph.nodes, verdicts, strict=True):
        for label, verdict in enumerate(row):
            relevant = label < allowed or pinned.get(node.name) == backends[label]
            if relevant and not verdict.ok:
                constraint = verdict.constraint.value if verdict.constraint else ""
                found.append(
                    Refusal(
                        node.name,
                        node.op,
                        backends[label],
                        verdict.verdict,
                        constraint,
                        verdict.reason,
                        verdict.evidence,
                    )
                )
    return tuple(found)
