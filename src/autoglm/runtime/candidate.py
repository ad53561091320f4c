"""The ways a model could run here: engines by precisions, each with its plan, proof and times."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm.plan.explain import lacks
from autoglm.runtime.build import Built
from autoglm.runtime.prepare import Loaded, Planned, installed, plan_for
from autoglm.runtime.session import PlanSession
from autoglm.runtime.timing import Samples
from autoglm.spec import Certificate, CompileOptions, Feeds, Fit, RunOptions
from autoglm.tensor.accuracy import TOLERANCE

if TYPE_CHECKING:
    from autoglm.config import AdaptConfig
    from autoglm.plan import Machine

PRECISIONS = ("fp32", "bf16", "fp16", "int8-dynamic", "int8")
# Engines that answer, but never win on speed: asked only when nothing else takes the model.
_LAST = ("numpy", "reference")


@dataclass(slots=True)
class Candidate:
    """One way to run the model."""

    planned: Planned
    precision: str
    keep_high: frozenset[str] = frozenset()
    built: Built | None = None
    opens: Callable[[], PlanSession] | None = None
    session: PlanSession | None = None
    certificates: list[Certificate] = field(default_factory=list)
    samples: Samples | None = None
    first_call_s: float = math.inf
    rejected: str = ""

    @property
    def name(self) -> str:
        """How tables call it: engine(s), precision, and how many nodes int8 leaves."""
        engines = "+".join(dict.fromkeys(p.backend for p in self.planned.plan.partitions))
        count = len(self.keep_high)
        kept = f" ({count} {'nodes' if count > 1 else 'node'} kept higher)" if count else ""
        return f"{engines} {self.precision}{kept}"

    @property
    def alone(self) -> str:
        """The engine, where there is only one; "" otherwise."""
        engines = {p.backend for p in self.planned.plan.partitions}
        return engines.pop() if len(engines) == 1 else ""

    @property
    def seconds(self) -> float:
        """What it took; 0 where it was the only one and nothing was timed."""
        return self.samples.estimate if self.samples else 0.0

    def reopen(self) -> None:
        """A new session of what was built."""
        self.close()
        if self.opens is not None:
            self.session = self.opens()

    def close(self) -> None:
        """Give its session back; may be called twice."""
        if self.session is not None:
            self.session.close()
            self.session = None


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


@dataclass(frozen=True, slots=True)
class Search:
    """What every step of the choice needs."""

    loaded: Loaded
    config: AdaptConfig
    machine: Machine
    samplings: Samplings
    work: Path
    use_cache: bool = True
    progress: Callable[[str], None] = lambda _: None


def candidates(search: Search) -> tuple[list[Candidate], list[Measurement]]:
    """Every engine here at every precision allowed; refused ones as rows with the reason."""
    config = search.config
    engines = [config.backend] if config.backend != "auto" else installed()
    precisions = PRECISIONS if config.precision == "auto" else (config.precision,)
    first = [e for e in engines if len(engines) == 1 or e not in _LAST]
    refused: list[Measurement] = []
    for group in (first, [e for e in engines if e not in first]):
        found: dict[tuple[object, ...], Candidate] = {}
        for engine in group:
            for precision in precisions:
                planned = plan_for(
                    search.loaded, engine, config, search.machine, precision=precision
                )
                if planned.plan.fit is Fit.NO:
                    refused.append(_refusal(engine, precision, planned))
                    continue
                key = (precision, *((p.backend, p.nodes) for p in planned.plan.partitions))
                found.setdefault(key, Candidate(planned, precision))
        if found:
            return list(found.values()), refused
    return [], refused


def options_of(
    config: AdaptConfig,
    precision: str,
    calibration: Sequence[Feeds] = (),
    keep_high: frozenset[str] = frozenset(),
) -> CompileOptions:
    """What the config says to a backend's compile."""
    return CompileOptions(
        precision=precision,
        device=config.device,
        arch=config.arch,
        threads=config.threads,
        memory_alignment=config.memory_alignment,
        calibration=tuple(calibration) if precision == "int8" else (),
        keep_high=keep_high,
        beside_int8=_beside_int8(config, precision),
        timeout_s=config.timeout_s,
        memory_limit_bytes=config.memory_limit_bytes,
        optimize=config.optimize,
        settings=dict(config.settings),
    )


def _beside_int8(config: AdaptConfig, precision: str) -> str:
    """bf16 where the answer may be as far off as bf16 alone would be."""
    if not precision.startswith("int8"):
        return "fp32"
    allowed = TOLERANCE[precision].max_relative if config.max_error is None else config.max_error
    return "bf16" if allowed >= TOLERANCE["bf16"].max_relative else "fp32"


def run_options(config: AdaptConfig) -> RunOptions:
    """What the config says to a backend's open; the settings are one backend's own."""
    return RunOptions(
        device=config.device,
        threads=config.threads,
        memory_limit_bytes=config.memory_limit_bytes,
    )


def row(candidate: Candidate, *, chosen: bool) -> Measurement:
    """The candidate's line in the table."""
    samples = candidate.samples
    reason = candidate.rejected or "slower"
    if chosen:
        reason = "fastest of those that answer right" if samples else "the only one"
    return Measurement(
        candidate=candidate.name,
        precision=candidate.precision,
        median_s=samples.median if samples else None,
        best_s=samples.best if samples else None,
        max_relative_error=max(
            (c.max_relative_error for c in candidate.certificates), default=None
        ),
        chosen=chosen,
        reason=reason,
    )


def _refusal(engine: str, precision: str, planned: Planned) -> Measurement:
    reason = " ".join(lacks(planned.plan))
    return Measurement(f"{engine} {precision}", precision, None, None, None, False, reason)
