"""Which nodes of a failing partition go elsewhere, why, and where the smallest cases are kept."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm import registry
from autoglm.errors import BackendError, CompileError, ModelError
from autoglm.runtime.bisect import Culprit, Probe, bisect
from autoglm.runtime.build import compile_part
from autoglm.runtime.reproduce import keep_log, write_reproducer
from autoglm.spec import CompileOptions, Partition
from autoglm.vendor_errors import Explanation, explain

if TYPE_CHECKING:
    from autoglm.runtime.prepare import Planned

# Reproducers of one partition: more of them say nothing new.
_REPRODUCERS = 3


@dataclass(frozen=True, slots=True)
class Refused:
    """Why each node that an engine refuses is refused, and where the smallest cases are."""

    reasons: Mapping[str, str]
    reproducers: tuple[Path, ...] = ()

    def raised(self, error: CompileError) -> CompileError:
        """The engine's error, with the way to repeat it."""
        if not self.reproducers:
            return error
        known = _explained(error)
        return CompileError(
            "{reason} The smallest part that still fails is in {reproducer}.",
            hint="{next} sh {reproducer}/run.sh repeats it; its log is beside.",
            **{
                **error.facts,
                "reason": str(error),
                "next": known.next if known else "",
                "reproducer": str(self.reproducers[0]),
            },
        )


def refused_nodes(
    planned: Planned,
    partition: Partition,
    options: CompileOptions,
    folder: Path,
    error: CompileError,
    *,
    seconds: float = 300.0,
) -> Refused:
    """The nodes of a partition to place elsewhere, found by bisecting it; all of them where the
    failure does not show without the calibration data, or the budget ends first.
    """
    part_options = replace(
        options,
        calibration=(),
        precision="fp32" if partition.precision == "int8" else partition.precision,
        settings=options.settings if partition.backend == planned.plan.backend else {},
    )
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    probe = _probe(planned, partition.backend, part_options, folder, seconds)
    try:
        whole: BackendError | None = error
        if partition.precision != part_options.precision:
            whole = probe(partition.nodes) if seconds > 0 else None
        if whole is None:
            return Refused(dict.fromkeys(partition.nodes, _reason(error)))
        ops = {node.name: node.op for node in planned.graph.nodes}
        found = bisect(partition.nodes, ops, probe, whole)
        reasons = dict.fromkeys(found.unproven, _reason(error))
        reasons |= {c.node: _reason(c.error) + _others(c, ops) for c in found.culprits}
        written: list[Path] = []
        for culprit in sorted(found.culprits, key=lambda c: len(c.part))[:_REPRODUCERS]:
            place = _reproducer(planned, partition.backend, part_options, culprit)
            # By name only: a plan holds no path of this machine.
            reasons[culprit.node] += f" (reproducer {place.name})"
            written.append(place)
        return Refused(reasons, tuple(dict.fromkeys(written)))
    finally:
        shutil.rmtree(logs, ignore_errors=True)


def _probe(
    planned: Planned, backend: str, options: CompileOptions, folder: Path, seconds: float
) -> Probe:
    from autoglm.rewrite.extract import extract

    place, logs = folder / "probe", folder / "logs"

    def attempt(names: Sequence[str], timeout_s: float) -> None:
        try:
            model = extract(planned.model, names)
        except ModelError:
            return  # it cannot be cut there, so nothing is known against it
        limited = replace(options, timeout_s=timeout_s)
        try:
            compile_part(model, backend, limited, place, use_cache=False)
        except BackendError as failure:
            kept = logs / f"{len(list(logs.iterdir()))}.log"
            keep_log(failure, kept)
            failure.facts["log"] = str(kept)
            raise
        finally:
            shutil.rmtree(place, ignore_errors=True)

    return Probe(attempt, seconds=seconds)


def _others(culprit: Culprit, ops: Mapping[str, str]) -> str:
    others = [f"{n} ({ops.get(n, '')})" for n in culprit.part if n != culprit.node]
    return f" (only together with {', '.join(others[:3])})" if others else ""


def _reproducer(planned: Planned, backend: str, options: CompileOptions, culprit: Culprit) -> Path:
    from autoglm.rewrite.extract import extract

    smallest = extract(planned.model, culprit.part)
    toolkit = registry.backend(backend).version()
    return write_reproducer(smallest, culprit.part, backend, toolkit, options, culprit.error)


def _reason(error: BackendError) -> str:
    """What the vendor's message means, then the message; the message alone where nobody knows."""
    known = _explained(error)
    return f"{known.cause} [{known.text}]" if known else str(error)


def _explained(error: BackendError) -> Explanation | None:
    return next(iter(explain(f"{error}\n{error.facts.get('tail', '')}")), None)
