"""A capability table as rows to read: what `autoglm ops` shows."""

from __future__ import annotations

from typing import Any

from autoglm.catalog.packs import measured
from autoglm.catalog.rules import Measured, Version
from autoglm.spec import Capabilities, OpRule


def describe(table: Capabilities, op: str | None = None) -> dict[str, Any]:
    """The table as JSON; with `op`, every version and every limit of that operator."""
    names = sorted(n for n in table.table if op is None or n == op or n.rpartition("::")[2] == op)
    head = {"backend": table.backend, "toolkit": table.toolkit, "evidence": table.evidence.value}
    if op is None:
        rows = [_summary(name, table.table[name]) for name in names]
        return {**head, "operators": rows}
    rows = [row for name in names for row in _detail(name, table.table[name])]
    if table.also:
        rows = [{**row, "precision": "fp32"} for row in rows]
    for precision, rules in table.also.items():
        narrow = [row for name in names if name in rules for row in _detail(name, rules[name])]
        rows += [{**row, "precision": precision} for row in narrow]
    missing = "" if rows or table.complete else "never measured"
    return {**head, "operator": op, "support": missing or ("" if rows else "no"), "versions": rows}


def _summary(op: str, rule: OpRule) -> dict[str, Any]:
    found = measured(rule)
    if found is None:
        return _by_hand(op, rule)
    newest = found.versions[max(found.versions)]
    return {
        "operator": op,
        "opsets": ", ".join(str(v) for v in sorted(found.versions)),
        "dtypes": _dtypes(newest),
        "limits": sum(len(v.conditions) for v in found.versions.values()),
        "wrong": sum(_wrong(v) for v in found.versions.values()),
        "cases": _cases(found),
        "evidence": rule.evidence.value,
    }


def _by_hand(op: str, rule: OpRule) -> dict[str, Any]:
    low, high = rule.since
    return {
        "operator": op,
        "opsets": f"{low} to {high}" if high < 10_000 else f"{low} and newer",
        "dtypes": ", ".join(sorted(rule.dtypes)) if rule.dtypes else "any",
        "limits": int(rule.when is not None),
        "wrong": 0,
        "cases": 0,
        "evidence": rule.evidence.value,
    }


def _detail(op: str, rule: OpRule) -> list[dict[str, Any]]:
    found = measured(rule)
    if found is None:
        return [_by_hand(op, rule)]
    return [
        {
            "operator": op,
            "opset": version.since,
            "dtypes": _dtypes(version),
            "limits": [condition.text(op) for condition in version.conditions],
            "cases": sum(row.count for row in version.rows),
            "evidence": rule.evidence.value,
        }
        for _, version in sorted(found.versions.items())
    ]


def _dtypes(version: Version) -> str:
    if not version.known:
        return "none"
    columns = list(zip(*sorted(version.known), strict=True))
    shown = [", ".join(dict.fromkeys(column)) for column in columns]
    return "; ".join(shown) or "any"


def _wrong(version: Version) -> int:
    return sum(c.outcome == "wrong" for c in version.conditions)


def _cases(found: Measured) -> int:
    return sum(row.count for v in found.versions.values() for row in v.rows)
