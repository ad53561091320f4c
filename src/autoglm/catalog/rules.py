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
- an answer that is a little off, where only the values tell it from a right one, is told of every
  node of its kind, whatever its rank and shapes: an approximation has none;
- where several features explain the same refusals equally well, a node that has one of the
  others is unknown; of a single refusal only where a single case worked: beside more cases, that
  would doubt what runs (an LSTM with initial states, for one refusal with peepholes);
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
from autoglm.messages import tr
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
    "reduced",
    "plane",
    "len",
    "values",
    "terms",
    "attr.",
    "shapes",
    "result",
)
# Features of shapes alone: they tell no value from another.
_SHAPELY = frozenset({"rank", "empty", "dynamic", "shapes", "result", "reduced", "plane", "terms"})
_FORMS = frozenset({"rank", "shapes", "result"})  # that no value ever depends on
_OUTCOMES = ("wrong", "imprecise", "refused")
# What a process died of, or made of infinities, says nothing of other numbers.
_UNSTEADY = re.compile(
    r"signal SIG|Segmentation fault|crash:|NaN or inf"
    r"|timeout:|time limit|no end after|no answer within"
)
_FIRM = 2  # different steady rows that a refusal generalises from
_SLIGHT = 1e-3  # of the answer: an approximation's error, not another function's
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

    fixed_shapes: bool = False  # no operator takes open dimensions, of the many that were asked


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
    by_value: bool = False  # nothing about the node tells failing from working
    rivals: Literals = ()  # each explains the same failures as well as the literals do

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

    def rival(self, found: Features) -> Condition | None:
        """The other explanation that this node meets, as a condition of its own."""
        met = next((r for r in self.rivals if found.get(r[0], ABSENT) == r[1]), None)
        return None if met is None else replace(self, literals=(met,), firm=False, rivals=())

    def text(self, op: str) -> str:
        """One sentence: what is limited, then what happened."""
        if self.by_value:
            dtypes = dict(self.literals)[DTYPE]
            subject = tr("{op} of {dtypes} as used here, for some values,", op=op, dtypes=dtypes)
        else:
            subject = " ".join(filter(None, (op, *(_say(k, v) for k, v in self.literals))))
        return _happened(subject, self.outcome, self.reason)

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


def _happened(subject: str, outcome: str, reason: str) -> str:
    facts = {"subject": subject, "reason": reason}
    match outcome, bool(reason):
        case "refused", True:
            return tr("{subject} is refused: {reason}", **facts)
        case "refused", False:
            return tr("{subject} is refused", subject=subject)
        case "wrong", True:
            return tr("{subject} answers wrongly ({reason})", **facts)
        case "wrong", False:
            return tr("{subject} answers wrongly", subject=subject)
        case _, True:
            return tr("{subject} is less exact than its cases ask ({reason})", **facts)
    return tr("{subject} is less exact than its cases ask", subject=subject)


def _constraint(key: str) -> Constraint:
    kind = key.partition(".")[0]
    if kind == DTYPE:
        return Constraint.DTYPE
    if kind == "rank":
        return Constraint.RANK
    return Constraint.SHAPE if kind in _SHAPELY else Constraint.ATTRIBUTE


def _say(key: str, value: Feature) -> str:
    kind, _, name = key.partition(".")
    if value == ABSENT:
        return tr("without {name}", name=name or kind)
    if kind in _SHAPELY:
        return _say_of_shapes(kind, name, value)
    match kind:
        case "attr":
            return f"{name}={value}"
        case "len":
            return tr("with {count} {name}", count=value, name=name)
        case "given" if value:
            return tr("with input {name}", name=name)
        case "given":
            return tr("without input {name}", name=name)
        case "constant" if value:
            return tr("with a constant {name}", name=name)
        case "constant":
            return tr("with a computed {name}", name=name)
        case "constants" if value:
            return tr("with a constant among its inputs")
        case "constants":
            return tr("with computed inputs only")
        case "values":
            return tr("with {name}: {values}", name=name, values=value)
        case "outputs":
            return tr("with {count} outputs", count=value)
        case "inputs":
            return tr("with {count} inputs", count="3+" if value == 3 else value)
    if name:
        return tr("with {name} of {value}", name=name, value=value)
    return tr("of {dtypes}", dtypes=value)


def _say_of_shapes(kind: str, name: str, value: Feature) -> str:
    match kind:
        case "rank" if name:
            return tr("with {name} of rank {rank}", name=name, rank=value)
        case "rank":
            return tr("with input of rank {rank}", rank=value)
        case "empty":
            return tr("of an empty tensor") if value else ""
        case "dynamic" if value:
            return tr("with open dimensions")
        case "dynamic":
            return tr("with fixed dimensions")
        case "shapes":
            return tr("with input shapes: {value}", value=value)
        case "reduced":
            return tr("over axes: {value}", value=value)
        case "plane":
            return tr("with a {value} plane", value=value)
        case "terms" if value:
            return tr("over more than {count} numbers", count=name)
        case "terms":
            return tr("over at most {count} numbers", count=name)
    if value == "equal":
        return tr("with a result of {value} shape", value=value)
    return tr("with a {value} result", value=value)


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
    for outcome in _OUTCOMES:
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
            found = _condition(best, options[best])
            doubted = size == 1 and (found.firm or len(good) == 1)
            rivals = _rivals(best, options) if doubted else ()
            return replace(found, rivals=rivals)
    return _by_value(bad)


def _rivals(best: Literals, options: Mapping[Literals, Sequence[_Case]]) -> Literals:
    """Of refusals, the single features that explain exactly the same ones."""
    covered = {id(case) for case in options[best]}
    if options[best][0].row.outcome != "refused":
        return ()
    return tuple(o[0] for o, c in options.items() if o != best and {id(x) for x in c} == covered)


def _by_value(bad: Sequence[_Case]) -> Condition:
    """A passing row is just like the first failing one: the numbers decide. Where it is a little
    off, as an approximation is, others of its kind may be, too, in whatever form they come.
    """
    first = bad[0]
    error, largest = _error(first.row.reason)
    slight = first.row.outcome == "wrong" and 0 < error <= _SLIGHT * largest
    forms = _FORMS if slight else frozenset()
    kind = [item for item in first.whole.items() if item[0].partition(".")[0] not in forms]
    literals = tuple(sorted(kind))
    found = _condition(literals, [case for case in bad if _met(literals, case.whole)])
    return replace(found, by_value=True, firm=slight or found.firm)


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
        worst = max(rows, key=lambda row: (_error(row.reason)[0], row.reason))
    steady = {row.key for row in rows if not unsteady(row.reason)}
    firm = len(steady) >= _FIRM
    return Condition(literals, worst.outcome, worst.reason, sum(row.count for row in rows), firm)


def _error(reason: str) -> tuple[float, float]:
    """The largest error that a reason names, and the answer's largest value; zeros without one."""
    found = re.search(r"max error ([\d.e+-]+) of ([\d.e+-]+)", reason)
    return (float(found[1]), float(found[2])) if found else (0.0, 0.0)


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
    asked_open: bool = False  # whether this operator itself was asked with open dimensions

    def verdict(self, node: NodeFacts) -> Support:
        """Yes, no or unknown for a node of this version."""
        dtypes = signature(node, self.layout)
        return self.judge(dtypes, whole(dtypes, features(node, self.layout), self.layout))

    def judge(self, dtypes: tuple[str, ...], found: Features) -> Support:
        """Yes, no or unknown for a signature and all its features."""
        if found.get("dynamic") and self.habits.fixed_shapes:
            return self._open()
        unsure = None
        for condition in self.conditions:
            holds = condition.holds(found)
            if holds and (condition.firm or self._failed(found)):
                return no(condition.constraint, condition.text(self.op), Evidence.MEASURED)
            unsure = unsure or (condition.rival(found) if holds is False else condition)
        return (
            self._unsure(unsure)
            or self.unheard(dtypes)
            or self._strings(found)
            or self._yes(dtypes)
        )

    def _open(self) -> Support:
        reason = tr("the toolkit takes fixed shapes only, in every case measured")
        subject = tr("{op} with open dimensions", op=self.op)
        evidence = Evidence.MEASURED if self.asked_open else Evidence.INFERRED
        return no(Constraint.SHAPE, _happened(subject, "refused", reason), evidence)

    def _failed(self, found: Features) -> bool:
        return any(_met(question, found, ABSENT) for question in self.failed)

    def _yes(self, dtypes: tuple[str, ...]) -> Support:
        return yes(Evidence.MEASURED if dtypes in self.known else Evidence.INFERRED)

    def unheard(self, dtypes: tuple[str, ...]) -> Support | None:
        """Why nothing is known to work with these dtypes; None where something is."""
        if dtypes in self.known:
            return None
        seen = [{d[i] for d in self.known if i < len(d)} for i in range(len(dtypes))]
        if len(dtypes) > 1 and all(d in s for d, s in zip(dtypes, seen, strict=True)):
            return None
        if UNKNOWN in dtypes:
            told = tr("{op}: the dtype is not known before running", op=self.op)
            return unknown(told, Constraint.DTYPE)
        facts = {"op": self.op, "dtypes": ", ".join(dtypes)}
        if any(row.dtypes == dtypes for row in self.rows):
            works = _listed(self.known)
            told = tr(
                "{op} of {dtypes} failed in every case; worked: {works}", works=works, **facts
            )
            return unknown(told, Constraint.OP)
        measured = _listed(row.dtypes for row in self.rows)
        told = tr(
            "{op} of {dtypes} was never measured; measured: {measured}", measured=measured, **facts
        )
        return unknown(told, Constraint.DTYPE)

    def _strings(self, found: Features) -> Support | None:
        for key, seen in self.strings.items():
            value = found.get(key)
            if isinstance(value, str) and value not in seen and key[5:] not in FREE_TEXT:
                told = tr(
                    "{op} {name}={value} was never measured; measured: {measured}",
                    op=self.op,
                    name=key[5:],
                    value=value,
                    measured=", ".join(sorted(seen)),
                )
                return unknown(told, Constraint.ATTRIBUTE)
        return None

    def _unsure(self, condition: Condition | None) -> Support | None:
        if condition is None:
            return None
        limit = condition.text(self.op)
        if condition.firm:
            told = tr("{limit}; whether that holds here is not known before running", limit=limit)
        else:
            told = tr("{limit}; whether its like is, was not measured", limit=limit)
        limited = condition.constraint
        # `DTYPE` says of an unknown that nobody asked; here somebody did, and it failed.
        return unknown(told, Constraint.OP if limited is Constraint.DTYPE else limited)


def _listed(signatures: Iterable[tuple[str, ...]]) -> str:
    return "; ".join(sorted({", ".join(dtypes) for dtypes in signatures}))


def version_of(
    op: str, since: int, layout: Layout, rows: Sequence[Row], habits: Habits | None = None
) -> Version:
    """Rules for one operator version from its rows, and from what is known of the toolkit."""
    habits = habits or Habits()
    asked_open = any(row.features.get("dynamic") for row in rows)
    if habits.fixed_shapes:  # the one rule for all says it
        rows = [row for row in rows if not row.features.get("dynamic")] or rows
    return Version(
        op,
        since,
        layout,
        tuple(rows),
        derive(rows, layout),
        known=frozenset(row.dtypes for row in rows if row.outcome == "yes"),
        strings=_strings(rows),
        failed=_failures(rows, layout),
        habits=habits,
        asked_open=asked_open,
    )


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
    return Habits(everywhere)


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
            asked = exact.known and verdict.verdict is Verdict.UNKNOWN
            blank = asked and exact.unheard(signature(node, exact.layout)) is not None
            return self._neighbour(node, verdict) if blank else verdict
        below = max((v for v in self.versions if v < node.since), default=None)
        above = min((v for v in self.versions if v > node.since), default=None)
        measured = ", ".join(str(v) for v in sorted(self.versions))
        if below is None or above is None:
            told = tr(
                "{op} of opset {since} was never measured; measured: {measured}",
                op=self.op,
                since=node.since,
                measured=measured,
            )
            return unknown(told, Constraint.OPSET)
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
