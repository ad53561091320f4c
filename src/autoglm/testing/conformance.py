"""The conformance suite that a backend inherits with one test class.

    class TestAcme(BackendConformance):
        backend = "acme"

Every cell climbs four levels: `declared` (the table says yes), `lowered` (the frontend reads the
case), `compiled`
(the real tool), `ran` (the answer is right). A declared cell has to reach `ran`.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from autoglm.catalog.packs import measured
from autoglm.catalog.rules import unsteady
from autoglm.errors import AutoGLMError, BackendUnavailableError, ConfigError
from autoglm.spec import Backend, Capabilities, Constraint, NodeFacts, Support, Verdict, yes
from autoglm.testing.cases import Case
from autoglm.testing.measure import (
    Finding,
    ask,
    examine,
    find,
    first_line,
    load,
    nodes_of,
    row_of,
)

if TYPE_CHECKING:
    import pytest

KINDS = ("notimpl", "notyet", "never")
_SAMPLE = 60
_CHUNK = 50  # cases of the blind test between two lines of progress


class Level(StrEnum):
    """How far a cell got."""

    REFUSED = "refused"
    DECLARED = "declared"
    LOWERED = "lowered"
    COMPILED = "compiled"
    RAN = "ran"


@dataclass(frozen=True, slots=True)
class Reached:
    """The highest level of one cell, and what stopped it there."""

    level: Level
    reason: str = ""
    runs_on: str = ""  # as `Answer` has it


@dataclass(frozen=True, slots=True)
class Expected:
    """A cell that is known not to reach `ran`: `notimpl`, `notyet` or `never`, and why."""

    kind: str
    reason: str


def reach(backend: Backend, case: Case) -> Reached:
    """Climb the levels. BackendUnavailableError passes through: a missing tool is not a failing
    cell.
    """
    try:
        model = load(case)
        nodes = nodes_of(model)
    except AutoGLMError as error:
        return Reached(Level.DECLARED, first_line(error))
    verdict = supports(backend.capabilities(), nodes)
    if not verdict.ok:
        return Reached(Level.REFUSED, f"{verdict.verdict}: {verdict.reason}")
    try:
        answer = ask(backend, model, case)
    except BackendUnavailableError:
        raise
    except Exception as error:
        return Reached(Level.LOWERED, first_line(error))
    if answer.outcome == "yes":
        return Reached(Level.RAN)
    return Reached(Level.COMPILED, f"{answer.outcome}: {answer.reason}")


def supports(table: Capabilities, nodes: Iterable[NodeFacts]) -> Support:
    """The first verdict that is not a yes; yes when every node is taken."""
    verdicts = (table.support(node) for node in nodes)
    return next((v for v in verdicts if not v.ok), yes())


def read_expected(path: Path) -> dict[str, Expected]:
    """`expect/<backend>.toml`: three tables, cell -> reason."""
    if not path.exists():
        return {}
    found: dict[str, Expected] = {}
    for kind, cells in tomllib.loads(path.read_text("utf-8")).items():
        if kind not in KINDS:
            raise ConfigError(
                "{path} has a table {kind!r}; expected one of {kinds}.",
                path=path,
                kind=kind,
                kinds=", ".join(KINDS),
            )
        found |= {cell: Expected(kind, reason) for cell, reason in cells.items()}
    return found


@cache
def core_cases() -> tuple[Case, ...]:
    """Per operator its plainest use in float32 and float16 (or its first dtype), and the patterns.

    The oldest version that a model can name is taken: it is what exporters write.
    """
    from autoglm.testing.generate import build, schema_dtypes, versions
    from autoglm.testing.operators import SPECS
    from autoglm.testing.patterns import patterns

    found: list[Case | None] = []
    for spec in SPECS:
        known = [v for v in versions(spec.op) if v >= spec.since]
        if spec.tag or not known:
            continue
        allowed = [d for d in spec.dtypes if d in schema_dtypes(spec.op, known[0])]
        usual = [d for d in ("float32", "float16") if d in allowed]
        found += [build(spec, known[0], d) for d in usual or allowed[:1]]
    return (*(case for case in found if case is not None), *patterns())


def full_cases() -> tuple[Case, ...]:
    """Everything a pack is measured with, and the patterns."""
    from autoglm.testing.cases import all_cases
    from autoglm.testing.patterns import patterns

    return (*all_cases(), *patterns())


def sample(cases: Iterable[Case], seed: int, size: int = _SAMPLE) -> tuple[Case, ...]:
    """A seeded sample, in its own order."""
    known = list(cases)
    return tuple(random.Random(seed).sample(known, min(size, len(known))))


def dishonest(backend: Backend, case: Case) -> str:
    """Where the table and the toolkit disagree about a case; "" where they agree, or the table
    says unknown.
    """
    found = find(backend, case)
    if found.outcome == "skipped":
        return ""
    verdict = supports(backend.capabilities(), found.nodes)
    if compared(verdict, found) in FALSE:
        # A crash counts where it comes twice: the first may be the machine's.
        if _unsteady(found) and find(backend, case).outcome != found.outcome:
            return ""
        said = f"the table says {verdict.verdict} {verdict.reason}"
        return f"{said}; it is {found.outcome} {found.reason}"
    return ""


FALSE = ("false no", "false yes")


def compared(verdict: Support, found: Finding) -> str:
    """How a table's verdict fares against what was found: `agree`, `unknown`, `by value` (it says
    that some such nodes fail, and this one does not), `false no` or `false yes`.
    """
    works = found.outcome == "yes"
    if verdict.verdict is Verdict.UNKNOWN:
        return "unknown"
    if verdict.ok == works:
        return "agree"
    if verdict.constraint is Constraint.VALUE:
        return "by value"
    return "false yes" if verdict.ok else "false no"


def _unsteady(found: Finding) -> bool:
    """A crash or a time-out differs from machine to machine: no suite may depend on it."""
    return found.outcome == "refused" and unsteady(found.reason)


def honesty(backend_name: str, size: int, seed: int, *, jobs: int = 1) -> Iterator[Judged]:
    """The blind test: `size` fresh cases, what the table says and what the toolkit does."""
    from autoglm import registry
    from autoglm.testing.fresh import fresh

    table = registry.backend(backend_name).capabilities()
    cases = fresh(size, seed)
    for start in range(0, size, _CHUNK):
        for found in examine(backend_name, cases[start : start + _CHUNK], jobs=jobs, timeout_s=90):
            if found.outcome == "skipped":
                continue
            verdict = supports(table, found.nodes)
            how = compared(verdict, found)
            kind = "unsteady" if how in FALSE and _unsteady(found) else how
            yield Judged(kind, verdict, found, all(_measured(table, n) for n in found.nodes))


def _measured(table: Capabilities, node: NodeFacts) -> bool:
    """Whether the pack has a row of this very question."""
    rule = table.table.get(node.op)
    found = None if rule is None else measured(rule)
    version = None if found is None else found.versions.get(node.since)
    key = row_of(node, Finding("", "")).key
    return version is not None and any(row.key == key for row in version.rows)


@dataclass(frozen=True, slots=True)
class Judged:
    """One case of the blind test: how verdict and finding compare."""

    kind: str
    verdict: Support
    found: Finding
    known: bool = False  # a case of the same features was measured, with other numbers


class BackendConformance:
    """Inherit, name the backend, and pytest runs the matrix.

    `expect` names the cells that do not reach `ran`. Without it a cell that the table refuses is
    skipped, with the
    table's reason; with it every such cell has to be named, and one that works after all fails the
    suite.
    """

    backend: ClassVar[str] = ""
    expect: ClassVar[Mapping[str, Expected] | None] = None

    @classmethod
    def cells(cls) -> tuple[Case, ...]:
        """The cases of this matrix."""
        return core_cases()

    @classmethod
    def plug(cls) -> Backend:
        """The backend under test."""
        from autoglm import registry

        return registry.backend(cls.backend)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test per cell."""
        if "cell" in metafunc.fixturenames:
            cells = self.cells()
            metafunc.parametrize("cell", cells, ids=[case.name for case in cells])

    def test_cell(self, cell: Case) -> None:
        """A declared cell runs and answers rightly; a cell expected to fail still fails."""
        import pytest

        check(
            self.plug(), cell, self.expect, skip=pytest.skip, fail=pytest.fail, xfail=pytest.xfail
        )

    def test_the_table_says_what_happens(self) -> None:
        """On a seeded sample, what the table says of a case is what compiling and running it
        shows.
        """
        wrong = [
            f"{c.name}: {t}" for c in sample(self.cells(), 1) if (t := dishonest(self.plug(), c))
        ]

        assert not wrong, "\n".join(wrong)


def check(
    backend: Backend,
    case: Case,
    expect: Mapping[str, Expected] | None,
    *,
    skip: Any,
    fail: Any,
    xfail: Any,
) -> None:
    """Judge one cell against what is expected of it."""
    if not backend.version():
        skip(f"not run: the toolkit of {backend.name} is not installed")
    try:
        reached = reach(backend, case)
    except BackendUnavailableError as error:
        skip(f"not run: {first_line(error)}")
    expected = (expect or {}).get(case.name)
    if reached.level is Level.RAN:
        if expected is not None:
            fail(f"{case.name} is marked {expected.kind} ({expected.reason}), but it runs")
        return
    if expected is not None:
        xfail(f"{expected.kind}: {expected.reason}")
    if expect is None and reached.level is Level.REFUSED:
        skip(reached.reason)
    fail(f"{case.name} got to {reached.level!s}: {reached.reason}")


def expected_of(backend: Backend, cases: Iterable[Case]) -> Iterator[str]:
    """Lines for `expect/<backend>.toml`: every cell that does not run now, to be sorted by hand."""
    yield "[notimpl]"
    for case in cases:
        reached = reach(backend, case)
        if reached.level is not Level.RAN:
            yield f"{_quoted(case.name)} = {_quoted(reached.reason)}"


def _quoted(text: str) -> str:
    import json

    return json.dumps(text, ensure_ascii=False)
