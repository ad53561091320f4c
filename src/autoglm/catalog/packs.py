"""Measured packs on disk: one JSON file per backend and version, one line per row, and the table
it becomes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from autoglm.catalog.features import Layout
from autoglm.catalog.rules import Habits, Measured, Row, habits_of, version_of
from autoglm.errors import FileMissingError
from autoglm.messages import language
from autoglm.spec import Capabilities, Evidence, NodeFacts, OpRule, OpTable, Support, Verdict

FOLDER = Path(__file__).parent / "packs"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class OpVersion:
    """The measured rows of one operator version, and how to read a node of it."""

    layout: Layout
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Pack:
    """Everything that was measured of one backend version."""

    backend: str
    version: str
    toolkit: str  # as the user reads it: "onnxruntime 1.32.0"
    onnx: str
    ops: Mapping[str, Mapping[int, OpVersion]] = field(default_factory=dict)

    def rows(self) -> Iterator[tuple[str, int, Row]]:
        """Every row with its operator and version."""
        for op, versions in self.ops.items():
            for since, version in versions.items():
                for row in version.rows:
                    yield op, since, row


def dumps(pack: Pack) -> str:
    """The file: sorted, one row per line, so that two measurements can be compared line by line."""
    head = {
        "format": FORMAT,
        "backend": pack.backend,
        "version": pack.version,
        "toolkit": pack.toolkit,
        "onnx": pack.onnx,
    }
    lines = [json.dumps(head, ensure_ascii=False)[:-1] + ', "ops": {']
    blocks = [
        _op_lines(op, since, v)
        for op in sorted(pack.ops)
        for since, v in sorted(pack.ops[op].items())
    ]
    return "\n".join([*lines, ",\n".join(blocks), "}}"]) + "\n"


def _op_lines(op: str, since: int, version: OpVersion) -> str:
    layout = version.layout
    head = [
        list(layout.typed),
        list(layout.inputs),
        layout.required,
        layout.variadic,
        dict(layout.defaults),
    ]
    keys = sorted({key for row in version.rows for key in row.features})
    rows = sorted(version.rows, key=row_order)
    body = ",\n".join("  " + _compact(_row_json(row, keys)) for row in rows)
    start = f'{json.dumps(f"{op}@{since}")}: {{"layout": {_compact(head)},'
    return f'{start} "features": {_compact(keys)}, "rows": [\n{body}]}}'


def row_order(row: Row) -> tuple[object, ...]:
    """How rows are sorted in a file."""
    return row.dtypes, json.dumps(row.features, sort_keys=True), row.outcome


def _row_json(row: Row, keys: list[str]) -> list[Any]:
    values = [row.features.get(key) for key in keys]
    while values and values[-1] is None:
        values.pop()
    head = [",".join(row.dtypes), values, row.outcome, row.count, row.case]
    return [*head, row.reason] if row.reason else head


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def parse(text: str) -> dict[str, Any]:
    """The file as JSON; rows become `Row` only for the operators that are asked about."""
    return dict(json.loads(text))


def pack_of(raw: Mapping[str, Any]) -> Pack:
    """The whole pack as values."""
    ops: dict[str, dict[int, OpVersion]] = {}
    for key, value in raw["ops"].items():
        op, since = key.rsplit("@", 1)
        ops.setdefault(op, {})[int(since)] = _op_version(value)
    return Pack(raw["backend"], raw["version"], raw["toolkit"], raw["onnx"], ops)


def _op_version(value: Mapping[str, Any]) -> OpVersion:
    typed, inputs, required, variadic, defaults = value["layout"]
    layout = Layout(tuple(typed), tuple(inputs), required, variadic, defaults)
    return OpVersion(layout, tuple(_row(r, value["features"]) for r in value["rows"]))


def _row(raw: list[Any], keys: list[str]) -> Row:
    dtypes, values, outcome, count, case = raw[:5]
    features = {k: v for k, v in zip(keys, values, strict=False) if v is not None}
    signature = tuple(dtypes.split(",")) if dtypes else ()
    return Row(signature, features, outcome, raw[5] if len(raw) > 5 else "", case, count)


def read_pack(path: Path) -> Pack:
    """A pack file, whole."""
    if not path.is_file():
        raise FileMissingError(
            "No capability pack at {path}.",
            hint="Write one: autoglm ops measure --backend NAME -o DIR",
            path=path,
        )
    return pack_of(parse(path.read_text("utf-8")))


def shipped(backend: str) -> dict[str, Path]:
    """Version -> shipped pack file of that backend."""
    pattern = re.compile(re.escape(backend) + r"-(\d.*)\.json")
    found = ((pattern.fullmatch(path.name), path) for path in FOLDER.glob(f"{backend}-*.json"))
    return {match[1]: path for match, path in found if match}


def load_pack(
    backend: str, toolkit_version: str = "", *, evidence: Evidence = Evidence.MEASURED
) -> Capabilities:
    """The table measured for that version; else for the nearest lower one, then marked as inferred.

    Without any pack the table is empty and everything is unknown. `toolkit_version`
    "" takes the newest pack. `evidence` is what the measurement is for the device that is asked
    about.
    """
    known = shipped(backend)
    if not known:
        return Capabilities(backend, f"{backend} {toolkit_version}".rstrip(), {}, complete=False)
    chosen = _nearest(tuple(known), toolkit_version)
    exact = toolkit_version in ("", chosen)
    evidence = evidence if exact else Evidence.INFERRED
    table, toolkit = _table(known[chosen], evidence)
    if not exact:
        toolkit = f"{backend} {toolkit_version} (measured with {chosen})"
    return Capabilities(backend, toolkit, table, complete=False, evidence=evidence)


def _nearest(known: tuple[str, ...], wanted: str) -> str:
    ordered = sorted(known, key=_order)
    if not wanted:
        return ordered[-1]
    lower = [v for v in ordered if _order(v) <= _order(wanted)]
    return lower[-1] if lower else ordered[0]


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version)[:4])


@cache
def _table(path: Path, evidence: Evidence) -> tuple[OpTable, str]:
    raw = parse(path.read_text("utf-8"))
    keys: dict[str, list[str]] = {}
    for key in raw["ops"]:
        keys.setdefault(key.rsplit("@", 1)[0], []).append(key)
    habits = habits_of(_glimpses(raw["ops"]))
    rules = {
        op: OpRule(when=_Lazy(op, names, raw["ops"], evidence, habits), evidence=evidence)
        for op, names in keys.items()
    }
    return rules, raw["toolkit"]


def _glimpses(ops: Mapping[str, Any]) -> Iterator[tuple[str, bool, bool]]:
    """Operator, open dimensions and success of every row, without making rows of them."""
    for key, version in ops.items():
        op, features = key.rsplit("@", 1)[0], version["features"]
        place = features.index("dynamic") if "dynamic" in features else None
        for _, values, outcome, *_ in version["rows"]:
            dynamic = place is not None and place < len(values) and values[place] is True
            yield op, dynamic, outcome == "yes"


_REMEMBERED = 1024  # answers kept for each operator


class _Lazy:
    """An operator's rules, derived when the first node of it is asked about; most operators never
    are.
    """

    def __init__(
        self,
        op: str,
        keys: list[str],
        raw: Mapping[str, Any],
        evidence: Evidence,
        habits: Habits,
    ) -> None:
        self._op, self._keys, self._raw, self._evidence = op, keys, raw, evidence
        self._habits = habits
        self._rules: Measured | None = None
        self._answers: dict[object, Support] = {}

    @property
    def measured(self) -> Measured:
        """The rules themselves."""
        if self._rules is None:
            versions = {}
            for key in self._keys:
                since, version = int(key.rsplit("@", 1)[1]), _op_version(self._raw[key])
                versions[since] = version_of(
                    self._op, since, version.layout, version.rows, self._habits
                )
            self._rules = Measured(self._op, versions)
        return self._rules

    def __call__(self, node: NodeFacts) -> Support:
        # Layers repeat: what differs in its name only gets the same answer.
        attributes = repr(sorted(node.attributes.items()))
        shown = node.body and node.name, language()
        key = (node.since, node.inputs, node.outputs, attributes, shown)
        if key not in self._answers:
            if len(self._answers) >= _REMEMBERED:
                self._answers.clear()
            self._answers[key] = self._answer(node)
        return self._answers[key]

    def _answer(self, node: NodeFacts) -> Support:
        verdict = self.measured(node)
        exact = self._evidence is Evidence.MEASURED or verdict.verdict is Verdict.UNKNOWN
        return verdict if exact else replace(verdict, evidence=self._evidence)


def measured(rule: OpRule) -> Measured | None:
    """The measured rules behind a table row, for listings; None where a table was written by
    hand.
    """
    return rule.when.measured if isinstance(rule.when, _Lazy) else None


def with_rows(pack: Pack, found: Mapping[str, Mapping[int, OpVersion]]) -> Pack:
    """`pack` with the rows it lacks: one of the same question and outcome stays as it was."""
    ops = {op: dict(versions) for op, versions in pack.ops.items()}
    for op, versions in found.items():
        for since, new in versions.items():
            old = ops.setdefault(op, {}).get(since)
            rows = old.rows if old else ()
            known = {(row.key, row.outcome) for row in rows}
            more = [row for row in new.rows if (row.key, row.outcome) not in known]
            layout = old.layout if old else new.layout
            ops[op][since] = OpVersion(layout, tuple(sorted((*rows, *more), key=row_order)))
    return replace(pack, ops=ops)


def merge(pack: Capabilities, table: OpTable) -> Capabilities:
    """`pack` with the rows of `table` over it: what a vendor's document says beats what was never
    measured.
    """
    return replace(pack, table={**pack.table, **table})
