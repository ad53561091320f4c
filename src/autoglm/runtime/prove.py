"""Build each candidate and compare its answer with fp32; raise operators where int8 is too
coarse.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from autoglm.errors import AutoGLMError, LimitError
from autoglm.runtime.build import crossing, plan_and_build
from autoglm.runtime.candidate import Candidate, Samplings, Search, options_of, run_options
from autoglm.runtime.certify import certify, first_divergence
from autoglm.runtime.golden import Golden
from autoglm.runtime.sensitive import fewest, fewest_passing, sensitivity
from autoglm.runtime.session import open_parts
from autoglm.spec import Value

if TYPE_CHECKING:
    import onnx_ir as ir

    from autoglm.runtime.prepare import Planned

# The largest share of the quantisable operators that is raised to fp32: above it int8 gains little.
_MOST = 0.6
# A candidate whose first call takes this many times the fastest's will not win: no more is spent.
_HOPELESS, _SHORT_S = 20.0, 1.0


@dataclass(frozen=True, slots=True)
class Answers:
    """The golden engine's values for each calibration and each proof feed."""

    golden: str
    calibration: tuple[dict[str, Value], ...]
    proof: tuple[dict[str, Value], ...]


def prove(search: Search, pool: Sequence[Candidate]) -> None:
    """Give every candidate a session and certificates, or the reason why it is rejected."""
    search.progress("computing the fp32 answer")
    whole = _answers(search.loaded.model, (), search.samplings)
    fastest_s = math.inf
    known: dict[tuple[str, ...], dict[str, float]] = {}
    for candidate in pool:
        answers = whole
        if len(candidate.planned.plan.partitions) > 1:
            # What crosses its partitions may only exist after its own decompositions.
            answers = _answers(
                candidate.planned.model, crossing(candidate.planned), search.samplings
            )
        _prove_one(search, candidate, answers, fastest_s, known)
        fastest_s = min(fastest_s, candidate.first_call_s)


def name_culprits(search: Search, pool: Sequence[Candidate]) -> None:
    """Add to each rejection which operator diverges first, where one engine runs the whole
    model.
    """
    search.progress("looking for the first operator that diverges")
    for number, candidate in enumerate(pool):
        if not candidate.certificates or not candidate.alone:
            continue
        try:
            node = first_divergence(
                candidate.planned.model,
                candidate.alone,
                options_of(
                    search.config,
                    candidate.precision,
                    search.samplings.calibration,
                    candidate.keep_high,
                ),
                search.samplings.proof[0],
                search.work / f"diverge-{number}",
                max_error=search.config.max_error,
            )
        except AutoGLMError as error:
            candidate.rejected += f"; the first operator was not found: {error}"
            continue
        if node:
            candidate.rejected += f"; the first operator that diverges is {node}"
            candidate.certificates = [
                replace(c, first_divergence=node) for c in candidate.certificates
            ]


def _answers(model: ir.Model, tensors: Sequence[str], samplings: Samplings) -> Answers:
    with Golden(model, tensors) as golden:
        calibration = tuple(golden.run(f) for f in samplings.calibration) if tensors else ()
        return Answers(golden.engine, calibration, tuple(golden.run(f) for f in samplings.proof))


def _prove_one(
    search: Search,
    candidate: Candidate,
    answers: Answers,
    fastest_s: float,
    known: dict[tuple[str, ...], dict[str, float]],
) -> None:
    """Try the candidate as it is; where int8 is too coarse, look for the fewest operators to
    raise.
    """
    first = _attempt(search, candidate, answers, frozenset(), fastest_s)
    if first or not candidate.certificates:
        return
    if not candidate.precision.startswith("int8"):
        return
    errors = _sensitive(search, candidate.planned, known)
    if len(errors) < 2:
        return  # nothing would stay in int8
    order = list(errors)

    def passes(count: int) -> bool:
        return _attempt(search, candidate, answers, frozenset(order[:count]))

    most = max(1, min(round(len(order) * _MOST), len(order) - 1))
    # The most first: where that does not help, nothing in between will.
    if passes(most):
        count = fewest_passing(passes, fewest(errors, candidate.certificates[-1].tolerance), most)
        if len(candidate.keep_high) != count or candidate.rejected:
            passes(count)


def _sensitive(
    search: Search, planned: Planned, known: dict[tuple[str, ...], dict[str, float]]
) -> dict[str, float]:
    """What int8 costs each operator; measured once for all engines that get the same nodes."""
    nodes = tuple(node.name for node in planned.graph.nodes)
    if nodes not in known:
        search.progress("measuring which operators int8 costs most")
        feeds = search.samplings.calibration
        known[nodes] = sensitivity(planned.model, planned.graph, feeds)
    return known[nodes]


def _attempt(
    search: Search,
    candidate: Candidate,
    answers: Answers,
    keep_high: frozenset[str],
    fastest_s: float = math.inf,
) -> bool:
    """Build with those nodes in fp32; whether the answer is right, with the reason kept if not."""
    candidate.close()
    candidate.keep_high = keep_high
    candidate.rejected = ""
    search.progress(f"compiling {candidate.name}")
    try:
        _build_one(search, candidate, answers, fastest_s)
    except AutoGLMError as error:
        candidate.rejected = f"{error.code}: {str(error)[:300]}"
        candidate.close()
        return False
    failed = [c for c in candidate.certificates if not c.passed]
    if not failed or search.config.accept_accuracy:
        return True
    worst = max(failed, key=lambda c: c.max_relative_error)
    candidate.rejected = (
        f"{worst.subject} is off by {worst.max_relative_error:.2g} of its largest value "
        f"({worst.tolerance:.2g} is allowed), SQNR {worst.sqnr_db:.1f} dB"
    )
    candidate.close()
    return False


def _build_one(search: Search, candidate: Candidate, answers: Answers, fastest_s: float) -> None:
    config, samplings = search.config, search.samplings
    place = search.work / f"{candidate.name.replace(' ', '-')}-{id(candidate)}"
    shutil.rmtree(place, ignore_errors=True)
    candidate.planned, candidate.built = plan_and_build(
        search.loaded,
        candidate.planned,
        config,
        search.machine,
        options_of(config, candidate.precision, samplings.calibration, candidate.keep_high),
        place,
        answers=answers.calibration,
        use_cache=search.use_cache,
    )
    if (
        set(crossing(candidate.planned)) - set(answers.proof[0])
        and len(candidate.planned.plan.partitions) > 1
    ):
        # Planned anew after a refusal: other tensors cross now.
        answers = _answers(candidate.planned.model, crossing(candidate.planned), samplings)
    candidate.opens = partial(
        open_parts,
        candidate.planned.plan.partitions,
        candidate.built.artifacts,
        place,
        search.loaded.inputs,
        search.loaded.outputs,
        replace(run_options(config), alternates=True),
    )
    candidate.session = candidate.opens()
    started = time.perf_counter()
    candidate.session.run(samplings.proof[0])
    candidate.first_call_s = time.perf_counter() - started
    if candidate.first_call_s > max(_SHORT_S, _HOPELESS * fastest_s):
        raise LimitError(
            "one call took {seconds:.2g} s, the fastest candidate's {fastest:.2g} s",
            seconds=candidate.first_call_s,
            fastest=fastest_s,
        )
    candidate.certificates = certify(
        candidate.session,
        answers.golden,
        answers.proof,
        samplings.proof,
        precision=candidate.precision,
        max_error=config.max_error,
    )
