"""The migration report: one model, prepared once, planned for its chip and for others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from autoglm import registry
from autoglm.errors import ConfigError
from autoglm.plan.migrate import (
    GO,
    PRECISIONS,
    Conflict,
    Evaluation,
    FallbackGroup,
    OpChange,
    changes,
    conflicts,
    energy_joules,
    fallback_groups,
    legal_precision,
    memory_need,
    missing_figures,
    unknowns,
    why,
)
from autoglm.plan.migrate_work import Answered, Part, Work, work_list
from autoglm.plan.options import precision_support
from autoglm.runtime.hardware import toolchain
from autoglm.runtime.prepare import Loaded, Planned, load, place, plan_for, table_fields
from autoglm.spec import (
    Capabilities,
    Chip,
    Constraint,
    Fit,
    NodeFacts,
    Plan,
    Support,
    TensorInfo,
    Value,
    Verdict,
    yes,
)
from autoglm.tensor.accuracy import tolerance

if TYPE_CHECKING:
    import onnx_ir as ir

    from autoglm.config import AdaptConfig
    from autoglm.plan.cost import Machine


@dataclass(frozen=True, slots=True)
class ChipReport:
    """What one chip makes of the model."""

    target: str
    backend: str
    chip: Chip | None
    fit: Fit
    why: str
    plan: Plan
    lost: tuple[OpChange, ...]  # what the source chip takes and this one does not
    gained: tuple[OpChange, ...]  # the other way round
    rewrites: Mapping[str, int]  # rule -> nodes that it took apart
    fallbacks: tuple[FallbackGroup, ...]
    precisions: Mapping[str, Support]
    tolerance: float  # largest relative error that its precision may bring; `compile` proves it
    conflicts: tuple[Conflict, ...]
    memory_need: int
    memory_bytes: int | None
    energy_j: float | None
    formats: tuple[str, ...]
    toolkit: str  # that the table holds for
    installed: str  # version that is here, "" where none is
    obtain: str  # how to get it, where it is not here
    unknown: tuple[str, ...]
    missing: tuple[str, ...]  # figures of the chip that no source gives
    notes: tuple[str, ...]  # what the prices rest on
    work: tuple[Work, ...]

    @property
    def verdict(self) -> str:
        """GO, GO WITH FALLBACKS or NO-GO."""
        return GO[self.fit]

    @property
    def latency(self) -> tuple[float, float]:
        """The least and the most seconds that the prediction allows."""
        factor = 1 + self.plan.uncertainty
        return self.plan.seconds / factor, self.plan.seconds * factor

    @property
    def rough(self) -> bool:
        """Whether its time rests on a guess: no source gives the rate or the bandwidth."""
        chip, precision = self.chip, self.plan.precision.removesuffix("-dynamic")
        return chip is not None and not (chip.bandwidth_gbps and chip.peak_tflops.get(precision))

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON."""
        plain = ("target", "backend", "why", "rewrites", "memory_need", "memory_bytes", "energy_j")
        plan = self.plan
        return {
            **{name: getattr(self, name) for name in plain},
            "verdict": self.verdict,
            "fit": self.fit.value,
            "chip": asdict(self.chip) if self.chip else None,
            "precision": plan.precision,
            "tolerance": self.tolerance,
            "precisions": {p: asdict(s) for p, s in self.precisions.items()},
            "seconds": plan.seconds,
            "seconds_range": list(self.latency),
            "rough": self.rough,
            "partitions": [asdict(p) for p in plan.partitions],
            "boundaries": [asdict(b) for b in plan.boundaries],
            "unplaced": list(plan.unplaced),
            "violations": list(plan.violations),
            "lost": [asdict(c) for c in self.lost],
            "gained": [asdict(c) for c in self.gained],
            "fallbacks": [asdict(f) for f in self.fallbacks],
            "conflicts": [asdict(c) for c in self.conflicts],
            "formats": list(self.formats),
            "toolkit": {"table": self.toolkit, "installed": self.installed, "obtain": self.obtain},
            "unknown": list(self.unknown),
            "missing": list(self.missing),
            "notes": list(self.notes),
            "work": [asdict(w) for w in self.work],
        }


@dataclass(frozen=True, slots=True)
class Migration:
    """One model on the chip it comes from and on those it may go to."""

    model: str
    digest: str
    precision: str  # asked for
    nodes: int
    flops: float
    inputs: tuple[TensorInfo, ...]
    source: ChipReport
    targets: tuple[ChipReport, ...]
    notes: tuple[str, ...]

    @property
    def fit(self) -> Fit:
        """The worst of the targets."""
        order = (Fit.NO, Fit.FALLBACKS, Fit.FITS)
        return min((t.fit for t in self.targets), key=order.index)

    def ratio(self, target: ChipReport) -> tuple[float, float, float] | None:
        """The target's predicted time over the source's: what is expected, least, most."""
        if not self.source.plan.seconds:
            return None
        low, high = self.source.latency
        least, most = target.latency
        return target.plan.seconds / self.source.plan.seconds, least / high, most / low

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON."""
        return {
            "model": self.model,
            "digest": self.digest,
            "precision": self.precision,
            "nodes": self.nodes,
            "flops": self.flops,
            "inputs": [asdict(i) for i in self.inputs],
            "fit": self.fit.value,
            "verdicts": {t.target: t.verdict for t in self.targets},
            "source": self.source.to_dict(),
            "targets": [{**t.to_dict(), "ratio": self.ratio(t)} for t in self.targets],
            "notes": list(self.notes),
        }


def migrate(
    source: object,
    from_: str,
    to: Sequence[str],
    config: AdaptConfig,
    *,
    example_inputs: Sequence[Value] | None = None,
) -> Migration:
    """Read and prepare the model once, then plan it for every chip; runs and compiles nothing."""
    from autoglm.rewrite.facts import node_facts
    from autoglm.runtime.machine import machine

    _require_free(config)
    chips = {name: _chip(name) for name in (from_, *to)}
    loaded = load(source, config, example_inputs=example_inputs)
    facts = node_facts(loaded.model)
    speeds = machine()
    sides = {n: _Side.of(loaded, facts, *chip, config, speeds) for n, chip in chips.items()}
    first = sides[from_]
    return Migration(
        model=loaded.name,
        digest=loaded.digest,
        precision=_asked(config),
        nodes=len(facts),
        flops=sum(n.flops for n in first.planned.graph.nodes),
        inputs=loaded.inputs,
        source=first.report(first, loaded),
        targets=tuple(sides[name].report(first, loaded) for name in dict.fromkeys(to)),
        notes=(*loaded.notes, *first.planned.graph.notes),
    )


def _require_free(config: AdaptConfig) -> None:
    if idle := sorted(config.model_fields_set & {"backend", "arch"}):
        raise ConfigError(
            "A migration report names its chips in --from and --to; {keys} would have no effect.",
            hint="Leave it out, or name the chip: --to sophon:BM1684X",
            keys=", ".join(idle),
        )


def _chip(name: str) -> tuple[str, str]:
    """`backend`, `backend:chip`, or a chip of the catalog, as backend and chip."""
    from autoglm.catalog.chips import find

    backend, _, arch = name.strip().partition(":")
    known = find(name) if backend not in registry.backends() else None
    if known is not None and known.backend in registry.backends():
        return known.backend, known.name
    return registry.backend(backend).name, arch


def _label(backend: str, chip: Chip | None) -> str:
    name = chip.name if chip else backend
    return name if backend in name.lower() else f"{backend} {name}"


def _asked(config: AdaptConfig) -> str:
    return "fp32" if config.precision == "auto" else config.precision


@dataclass(frozen=True, slots=True)
class _Side:
    """One chip's plan, and what planning it again needs."""

    evaluation: Evaluation
    planned: Planned
    config: AdaptConfig
    machine: Machine

    @classmethod
    def of(
        cls,
        loaded: Loaded,
        facts: Sequence[NodeFacts],
        backend: str,
        arch: str,
        config: AdaptConfig,
        speeds: Machine,
    ) -> _Side:
        own = config.model_copy(update={"backend": backend, "arch": arch})
        table = registry.backend(backend).capabilities(arch)
        asked = _asked(config)
        legal = legal_precision(table, asked)
        planned, table = plan_for(loaded, backend, own, speeds, precision=legal), table.at(legal)
        evaluation = Evaluation(
            target=_label(backend, table.chip),
            table=table,
            asked=asked,
            verdicts={n.name: table.support(n) for n in facts},
            ops={n.name: n.op for n in facts},
            rewritten={r.node: r.rule for r in planned.rewrites},
            graph=planned.graph,
            plan=planned.plan,
        )
        return cls(evaluation, planned, own, speeds)

    def report(self, source: _Side, loaded: Loaded) -> ChipReport:
        side, table, plan = self.evaluation, self.evaluation.table, self.evaluation.plan
        version, obtain = _toolkit(plan.backend)
        chip = table.chip
        rules = list(side.rewritten.values())
        return ChipReport(
            target=side.target,
            backend=plan.backend,
            chip=chip,
            fit=side.fit,
            why=why(side),
            plan=plan,
            lost=changes(source.evaluation, side),
            gained=changes(side, source.evaluation),
            rewrites={rule: rules.count(rule) for rule in dict.fromkeys(rules)},
            fallbacks=fallback_groups(plan),
            precisions={p: precision_support(table, p) for p in PRECISIONS},
            tolerance=tolerance(plan.precision).max_relative,
            conflicts=conflicts(side, source.evaluation, self.config.memory_alignment),
            memory_need=memory_need(side.graph, plan.precision),
            memory_bytes=chip.memory_bytes if chip else table.memory_bytes,
            energy_j=energy_joules(plan, chip),
            formats=table.formats or (chip.formats if chip else ()),
            toolkit=table.toolkit,
            installed=version,
            obtain=obtain,
            unknown=unknowns(side),
            missing=missing_figures(side),
            notes=plan.notes,
            work=() if self is source else self._work(loaded),
        )

    def _work(self, loaded: Loaded) -> tuple[Work, ...]:
        rules = _rules(self.planned, self.evaluation)
        return work_list(
            self.evaluation, self._replanner(), rules=rules, shapes=_shapes(loaded.inputs)
        )

    def _replanner(self) -> Callable[..., Plan]:
        graph, backend = self.planned.graph, self.evaluation.plan.backend

        @cache
        def answered(precision: str) -> dict[str, Answered]:  # nothing planned again, none asked
            tables = self.planned.tables.items()
            return {name: _answered(t.at(precision), graph.nodes) for name, t in tables}

        def replan(
            *,
            granted: frozenset[str] = frozenset(),
            memory: bool = True,
            precision: str = "",
            pins: Mapping[str, str] | None = None,
        ) -> Plan:
            wanted = precision or self.evaluation.plan.precision
            own = answered(wanted)[backend]
            limit = own.memory_bytes if memory else None
            answers = {**own.answers, **dict.fromkeys(granted, yes())}
            told = {**own.precisions, precision: yes()} if precision else own.precisions
            granting = replace(own, answers=answers, memory_bytes=limit, precisions=told)
            tables = {**answered(wanted), backend: granting}
            return place(
                graph, tables, backend, self.config, self.machine, precision=wanted, pins=pins
            )

        return replan


def _answered(table: Capabilities, nodes: Sequence[Any]) -> Answered:
    answers = {n.name: table.support(n.facts) for n in nodes}
    return Answered(**table_fields(table), answers=answers)


def _toolkit(backend: str) -> tuple[str, str]:
    """The version that is here; else how to get it."""
    version = registry.backend(backend).version()
    return (version, "") if version else ("", toolchain(backend)[1])


def _rules(planned: Planned, side: Evaluation) -> dict[str, Part]:
    """Operator that is refused -> a rewrite that exists, and which of its parts are refused too."""
    from autoglm.rewrite.facts import node_name

    refused = {
        r.node: r.op
        for r in side.plan.refusals
        if r.backend == side.plan.backend
        and r.verdict is Verdict.NO
        and r.constraint == Constraint.OP
    }
    found: dict[str, Part] = {}
    for node in planned.model.graph:
        op = refused.get(node_name(node))
        if op is not None and op not in found and (part := _part(planned.model, node, side.table)):
            found[op] = part
    return found


def _part(model: ir.Model, node: ir.Node, table: Capabilities) -> Part | None:
    from autoglm.rewrite.decompose import DECOMPOSITIONS
    from autoglm.rewrite.expand import BODY, expand
    from autoglm.rewrite.facts import facts_of

    known = DECOMPOSITIONS.get(node.op_type, ()) if not node.domain else ()
    for rule in (*(d.name for d in known), BODY):
        piece = expand(model, node, rule)
        if piece is None:
            continue
        facts = [facts_of(n, piece.opset_imports) for n in piece.graph]
        return Part(rule, tuple(f.op for f in facts if not table.support(f).ok))
    return None


def _shapes(inputs: Sequence[TensorInfo]) -> str:
    """The options that fix every open dimension, to 1 until the user says otherwise."""
    return " ".join(
        f"--shape {i.name}={','.join(str(d) if isinstance(d, int) else '1' for d in i.shape)}"
        for i in inputs
        if i.shape is not None and any(not isinstance(d, int) for d in i.shape)
    )
