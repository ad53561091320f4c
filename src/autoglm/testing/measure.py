"""Measure what a backend really takes: every case through compile, open and run, in a killable
process.
"""

from __future__ import annotations

import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoglm.catalog.features import features, signature
from autoglm.catalog.packs import OpVersion, Pack, dumps, row_order, with_rows
from autoglm.catalog.rules import Row
from autoglm.errors import AutoGLMError, BackendUnavailableError
from autoglm.spec import Backend, CompileOptions, NodeFacts, RunOptions
from autoglm.testing.cases import Case, all_cases, plain_first, with_constants
from autoglm.testing.judge import RIGHT, Answer, judge
from autoglm.testing.schemas import layout_of
from autoglm.testing.worker import Lost, ask_all

if TYPE_CHECKING:
    import onnx_ir as ir

Progress = Callable[[int, int], None]
_REASON_CHARS = 160
# Of the largest value of an answer, for one operator that computes in that precision.
WITHIN = {"fp16": 0.01, "bf16": 0.05, "int8": 0.1}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one case showed: `yes`, `refused`, `imprecise`, `wrong` or `skipped`, and its nodes."""

    case: str
    outcome: str
    reason: str = ""
    nodes: tuple[NodeFacts, ...] = ()


def measure(
    backend_name: str,
    *,
    progress: Progress | None = None,
    cases: Sequence[Case] | None = None,
    jobs: int = 1,
    timeout_s: float = 20.0,
    limit_s: float | None = None,
    resume: Pack | None = None,
    precision: str = "",
) -> Pack:
    """Run every case on the installed version and return the pack.

    With `limit_s` the plainest use of every operator comes first; what was not reached in time
    stays unknown. With `resume`, a pack of the same version with today's features
    (`redescribed`), only what it has no row for is run, and its rows stay. With `precision` the
    plain uses that work in fp32 are run in it, calibrated on their own inputs: the pack is one of
    its own, `<backend>-<precision>`.
    """
    import onnx

    from autoglm import registry

    version = registry.backend(backend_name).version()
    if not version:
        raise BackendUnavailableError(
            "Backend {name} cannot be measured: its toolkit is not installed.", name=backend_name
        )
    if cases is None:
        cases = plain_cases(backend_name) if precision else all_cases()
    asked = list(cases)
    if resume is not None and resume.version == version:
        asked = unmeasured(resume, asked)
    else:
        name = pack_name(backend_name, precision)
        resume = Pack(name, version, f"{backend_name} {version}", onnx.__version__)
    if limit_s is not None:
        asked = plain_first(asked)
    findings = examine(
        backend_name,
        asked,
        progress=progress,
        jobs=jobs,
        timeout_s=timeout_s,
        limit_s=limit_s,
        precision=precision,
    )
    return with_rows(resume, rows_of(findings))


def pack_name(backend_name: str, precision: str = "") -> str:
    """What a pack of that precision is called."""
    return f"{backend_name}-{precision}" if precision else backend_name


def plain_cases(backend_name: str) -> list[Case]:
    """Each operator's plainest use in float32 that the backend's table takes, with its other
    inputs computed and as constants.
    """
    from autoglm import registry
    from autoglm.testing.conformance import core_cases, supports

    table = registry.backend(backend_name).capabilities()
    plain = [case for case in core_cases() if case.name.endswith(":float32")]
    both = [c for case in plain for c in (case, with_constants(case)) if c is not None]
    return [case for case in both if supports(table, nodes_of(load(case))).ok]


def redescribed(pack: Pack, cases: Iterable[Case]) -> Pack:
    """The pack with today's features in its rows; a row stays as it was where no case of its name
    is among `cases`.
    """
    made = {case.name: case for case in cases}
    nodes = cache(lambda name: nodes_of(load(made[name])))
    ops: dict[str, dict[int, OpVersion]] = defaultdict(dict)
    for op, versions in pack.ops.items():
        for since, version in versions.items():
            rows: dict[Any, Row] = {}
            for row in version.rows:
                asked = nodes(row.case) if row.case in made else ()
                new = next((n for n in asked if _describes(n, op, since, row)), None)
                fresh = row if new is None else _with_features(row, new)
                rows.setdefault((fresh.key, fresh.outcome), fresh)
            ordered = tuple(sorted(rows.values(), key=row_order))
            ops[op][since] = replace(version, rows=ordered)
    return replace(pack, ops=dict(ops))


def _describes(node: NodeFacts, op: str, since: int, row: Row) -> bool:
    if (node.op, node.since) != (op, since):
        return False
    today = _with_features(row, node)
    return today.dtypes == row.dtypes and row.features.items() <= today.features.items()


def _with_features(row: Row, node: NodeFacts) -> Row:
    layout = layout_of(node.op, node.since)
    return replace(row, dtypes=signature(node, layout), features=features(node, layout))


def unmeasured(pack: Pack, cases: Iterable[Case]) -> list[Case]:
    """The cases with a node of which the pack has no row."""
    known = {(op, since, row.key) for op, since, row in pack.rows()}
    return [case for case in cases if not _asked(case) <= known]


def _asked(case: Case) -> set[tuple[str, int, Any]]:
    try:
        nodes = nodes_of(load(case))
    except Exception:  # `find` says why
        return set()
    return {(n.op, n.since, row_of(n, Finding(case.name, "")).key) for n in nodes}


def row_of(node: NodeFacts, finding: Finding) -> Row:
    """What a finding says of one of its nodes."""
    layout = layout_of(node.op, node.since)
    found, dtypes = features(node, layout), signature(node, layout)
    return Row(dtypes, found, finding.outcome, finding.reason, finding.case)


def examine(
    backend_name: str,
    cases: Sequence[Case],
    *,
    progress: Progress | None = None,
    jobs: int = 1,
    timeout_s: float = 20.0,
    limit_s: float | None = None,
    precision: str = "",
) -> list[Finding]:
    """One finding per case, in their order; a crash or a time-out is a refusal that says so."""
    answers = ask_all(
        "autoglm.testing.measure:examiner",
        (backend_name, precision),
        cases,
        jobs=jobs,
        timeout_s=timeout_s,
        progress=progress,
        limit_s=limit_s,
    )
    return [_settled(c, a) for c, a in zip(cases, answers, strict=True)]


def _settled(case: Case, answer: Any) -> Finding:
    if answer is None:
        return Finding(case.name, "skipped", "not reached in time")
    if not isinstance(answer, Lost):
        return answer  # type: ignore[no-any-return]
    reason = f"{answer.kind}: {answer.detail}"
    return Finding(case.name, "refused", reason, nodes_of(load(case)))


def examiner(backend_name: str, precision: str = "") -> Callable[[Case], Finding]:
    """What a worker answers with, in the child."""
    from autoglm import registry

    backend = registry.backend(backend_name)
    return lambda case: find(backend, case, precision)


def find(backend: Backend, case: Case, precision: str = "") -> Finding:
    """One case on one backend, in this process; in another precision as near as that can be."""
    try:
        model = load(case)
        nodes = nodes_of(model)
    except Exception as error:  # a case that our own frontend refuses measures no backend
        return Finding(case.name, "skipped", first_line(error))
    try:
        if precision:
            answer = ask(backend, model, _wider(case, precision), _options(model, case, precision))
        else:
            answer = ask(backend, model, case)
    except Exception as error:  # an engine may raise anything; that is the finding
        return Finding(case.name, "refused", first_line(error), nodes)
    return Finding(case.name, answer.outcome, answer.reason, nodes)


def _wider(case: Case, precision: str) -> Case:
    """The case, asked for as near as one operator can be in that precision."""
    import numpy as np

    values = [np.abs(np.asarray(v, np.float64)) for _, outputs in case.data for v in outputs]
    largest = max((float(v.max()) for v in values if v.size), default=0.0)
    return replace(case, rtol=0.0, atol=WITHIN[precision] * max(largest, 1e-3))


def _options(model: ir.Model, case: Case, precision: str) -> CompileOptions:
    names = [str(v.name) for v in model.graph.inputs]
    samples = [dict(zip(names, inputs, strict=True)) for inputs, _ in case.data]
    return CompileOptions(precision=precision, calibration=samples, threads=1)


def ask(
    backend: Backend, model: ir.Model, case: Case, options: CompileOptions | None = None
) -> Answer:
    """Compile, open, run and judge every data set; the first answer that is not right."""
    with tempfile.TemporaryDirectory(prefix="autoglm-case-") as folder:
        out = Path(folder)
        artifact = backend.compile(model, options or CompileOptions(threads=1), out)
        session = backend.open(artifact, out, RunOptions(threads=1))
        try:
            for inputs, outputs in case.data:
                names = [str(v.name) for v in model.graph.inputs]
                got = session.run(dict(zip(names, inputs, strict=True)))
                answer = judge(case, outputs, tuple(got[str(v.name)] for v in model.graph.outputs))
                if answer.outcome != "yes":
                    return answer
        finally:
            session.close()
    return replace(RIGHT, runs_on=str(artifact.meta.get("runs_on", "")))


def load(case: Case) -> ir.Model:
    """The case's model as every backend sees one: through the ONNX frontend."""
    from autoglm import registry

    return registry.frontends()["onnx"].load(case.proto())


def nodes_of(model: ir.Model) -> tuple[NodeFacts, ...]:
    """The model's nodes as tables see them."""
    from autoglm.rewrite.facts import node_facts

    return tuple(node_facts(model))


_NOISE = (
    (re.compile(r"0x[0-9a-fA-F]+"), "0x…"),
    (re.compile(r"(/[\w.+-]+){2,}/"), "…/"),
    (re.compile(r"\.(cc|cpp|hpp|h|py):\d+"), r".\1"),
    (re.compile(r"\bautoglm-case-\w+"), "…"),
    (re.compile(r" node with name '[^']*'|\(node:'[^']*' ep:'[^']*'\)|Name:'[^']*' "), ""),
    (re.compile(r"\s+"), " "),
)


def first_line(error: BaseException) -> str:
    """The first line that says something, without what changes from run to run."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines)
    for pattern, calm in _NOISE:
        text = pattern.sub(calm, text)
    text = text if len(text) <= _REASON_CHARS else text[: _REASON_CHARS - 1] + "…"
    return text if isinstance(error, AutoGLMError) else f"{type(error).__name__}: {text}"


def rows_of(findings: Iterable[Finding]) -> dict[str, dict[int, OpVersion]]:
    """Rows by operator and version.

    A case of one node speaks for that node. A case of several that answers rightly speaks for
    each; one that
    fails speaks for a node only where every other node is known to work.
    """
    asked = [f for f in findings if f.nodes and f.outcome != "skipped"]
    rows: dict[tuple[str, int], dict[Any, Row]] = defaultdict(dict)
    worked = set()
    for finding in asked:
        if finding.outcome == "yes" or len(finding.nodes) == 1:
            for node in finding.nodes:
                _add(rows, node, finding)
            worked |= {_kind(n) for n in finding.nodes if finding.outcome == "yes"}
    for finding in asked:
        if finding.outcome != "yes" and len(finding.nodes) > 1:
            suspects = {_kind(n): n for n in finding.nodes if _kind(n) not in worked}
            if len(suspects) == 1:
                _add(rows, next(iter(suspects.values())), finding)
            elif not suspects:
                _add(rows, _together(finding.nodes), finding)
    ops: dict[str, dict[int, OpVersion]] = defaultdict(dict)
    for (op, since), found in rows.items():
        ops[op][since] = OpVersion(
            layout_of(op, since), tuple(sorted(found.values(), key=row_order))
        )
    return dict(ops)


def _kind(node: NodeFacts) -> tuple[str, int, tuple[str, ...]]:
    return node.op, node.since, signature(node, layout_of(node.op, node.since))


def _together(nodes: Sequence[NodeFacts]) -> NodeFacts:
    """Nodes that work apart and fail together, as one row of their own:
    `DequantizeLinear+MatMul`.
    """
    name = "+".join(dict.fromkeys(n.op for n in nodes))
    return replace(nodes[0], op=name, since=1, attributes={}, body=())


def _add(rows: dict[tuple[str, int], dict[Any, Row]], node: NodeFacts, finding: Finding) -> None:
    row = row_of(node, finding)
    found = rows[(node.op, node.since)]
    key = (row.key, row.outcome)
    found[key] = replace(found[key], count=found[key].count + 1) if key in found else row


def write_pack(pack: Pack, folder: Path) -> Path:
    """Write `<backend>-<version>.json`; the same measurement writes the same bytes."""
    from autoglm.tensor.files import atomic_write

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{pack.backend}-{pack.version}.json"
    atomic_write(path, dumps(pack).encode())
    return path


@dataclass(frozen=True, slots=True)
class PackDiff:
    """What changed between two measurements, one sentence per row."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """True when both packs say the same."""
        return not (self.added or self.removed or self.changed)


def diff_packs(old: Pack, new: Pack) -> PackDiff:
    """Rows that came, went, or have another outcome."""
    before, after = _outcomes(old), _outcomes(new)
    added = [f"{_title(k)}: {v}" for k, v in after.items() if k not in before]
    removed = [f"{_title(k)}: {v}" for k, v in before.items() if k not in after]
    changed = [
        f"{_title(k)}: {before[k]} -> {v}" for k, v in after.items() if before.get(k, v) != v
    ]
    return PackDiff(tuple(sorted(added)), tuple(sorted(removed)), tuple(sorted(changed)))


def _outcomes(pack: Pack) -> dict[Any, str]:
    found: dict[Any, set[str]] = defaultdict(set)
    for op, since, row in pack.rows():
        text = row.outcome + (f" ({row.reason})" if row.reason else "")
        found[(op, since, row.key)].add(text)
    return {key: " or ".join(sorted(texts)) for key, texts in found.items()}


def _title(key: Any) -> str:
    op, since, (dtypes, found) = key
    shown = " ".join(f"{k}={v}" for k, v in found)
    return f"{op}@{since} of {', '.join(dtypes) or 'no dtype'} [{shown}]"
