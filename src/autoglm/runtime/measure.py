"""Side by side: one interleaved run over several sessions, as ratios, with the answers compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autoglm.runtime.session import PlanSession
from autoglm.runtime.timing import interleave
from autoglm.spec import Feeds
from autoglm.tensor.accuracy import compare


def bench_sessions(
    sessions: Mapping[str, PlanSession], feeds: Feeds, *, budget_s: float
) -> list[dict[str, Any]]:
    """One row a session: seconds, ratio of medians to the first, largest relative error against
    the first.
    """
    first = next(iter(sessions))
    answers = {name: session.run(feeds) for name, session in sessions.items()}
    calls = {name: (lambda s=session: s.run(feeds)) for name, session in sessions.items()}
    samples = interleave(calls, budget_s=budget_s)
    base = samples[first].median
    return [
        {
            "name": name,
            "engines": list(session.engines),
            "median_s": samples[name].median,
            "best_s": samples[name].best,
            "ratio": samples[name].median / base,
            "max_relative_error": compare(answers[first], answers[name]).max_relative,
            "runs": len(samples[name].seconds),
        }
        for name, session in sessions.items()
    ]
