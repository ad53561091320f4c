"""`backend: auto`: build every candidate, check its answer, time the ones that are right, keep
the fastest.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm.errors import AccuracyError, AutoGLMError, UnsupportedOperatorError
from autoglm.runtime.build import Built, plan_and_build
from autoglm.runtime.certify import certify, first_divergence
from autoglm.runtime.golden import Golden
from autoglm.runtime.mixed import best_pins
from autoglm.runtime.prepare import Loaded, Planned, installed, plan_for
from autoglm.runtime.session import PlanSession, open_parts
from autoglm.runtime.timing import Samples, interleave
from autoglm.spec import Certificate, CompileOptions, Feeds, Fit, RunOptions, Value

if TYPE_CHECKING:
    from autoglm.config import AdaptConfig
    from autoglm.plan.cost import Machine

PRECISIONS = ("fp32", "bf16", "fp16", "int8-dynamic", "int8")
# A candidate this much slower than the best after the first, short look is not measured further.
_HOPELESS = 1.25
# Engines that answer, but never win on speed: asked only when nothing else takes the model.
_LAST = ("numpy", "reference")


@dataclass(slots=True)
class Candidate:
    """One way to run the model: its plan, what it was compiled to, its proof and its times."""

    planned: Planned
    precision: str
    keep_high: frozenset[str] = frozenset()
    built: Built | None = None
    session: PlanSession | None = None
    certificates: list[Certificate] = field(default_factory=list)
    samples: Samples | None = None
    rejected: str = ""

    @property
    def name(self) -> str:
        """How tables call it: engine(s), precision, and how many nodes stay in fp32."""
        engines = "+".join(dict.fromkeys(p.backend for p in self.planned.plan.partitions))
        kept = f" ({len(self.keep_high)} nodes kept in fp32)" if self.keep_high else ""
        return f"{engines} {self.precision}{kept}"

    @property
    def alone(self) -> str:
        """The engine, where there is only one; "" otherwise."""
        engines = {p.backend for p in self.planned.plan.partitions}
        return engines.pop() if len(engines) == 1 else ""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One row of the table of candidates, chosen or not, with the reason."""

    candidate: str
    precision: str
    median_s: float | None
    best_s: float | None
    max_relative_error: float | None
    chosen: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Samplings:
    """Feeds by use: what int8 is calibrated on is not what proves it."""

    calibration: tuple[Feeds, ...]
    proof: tuple[Feeds, ...]
    notes: tuple[str, ...] = ()


def candidates(
    loaded: Loaded, config: AdaptConfig, machine: Machine
) -> tuple[list[Candidate], list[Measurement]]:
    """Every engine here at every precision allowed; refused ones as rows with the reason."""
    engines = [config.backend] if config.backend != "auto" else installed()
    precisions = PRECISIONS if config.precision == "auto" else (config.precision,)
    found: dict[tuple[object, ...], Candidate] = {}
    refused: list[Measurement] = []
    for last in (False, True):
        for engine in (e for e in engines if len(engines) == 1 or (e in _LAST) is last):
            for precision in precisions:
                planned = plan_for(loaded, engine, config, machine, precision=precision)
                if planned.plan.fit is Fit.NO:
                    refused.append(_refusal(engine, precision, planned))
                    continue
                key = (precision, *((p.backend, p.nodes) for p in planned.plan.partitions))
                found.setdefault(key, Candidate(planned, precision))
        if found:
            break
    return list(found.values()), refused


def choose(
    loaded: Loaded,
    config: AdaptConfig,
    machine: Machine,
    samplings: Samplings,
    work: Path,
    *,
    use_cache: bool = True,
    measure: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[Candidate, list[Measurement]]:
    """The fastest candidate whose answer is proven, and the table of all of them.

    Raises UnsupportedOperatorError where no engine takes the model, AccuracyError where none
    answers right.
    """
    pool, refused = candidates(loaded, config, machine)
    if not pool:
        raise _unsupported(loaded, refused)
    try:
        _prove(loaded, pool, config, samplings, work, use_cache, progress)
        right = [c for c in pool if not c.rejected]
        if not right:
            progress("looking for the first operator that diverges")
            _name_culprits(pool, config, samplings, work)
            raise _none_right(pool)
        if measure and len(right) > 1:
            progress("timing the candidates")
            _time(right, samplings.proof[0])
            right += _mix(
                loaded, right, pool, config, machine, samplings, work, use_cache, progress
            )
        winner = min(right, key=lambda c: c.samples.estimate if c.samples else 0.0)
        return winner, refused + [_row(c, c is winner) for c in pool]
    finally:
        for candidate in pool:
            if candidate.session is not None:
                candidate.session.close()


def _prove(
    loaded: Loaded,
    pool: Sequence[Candidate],
    config: AdaptConfig,
    samplings: Samplings,
    work: Path,
    use_cache: bool,
    progress: Callable[[str], None],
) -> None:
    tensors = {
        name
        for candidate in pool
        if len(candidate.planned.plan.partitions) > 1
        for part in candidate.planned.plan.partitions
        for name in (*part.inputs, *part.outputs)
    }
    names = {i.name for i in loaded.inputs} | set(loaded.model.graph.initializers)
    flops = sum(n.flops for n in pool[0].planned.graph.nodes)
    # Tensors that only exist after a candidate's own decomposition come from that candidate's
    # model.
    models = {id(c.planned): c.planned.model for c in pool if len(c.planned.plan.partitions) > 1}
    progress("computing the fp32 answer")
    answers: dict[int, _Answers] = {}
    plain = _answers(loaded.model, (), samplings, flops)
    for candidate in pool:
        key = id(candidate.planned)
        known = plain
        if key in models:
            wanted = {t for p in candidate.planned.plan.partitions for t in (*p.inputs, *p.outputs)}
            known = answers.setdefault(
                key, _answers(models[key], sorted((wanted & tensors) - names), samplings, flops)
            )
        _prove_one(candidate, config, samplings, known, work, use_cache, progress, loaded)


@dataclass(frozen=True, slots=True)
class _Answers:
    golden: str
    calibration: tuple[dict[str, Value], ...]
    proof: tuple[dict[str, Value], ...]


def _answers(model: object, tensors: Sequence[str], samplings: Samplings, flops: float) -> _Answers:
    with Golden(model, tensors, flops=flops) as golden:  # type: ignore[arg-type]
        calibration = tuple(golden.run(f) for f in samplings.calibration) if tensors else ()
        return _Answers(golden.engine, calibration, tuple(golden.run(f) for f in samplings.proof))


def _prove_one(
    candidate: Candidate,
    config: AdaptConfig,
    samplings: Samplings,
    answers: _Answers,
    work: Path,
    use_cache: bool,
    progress: Callable[[str], None],
    loaded: Loaded,
) -> None:
    for keep_high in _raises(candidate):
        candidate.keep_high = keep_high
        progress(f"compiling {candidate.name}")
        try:
            _build_one(candidate, config, samplings, answers, work, use_cache, loaded)
        except AutoGLMError as error:
            candidate.rejected = f"{error.code}: {str(error)[:300]}"
            return
        failed = [c for c in candidate.certificates if not c.passed]
        if not failed or config.accept_accuracy:
            candidate.rejected = ""
            return
        worst = max(failed, key=lambda c: c.max_relative_error)
        candidate.rejected = (
            f"{worst.subject} is off by {worst.max_relative_error:.2g} of its largest value, "
            f"{worst.tolerance:.2g} is allowed"
        )
        if candidate.session is not None:
            candidate.session.close()
            candidate.session = None


def _raises(candidate: Candidate) -> list[frozenset[str]]:
    """Which nodes to keep in fp32, from none to more, for a precision that can mix."""
    if not candidate.precision.startswith("int8"):
        return [frozenset()]
    from autoglm.runtime.sensitive import raise_order

    order = raise_order(candidate.planned.graph)
    steps = [0, *sorted({round(len(order) * share) for share in (0.15, 0.35, 0.6)} - {0})]
    return [frozenset(order[:n]) for n in steps]


def _build_one(
    candidate: Candidate,
    config: AdaptConfig,
    samplings: Samplings,
    answers: _Answers,
    work: Path,
    use_cache: bool,
    loaded: Loaded,
) -> None:
    place = (
        work / f"{candidate.planned.plan.backend}-{candidate.precision}-{len(candidate.keep_high)}"
    )
    shutil.rmtree(place, ignore_errors=True)
    candidate.planned, candidate.built = plan_and_build(
        loaded,
        candidate.planned,
        config,
        options_of(config, candidate.precision, samplings.calibration, candidate.keep_high),
        place,
        answers=answers.calibration,
        use_cache=use_cache,
    )
    candidate.session = open_parts(
        candidate.planned.plan.partitions,
        candidate.built.artifacts,
        place,
        loaded.inputs,
        loaded.outputs,
        RunOptions(device=config.device, threads=config.threads),
    )
    candidate.certificates = certify(
        candidate.session,
        answers.golden,
        answers.proof,
        samplings.proof,
        precision=candidate.precision,
        max_error=config.max_error,
    )


def options_of(
    config: AdaptConfig,
    precision: str,
    calibration: Sequence[Feeds],
    keep_high: frozenset[str] = frozenset(),
) -> CompileOptions:
    """What the config says to a backend's compile."""
    needs = precision == "int8"
    return CompileOptions(
        precision=precision,
        device=config.device,
        arch=config.arch,
        threads=config.threads,
        memory_alignment=config.memory_alignment,
        calibration=tuple(calibration) if needs else (),
        keep_high=keep_high,
        timeout_s=config.timeout_s or 600.0,
        optimize=config.optimize,
        settings=dict(config.settings),
    )


def _name_culprits(
    pool: Sequence[Candidate], config: AdaptConfig, samplings: Samplings, work: Path
) -> None:
    """Add to each rejection which operator diverges first, where one engine runs the whole model."""
    for number, candidate in enumerate(pool):
        if not candidate.certificates or not candidate.alone:
            continue
        options = options_of(
            config, candidate.precision, samplings.calibration, candidate.keep_high
        )
        try:
            node = first_divergence(
                candidate.planned.model,
                candidate.alone,
                options,
                samplings.proof[0],
                work / f"diverge-{number}",
                max_error=config.max_error,
            )
        except AutoGLMError as error:
            candidate.rejected += f"; the first operator was not found: {error}"
            continue
        if node:
            candidate.rejected += f"; the first operator that diverges is {node}"
            candidate.certificates = [
                replace(c, first_divergence=node) for c in candidate.certificates
            ]


def _mix(
    loaded: Loaded,
    right: Sequence[Candidate],
    pool: list[Candidate],
    config: AdaptConfig,
    machine: Machine,
    samplings: Samplings,
    work: Path,
    use_cache: bool,
    progress: Callable[[str], None],
) -> list[Candidate]:
    """A plan over the two fastest engines, where their segments promise more than either gives
    alone.
    """
    ranked = sorted(right, key=lambda c: c.samples.estimate if c.samples else 0.0)
    best = ranked[0]
    rival = next(
        (c for c in ranked if c.precision == best.precision and c.alone != best.alone), None
    )
    if rival is None or not best.alone or not rival.alone or best.keep_high:
        return []
    progress("timing segments on both engines")
    feed, flops = samplings.proof[0], sum(n.flops for n in best.planned.graph.nodes)

    def answer(tensors: Sequence[str]) -> dict[str, Value]:
        with Golden(best.planned.model, tensors, flops=flops) as golden:
            return {**golden.run(feed), **feed}

    options = options_of(config, best.precision, ())
    engines = (best.alone, rival.alone)
    pins = best_pins(best.planned, engines, options, answer, work / "segments")
    if not pins:
        return []
    mixed_config = config.model_copy(update={"pins": {**config.pins, **pins}})
    planned = plan_for(loaded, best.alone, mixed_config, machine, precision=best.precision)
    if planned.plan.fit is Fit.NO or len(planned.plan.partitions) < 2:
        return []
    mixed = Candidate(planned, best.precision)
    pool.append(mixed)
    _prove(loaded, [mixed], mixed_config, samplings, work, use_cache, progress)
    if mixed.rejected:
        return []
    _time([best, mixed], feed)
    return [mixed]


def _time(pool: Sequence[Candidate], feed: Feeds) -> None:
    calls = {c.name: _call(c, feed) for c in pool}
    first = interleave(calls, budget_s=0.6, least=3)
    best = min(s.estimate for s in first.values())
    finalists = {n: c for n, c in calls.items() if first[n].estimate <= best * _HOPELESS}
    final = interleave(finalists, budget_s=3.0, least=7, seed=1) if len(finalists) > 1 else {}
    for candidate in pool:
        candidate.samples = final.get(candidate.name, first[candidate.name])


def _call(candidate: Candidate, feed: Feeds) -> Callable[[], object]:
    session = candidate.session
    assert session is not None
    return lambda: session.run(feed)


def _row(candidate: Candidate, chosen: bool) -> Measurement:
    worst = max((c.max_relative_error for c in candidate.certificates), default=None)
    samples = candidate.samples
    reason = candidate.rejected or ("fastest of those that answer right" if chosen else "slower")
    return Measurement(
        candidate=candidate.name,
        precision=candidate.precision,
        median_s=samples.median if samples else None,
        best_s=samples.best if samples else None,
        max_relative_error=worst,
        chosen=chosen,
        reason=reason,
    )


def _refusal(engine: str, precision: str, planned: Planned) -> Measurement:
    reasons = [*planned.plan.violations, *(r.reason for r in planned.plan.refusals)]
    reason = reasons[0] if reasons else "it does not fit"
    return Measurement(f"{engine} {precision}", precision, None, None, None, False, reason)


def _unsupported(loaded: Loaded, refused: Sequence[Measurement]) -> UnsupportedOperatorError:
    return UnsupportedOperatorError(
        "No engine here takes {model}: {reasons}.",
        hint="`autoglm check` lists every refusal; allow fallbacks with --fallback-policy cpu.",
        model=loaded.name,
        reasons="; ".join(f"{r.candidate}: {r.reason}" for r in refused[:5]) or "none is installed",
        rejected={r.candidate: r.reason for r in refused},
    )


def _none_right(pool: Sequence[Candidate]) -> AutoGLMError:
    compiled = [c for c in pool if c.certificates]
    error = AccuracyError if compiled else UnsupportedOperatorError
    return error(
        "No candidate is fit to use: {reasons}.",
        hint="Raise --max-error, take a higher --precision, or give --calibration data; "
        "--accept-accuracy keeps the result as it is.",
        reasons="; ".join(f"{c.name}: {c.rejected}" for c in pool),
    )
