"""What fallbacks may cost, and the sentences for a plan that costs more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from autoglm.messages import tr
from autoglm.spec import Fallback, Plan


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits on a plan; None = no limit. `forbid`: operators or patterns that may not fall back."""

    max_fallback_time_pct: float | None = None
    max_partitions: int | None = None
    forbid: Sequence[str] = ()


def fallback_time_pct(plan: Plan) -> float:
    """Share of the predicted time that fallbacks take, with their boundaries, in per cent."""
    if not plan.seconds:
        return 0.0
    return 100.0 * sum(f.seconds for f in plan.fallbacks) / plan.seconds


def over_budget(plan: Plan, budget: Budget) -> tuple[str, ...]:
    """A sentence per limit that the plan breaks: the limit, then the value found."""
    sentences = []
    limit = budget.max_fallback_time_pct
    share = fallback_time_pct(plan)
    if limit is not None and share > limit:
        sentences.append(
            tr(
                "Fallbacks may take {limit:g} % of the predicted time "
                "(budget.max_fallback_time_pct), found {share:.3g} %.",
                limit=limit,
                share=share,
            )
        )
    count = len(plan.partitions)
    if budget.max_partitions is not None and count > budget.max_partitions:
        sentences.append(
            tr(
                "The plan may have {most} partition(s) (budget.max_partitions), found {count}.",
                most=budget.max_partitions,
                count=count,
            )
        )
    sentences += [_forbidden(f) for f in plan.fallbacks if _is_forbidden(f, budget)]
    return tuple(sentences)


def _is_forbidden(fallback: Fallback, budget: Budget) -> bool:
    return any(fnmatchcase(fallback.op, pattern) for pattern in budget.forbid)


def _forbidden(fallback: Fallback) -> str:
    return tr(
        "{op} may not fall back (budget.forbid), but node {node!r} runs on {placed}: {reason}.",
        op=fallback.op,
        node=fallback.node,
        placed=fallback.placed,
        reason=fallback.reason,
    )
