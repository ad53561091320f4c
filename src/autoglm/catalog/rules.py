"""From measured rows to rules: the smallest condition that separates what failed from what worked.

How a verdict generalises beyond what was measured:

- dtypes never do, except that positions typed apart (Gather's data and indices) combine when each
  was seen to work;
- numbers, ranks, list lengths and shapes do: a node that meets no failing condition is a yes;
- a string attribute never does: `mode="foo"` that was never measured is unknown;
- an operator version between two measured ones inherits what both say; any other version is
  unknown;
- a dtype that was measured only in a neighbouring version counts, where this version takes
  anything;
- a refusal generalises from two different rows on; from one, and from crashes and values that are
  not finite, which may be about the numbers, it holds for that very question and is unknown for
  its like;
- what the toolkit refuses of every operator alike (open dimensions) is refused of those that were
  never asked with it (`Habits`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from autoglm.catalog.features import (
    FREE_TEXT,
    UNKNOWN,
    Feature,
    Features,
    Layout,
    features,
    signature,
)
from autoglm.spec import Constraint, Evidence, NodeFacts, Support, Verdict, no, unknown, yes

DTYPE = "dtype"
ABSENT = "absent"
_PAIR = 2  # conditions of more features are exact: one kind of node, described whole
# The order in which equally good conditions are believed: a limit is rather about a mode than
# about an axis.
_ORDER = (
    "attr.str",
    DTYPE,
    "given",
    "dtype.",
    "empty",
    "dynamic",
    "outputs",
    "inputs",
    "rank",
    "constant",
    "result",
    "reduced",
    "plane",
    "len",
    "shapes",
    "attr.",
)
_VERBS = {
    "wrong": "answers wrongly",
    "imprecise": "is less exact than its cases ask",
    "refused": "is refused",
}
# What a process died of, or made of infinities, says nothing of other numbers.
_UNSTEADY = re.compile(
    r"signal SIG|Segmentation fault|crash:|NaN or inf"
    r"|timeout:|time limit|no end after|no answer within"
)
_FIRM = 2  # different steady rows that a refusal generalises from
_EVERYWHERE = 20  # operators that a limit of the whole toolkit was seen with
Literal = tuple[str, Feature]
Literals = tuple[Literal, ...]
Question = tuple[tuple[str, ...], tuple[Literal, ...]]


def unsteady(reason: str) -> bool:
    """Whether a failure may be about the numbers, the machine or chance: a crash, a time-out, or an
    infinity in another place.
    """
    return bool(_UNSTEADY.search(reason))


@dataclass(frozen=True, slots=True)
class Habits:
    """What a whole pack says of its toolkit, before any operator is looked at."""

    open_dimensions: str = ""  # why no operator takes them; "" where some do


@dataclass(frozen=True, slots=True)
class Row:
    """What one or more identical cases showed: `yes`, `refused`, `imprecise` or `wrong`."""

    dtypes: tuple[str, ...]
    features: Features
    outcome: str
    reason: str = ""
    case: str = ""
    count: int = 1

    @property
    def key(self) -> Question:
        """What makes two rows the same question."""
        return self.dtypes, tuple(sorted(self.features.items()))


def whole(dtypes: tuple[str, ...], found: Features, layout: Layout) -> dict[str, Feature]:
    """The features with the signature among them, whole and by position."""
    whole: dict[str, Feature] = {DTYPE: ", ".join(dtypes), **found}
    if len(dtypes) > 1:
        for position, dtype in zip(layout.typed, dtypes, strict=True):
            whole[f"dtype.{layout.name(position)}"] = dtype
    return whole


@dataclass(frozen=True, slots=True)
class Condition:
    """Nodes for which every literal holds fail, for `reason`."""

    literals: Literals
    outcome: str
    reason: str
    cases: int
    firm: bool = True  # holds for what was never measured, too

    def holds(self, found: Features) -> bool | None:
        """True, False, or None where a feature of the node is not known."""
        sure = True
        for key, value in self.literals:
            have = found.get(key, ABSENT)
            if have != value:
                if UNKNOWN not in str(have):
                    return False
                sure = False
        return True if sure else None

    def text(self, op: str) -> str:
        """One sentence: what is limited, then what happened."""
        if self.by_value:
            subject = f"{op} of {dict(self.literals)[DTYPE]} as used here, for some values,"
        else:
            where = " ".join(filter(None, (_say(k, v) for k, v in self.literals)))
            subject = f"{op} {where}".rstrip()
        verb = _VERBS[self.outcome]
        shown = f": {self.reason}" if self.outcome == "refused" else f" ({self.reason})"
        return subject + " " + verb + (shown if self.reason else "")

    @property
    def by_value(self) -> bool:
        """Nothing about the node tells failing from working: it is in the values."""
        return len(self.literals) > _PAIR

    @property
    def constraint(self) -> Constraint:
        """Which kind of limit this is."""
        if self.by_value or unsteady(self.reason):
            return Constraint.VALUE
        if self.outcome != "refused":
            return Constraint.ANSWER if self.outcome == "wrong" else Constraint.PRECISION
        if not self.literals:
            return Constraint.OP
        return _constraint(self.literals[0][0])


def _constraint(key: str) -> Constraint:
    if key == DTYPE or key.startswith("dtype."):
        return Constraint.DTYPE
    if key.startswith("rank"):
        return Constraint.RANK
    return (
        Constraint.SHAPE
        if key in ("empty", "dynamic", "shapes", "result", "reduced", "plane")
        else Constraint.ATTRIBUTE
    )


def _say(key: str, value: Feature) -> str:
    kind, _, name = key.partition(".")
    if value == ABSENT:
        return f"without {name}"
    texts = {
        DTYPE: f"of {value}",
        "attr": f"{name}={value}",
        "len": f"with {value} {name}",
        "given": f"with input {name}" if value else f"without input {name}",
        "constant": f"with a constant {name}" if value else f"with a computed {name}",
        "rank": f"with {name or 'input'} of rank {value}",
        "empty": "of an empty tensor" if value else "",
        "dynamic": "with open dimensions" if value else "with fixed dimensions",
        "shapes": f"with input shapes: {value}",
        "reduced": f"over axes: {value}",
        "plane": f"with a {value} plane",
        "result": f"with a result of {value} shape"
        if value == "equal"
        else f"with a {value} result",
        "outputs": f"with {value} outputs",
        "inputs": f"with {value}{'+' if value == 3 else ''} inputs",
    }
    return f"with {name} of {value}" if kind == DTYPE and name else texts[kind]


@dataclass(frozen=True, slots=True)
class _Case:
    """A row as the search sees it."""

    row: Row
    whole: Features


def derive(rows: Sequence[Row], layout: Layout) -> tuple[Condition, ...]:
    """Conditions that together cover every failing row and no passing row.

    A failing row whose features a passing row shares exactly (the limit is in the values) is
    refused whole: an
    engine that is sometimes wrong on a kind of node is not trusted with that kind.
    """
    raw = [whole(row.dtypes, row.features, layout) for row in rows]
    keys = sorted({key for found in raw for key in found})
    filled = [{key: found.get(key, ABSENT) for key in keys} for found in raw]
    cases = [_Case(row, found) for row, found in zip(rows, filled, strict=True)]
    good = [case.whole for case in cases if case.row.outcome == "yes"]
    found: list[Condition] = []
    for outcome in _VERBS:
        bad = [case for case in cases if case.row.outcome == outcome]
        while bad:
            condition = _best(bad, good)
            found.append(condition)
            bad = [case for case in bad if not condition.holds(case.whole)]
    return tuple(found)


def _best(bad: Sequence[_Case], good: Sequence[Features]) -> Condition:
    if not good:
        return _condition((), bad)
    for size in range(1, _PAIR + 1):
        options = _separating(bad, good, size)
        if options:
            best = max(options, key=lambda o: (len(options[o]), _rank(o)))
            return _condition(best, options[best])
    return _condition(tuple(sorted(bad[0].whole.items())), bad[:1])


def _separating(
    bad: Sequence[_Case], good: Sequence[Features], size: int
) -> dict[Literals, list[_Case]]:
    options: dict[Literals, list[_Case]] = {}
    for case in bad:
        known = [item for item in case.whole.items() if UNKNOWN not in str(item[1])]
        for literals in combinations(sorted(known, key=_place), size):
            options.setdefault(literals, []).append(case)
    return {o: c for o, c in options.items() if not any(_met(o, features) for features in good)}


def _met(literals: Literals, found: Features, default: Feature | None = None) -> bool:
    return all(found.get(key, default) == value for key, value in literals)


def _condition(literals: Literals, cases: Sequence[_Case]) -> Condition:
    rows = [case.row for case in cases]
    worst = rows[0]
    if worst.outcome != "refused":
        worst = max(rows, key=lambda row: (_magnitude(row.reason), row.reason))
    steady = {row.key for row in rows if not unsteady(row.reason)}
    firm = len(steady) >= _FIRM
    return Condition(literals, worst.outcome, worst.reason, sum(row.count for row in rows), firm)


def _magnitude(reason: str) -> float:
    number = re.search(r"max error ([\d.e+-]+)", reason)
    return float(number[1]) if number else 0.0


def _place(item: Literal) -> tuple[int, int, str, str]:
    key, value = item
    name = key
    if key.startswith("attr.") and isinstance(value, str) and not _numeric(value):
        name = "attr.str"
    prefixes = (
        i for i, p in enumerate(_ORDER) if (name == p if p == DTYPE else name.startswith(p))
    )
    return next(prefixes, len(_ORDER)), value == ABSENT, key, str(value)


def _numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text.startswith(("all ", "mixed", "with negative"))
    return True


def _rank(literals: Iterable[Literal]) -> tuple[int, ...]:
    return tuple(-n for item in literals for n in _place(item)[:2])


@dataclass(frozen=True, slots=True)
class Version:
    """What was measured of one operator version."""

    op: str
    since: int
    layout: Layout
    rows: tuple[Row, ...]
    conditions: tuple[Condition, ...]
    known: frozenset[tuple[str, ...]] = frozenset()  # signatures that worked in some case
    strings: Mapping[str, frozenset[str]] = field(default_factory=dict)
    failed: frozenset[Literals] = frozenset()  # whole questions
    habits: Habits = Habits()

    def verdict(self, node: NodeFacts) -> Support:
        """Yes, no or unknown for a node of this version."""
        dtypes = signature(node, self.layout)
        return self.judge(dtypes, whole(dtypes, features(node, self.layout), self.layout))

    def judge(self, dtypes: tuple[str, ...], found: Features) -> Support:
        """Yes, no or unknown for a signature and all its features."""
        if found.get("dynamic") and self.habits.open_dimensions:
            text = f"{self.op} with open dimensions is refused: {self.habits.open_dimensions}"
            return no(Constraint.SHAPE, text, Evidence.MEASURED)
        unsure = None
        for condition in self.conditions:
            holds = condition.holds(found)
            if holds and (condition.firm or self._failed(found)):
                return no(condition.constraint, condition.text(self.op), Evidence.MEASURED)
            if holds is not False:
                unsure = unsure or condition
        return (
            self._dtypes(dtypes)
            or self._strings(found)
            or self._unsure(unsure)
            or self._yes(dtypes)
        )

    def _failed(self, found: Features) -> bool:
        return any(_met(question, found, ABSENT) for question in self.failed)

    def _yes(self, dtypes: tuple[str, ...]) -> Support:
        return yes(Evidence.MEASURED if dtypes in self.known else Evidence.INFERRED)

    def _dtypes(self, dtypes: tuple[str, ...]) -> Support | None:
        if dtypes in self.known:
            return None
        seen = [{d[i] for d in self.known if i < len(d)} for i in range(len(dtypes))]
        if len(dtypes) > 1 and all(d in s for d, s in zip(dtypes, seen, strict=True)):
            return None
        measured = "; ".join(sorted({", ".join(row.dtypes) for row in self.rows}))
        if UNKNOWN in dtypes:
            return unknown(f"{self.op}: the dtype is not known before running", Constraint.DTYPE)
        text = f"{self.op} of {', '.join(dtypes)} was never measured; measured: {measured}"
        return unknown(text, Constraint.DTYPE)

    def _strings(self, found: Features) -> Support | None:
        for key, seen in self.strings.items():
            value = found.get(key)
            if isinstance(value, str) and value not in seen and key[5:] not in FREE_TEXT:
                measured = ", ".join(sorted(seen))
                text = f"{self.op} {key[5:]}={value} was never measured; measured: {measured}"
                return unknown(text, Constraint.ATTRIBUTE)
        return None

    def _unsure(self, condition: Condition | None) -> Support | None:
        if condition is None:
            return None
        text = f"{condition.text(self.op)}; whether that holds here is not known before running"
        if not condition.firm:
            text = f"{condition.text(self.op)}; whether its like is, was not measured"
        return unknown(text, condition.constraint)


def version_of(
    op: str, since: int, layout: Layout, rows: Sequence[Row], habits: Habits | None = None
) -> Version:
    """Rules for one operator version from its rows, and from what is known of the toolkit."""
    habits = habits or Habits()
    if habits.open_dimensions:  # the one rule for all says it
        rows = [row for row in rows if not row.features.get("dynamic")] or rows
    known = frozenset(row.dtypes for row in rows if row.outcome == "yes")
    conditions, strings = derive(rows, layout), _strings(rows)
    failed = _failures(rows, layout)
    return Version(op, since, layout, tuple(rows), conditions, known, strings, failed, habits)


def _strings(rows: Iterable[Row]) -> dict[str, frozenset[str]]:
    strings: dict[str, set[str]] = {}
    for row in rows:
        for key, value in row.features.items():
            if key.startswith("attr.") and isinstance(value, str) and not _numeric(value):
                strings.setdefault(key, set()).add(value)
    return {key: frozenset(values) for key, values in strings.items()}


def _failures(rows: Sequence[Row], layout: Layout) -> frozenset[Literals]:
    """The whole questions that were not answered rightly."""
    raw = [whole(row.dtypes, row.features, layout) for row in rows]
    keys = sorted({key for found in raw for key in found})
    filled = [tuple((key, found.get(key, ABSENT)) for key in keys) for found in raw]
    return frozenset(q for q, row in zip(filled, rows, strict=True) if row.outcome != "yes")


def habits_of(rows: Iterable[tuple[str, bool, bool]]) -> Habits:
    """From operator, open dimensions, and whether it worked, of every row of a pack."""
    loose = [row for row in rows if row[1]]
    everywhere = len({op for op, *_ in loose}) >= _EVERYWHERE and not any(r[2] for r in loose)
    text = "the toolkit takes fixed shapes only, in every case measured" if everywhere else ""
    return Habits(text)


@dataclass(frozen=True, slots=True)
class Measured:
    """The verdict on one operator from all its measured versions: an `OpRule.when`."""

    op: str
    versions: Mapping[int, Version]

    def __call__(self, node: NodeFacts) -> Support:
        """Yes, no or unknown."""
        exact = self.versions.get(node.since)
        if exact is not None:
            verdict = exact.verdict(node)
            blank = verdict.verdict is Verdict.UNKNOWN and verdict.constraint is Constraint.DTYPE
            return self._neighbour(node, verdict) if blank and exact.known else verdict
        below = max((v for v in self.versions if v < node.since), default=None)
        above = min((v for v in self.versions if v > node.since), default=None)
        measured = ", ".join(str(v) for v in sorted(self.versions))
        if below is None or above is None:
            text = f"{self.op} of opset {node.since} was never measured; measured: {measured}"
            return unknown(text, Constraint.OPSET)
        verdicts = [self.versions[v].verdict(node) for v in (below, above)]
        worst = next((v for v in verdicts if v.verdict is Verdict.NO), None)
        worst = worst or next((v for v in verdicts if v.verdict is Verdict.UNKNOWN), None)
        if worst is None:
            return yes(Evidence.INFERRED)
        return Support(worst.verdict, worst.constraint, worst.reason, Evidence.INFERRED)

    def _neighbour(self, node: NodeFacts, blank: Support) -> Support:
        nearest = sorted(self.versions, key=lambda v: (v > node.since, abs(v - node.since)))
        for since in nearest:
            version = self.versions[since]
            if signature(node, version.layout) in {row.dtypes for row in version.rows}:
                return replace(version.verdict(node), evidence=Evidence.INFERRED)
        return blank
