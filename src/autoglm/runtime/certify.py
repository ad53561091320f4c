"""Proof by comparison: each partition, and the whole, against the fp32 answer on the same feeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm import registry
from autoglm.runtime.golden import Golden
from autoglm.runtime.session import PlanSession, remark_of
from autoglm.spec import (
    Certificate,
    CompileOptions,
    Feeds,
    Partition,
    RunOptions,
    Session,
    Value,
)
from autoglm.tensor.accuracy import TOLERANCE, Difference, compare, passes

if TYPE_CHECKING:
    import onnx_ir as ir


def certify(
    session: PlanSession,
    golden: str,
    answers: Sequence[dict[str, Value]],
    feeds: Sequence[Feeds],
    *,
    precision: str,
    max_error: float | None,
) -> list[Certificate]:
    """One certificate a partition, fed with fp32 inputs, then one for the model end to end.

    `answers` are the golden engine's outputs and boundary tensors for each of `feeds`.
    """
    certificates = []
    if len(session.partitions) > 1:
        for partition in session.partitions:
            part = session.part(partition.id)
            worst = _worst_of_part(part, partition, answers, feeds)
            found = _certificate(
                partition.id, partition.precision, golden, worst, len(feeds), max_error
            )
            certificates.append(replace(found, remark=remark_of(part)))
    outputs = [o.name for o in session.outputs]
    whole = _worst(
        compare({n: answer[n] for n in outputs}, session.run(feed))
        for feed, answer in zip(feeds, answers, strict=True)
    )
    found = _certificate("model", precision, golden, whole, len(feeds), max_error)
    return [*certificates, replace(found, remark="; ".join(session.remarks))]


def first_divergence(
    model: ir.Model,
    backend: str,
    options: CompileOptions,
    feeds: Feeds,
    work: Path,
    *,
    max_error: float | None,
) -> str:
    """The first node, in topological order, whose output leaves the tolerance; "" where none does.

    Both sides are compiled anew with every tensor as an output. An engine that then fuses less may
    agree where the certificate did not: the answer is "" and the model is only wrong as a whole.
    """
    from autoglm.rewrite.extract import outputs_all
    from autoglm.rewrite.facts import sources, topological
    from autoglm.runtime.build import compile_part

    nodes = topological(model.graph)
    names = [v.name for n in nodes for v in n.outputs if v.name and v.type is not None]
    artifact, _ = compile_part(outputs_all(model, names), backend, options, work, use_cache=False)
    session = registry.backend(backend).open(artifact, work, RunOptions(threads=options.threads))
    try:
        got = session.run(feeds)
    finally:
        session.close()
    with Golden(model, names) as golden:
        want = golden.run(feeds)
    for node in nodes:
        for value in node.outputs:
            name = value.name or ""
            if name not in want or name not in got:
                continue
            if not passes(compare(want[name], got[name]), options.precision, max_error):
                return sources(node)[0]
    return ""


def _worst_of_part(
    part: Session, partition: Partition, answers: Sequence[dict[str, Value]], feeds: Sequence[Feeds]
) -> Difference:
    def one(feed: Feeds, answer: dict[str, Value]) -> Difference:
        known = {**answer, **feed}
        got = part.run({i.name: known[i.name] for i in part.inputs if i.name in known})
        return compare({name: answer[name] for name in got if name in answer}, got)

    return _worst(one(feed, answer) for feed, answer in zip(feeds, answers, strict=True))


def _worst(differences: Iterable[Difference]) -> Difference:
    """The worst of each figure: one feed may fail by SQNR while another has the largest error."""
    found = list(differences)
    return replace(
        max(found, key=lambda d: d.max_relative),
        max_abs=max(d.max_abs for d in found),
        sqnr_db=min(d.sqnr_db for d in found),
        cosine=min(d.cosine for d in found),
        mismatches=sum(d.mismatches for d in found),
    )


def _certificate(
    subject: str,
    precision: str,
    golden: str,
    worst: Difference,
    samples: int,
    max_error: float | None,
) -> Certificate:
    return Certificate(
        subject=subject,
        precision=precision,
        golden=golden,
        max_relative_error=worst.max_relative,
        sqnr_db=worst.sqnr_db,
        cosine=worst.cosine,
        tolerance=max_error if max_error is not None else TOLERANCE[precision].max_relative,
        passed=passes(worst, precision, max_error),
        samples=samples,
        detail=worst.detail,
    )
