"""`backend: auto`: of the candidates that answer right, the one that measures fastest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from autoglm.errors import AccuracyError, AutoGLMError, UnsupportedOperatorError
from autoglm.runtime.candidate import (
    Candidate,
    Measurement,
    Search,
    candidates,
    options_of,
    row,
)
from autoglm.runtime.golden import Golden
from autoglm.runtime.mixed import best_pins
from autoglm.runtime.prepare import Loaded, plan_for
from autoglm.runtime.prove import name_culprits, prove
from autoglm.runtime.timing import interleave
from autoglm.spec import Feeds, Fit, Value

_ACCURACY_HINT = (
    "Raise --max-error, take a higher --precision, or give --calibration data; "
    "--accept-accuracy keeps the result as it is."
)
# How much slower than the best a candidate may be to stay in after one call, and after a few.
_FIRST_LOOK, _SECOND_LOOK = 3.0, 1.25
# An engine's threads go on spinning for a while after a run, and slow the next engine's.
_GAP_S = 0.02
# How far a session's luck with memory pages alone moves its time.
_LUCK = 1.25
# Two engines in one plan are worth it from here on: two sessions of one engine differ by up to 7 %.
_CLEAR = 0.93


def choose(search: Search) -> tuple[Candidate, list[Measurement]]:
    """The fastest candidate whose answer is proven, and the table of all of them.

    Raises UnsupportedOperatorError where no engine takes the model, AccuracyError where none
    answers right.
    """
    pool, refused = candidates(search)
    if not pool:
        raise _unsupported(search.loaded, refused)
    try:
        prove(search, pool)
        right = [c for c in pool if not c.rejected]
        if not right:
            name_culprits(search, pool)
            raise _none_right(pool)
        if len(right) > 1:
            search.progress("timing the candidates")
            _time(right, search.samplings.proof[0])
            mixed = _mix(search, sorted(right, key=lambda c: c.seconds))
            pool += mixed
            right += [c for c in mixed if not c.rejected]
        winner = min(right, key=lambda c: c.seconds)
        return winner, refused + [row(c, chosen=c is winner) for c in pool]
    finally:
        for candidate in pool:
            candidate.close()


def _time(pool: Sequence[Candidate], feed: Feeds) -> None:
    calls = {str(id(c)): _call(c, feed) for c in pool}
    found = interleave(calls, budget_s=0.0, least=2, gap_s=_GAP_S)
    for limit, budget_s, least in ((_FIRST_LOOK, 0.6, 3), (_SECOND_LOOK, 3.0, 7)):
        best = min(s.estimate for s in found.values())
        calls = {n: c for n, c in calls.items() if found[n].estimate <= best * limit}
        if len(calls) > 1:
            found |= interleave(calls, budget_s=budget_s, least=least, gap_s=_GAP_S, seed=least)
    for candidate in pool:
        candidate.samples = found[str(id(candidate))]
    _time_again(pool, feed)


def _time_again(pool: Sequence[Candidate], feed: Feeds) -> None:
    """A close race is run once more on new sessions; the better of each one's two counts."""
    best = min(c.seconds for c in pool)
    close = [c for c in pool if c.seconds <= best * _LUCK]
    if len(close) < 2:
        return
    for candidate in close:
        candidate.reopen()
        _call(candidate, feed)()
    calls = {str(id(c)): _call(c, feed) for c in close}
    found = interleave(calls, budget_s=1.0, least=7, gap_s=_GAP_S, seed=1)
    for candidate in close:
        again = found[str(id(candidate))]
        if again.estimate < candidate.seconds:
            candidate.samples = again


def _call(candidate: Candidate, feed: Feeds) -> Callable[[], object]:
    session = candidate.session
    assert session is not None
    return lambda: session.run(feed)


def _mix(search: Search, ranked: Sequence[Candidate]) -> list[Candidate]:
    """A plan over the two fastest engines, where their segments promise more than one alone."""
    best = ranked[0]
    rivals = (c for c in ranked if c.precision == best.precision and c.alone != best.alone)
    rival = next(rivals, None)
    if rival is None or not best.alone or not rival.alone or best.keep_high:
        return []
    search.progress("timing segments on both engines")
    feed = search.samplings.proof[0]

    def answer(tensors: Sequence[str]) -> dict[str, Value]:
        with Golden(best.planned.model, tensors) as golden:
            return {**golden.run(feed), **feed}

    pins = best_pins(
        best.planned,
        (best.alone, rival.alone),
        options_of(search.config, best.precision, search.samplings.calibration),
        answer,
        search.work / "segments",
    )
    if not pins:
        return []
    config = search.config.model_copy(update={"pins": {**search.config.pins, **pins}})
    planned = plan_for(search.loaded, best.alone, config, search.machine, precision=best.precision)
    if planned.plan.fit is Fit.NO or len(planned.plan.partitions) < 2:
        return []
    mixed = Candidate(planned, best.precision)
    prove(replace(search, config=config), [mixed])
    if not mixed.rejected:
        _time([best, mixed], feed)
        if mixed.seconds > best.seconds * _CLEAR:
            mixed.rejected = f"no clear gain over {best.alone} alone"
    return [mixed]


def _unsupported(loaded: Loaded, refused: Sequence[Measurement]) -> UnsupportedOperatorError:
    return UnsupportedOperatorError(
        "No engine here takes {model}: {reasons}.",
        hint="`autoglm check` lists every refusal. Allow fallbacks with --fallback-policy cpu, or "
        "have a node whose support is unknown tried there with --pin NODE=BACKEND.",
        model=loaded.name,
        reasons="; ".join(f"{r.candidate}: {r.reason}" for r in refused[:5]) or "none is installed",
        rejected={r.candidate: r.reason for r in refused},
    )


def _none_right(pool: Sequence[Candidate]) -> AutoGLMError:
    answered = any(c.certificates for c in pool)
    error = AccuracyError if answered else UnsupportedOperatorError
    return error(
        "No candidate is fit to use: {reasons}.",
        hint=_ACCURACY_HINT if answered else "`autoglm check` lists every refusal, node by node.",
        reasons="; ".join(f"{c.name}: {c.rejected}" for c in pool),
    )
