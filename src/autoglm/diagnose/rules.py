"""Compatibility as data: which versions fit which, what can be changed, and how."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from autoglm.diagnose.versions import fits, same_release

ABSENT = "absent"
_DATA = Path(__file__).with_name("compatibility.toml")


@dataclass(frozen=True, slots=True)
class Component:
    """Something with a version; a `cost` of 0 means that it cannot be changed."""

    name: str
    title: str
    cost: int = 0
    versions: tuple[str, ...] = ()
    change: str = ""  # the command, with {version}
    remove: str = ""  # the command that takes it away, where that is a way out


@dataclass(frozen=True, slots=True)
class Rule:
    """Where `when` holds, `component` must fulfil `spec`; `same` > 0: its first numbers must be
    those of the one component in `when`.
    """

    when: Mapping[str, str]
    component: str
    spec: str
    source: str
    required: bool = False
    same: int = 0

    @property
    def components(self) -> tuple[str, ...]:
        """Everything that the rule speaks of, the one to fulfil it last."""
        return (*self.when, self.component)

    def holds(self, facts: Mapping[str, str]) -> bool:
        """Whether these versions fulfil the rule; what is not there fulfils it unless required."""
        if not all(name in facts and fits(facts[name], spec) for name, spec in self.when.items()):
            return True
        version = facts.get(self.component)
        if version is None:
            return self.spec == ABSENT or not self.required
        if self.same:
            return same_release(facts[next(iter(self.when))], version, self.same)
        return self.spec != ABSENT and fits(version, self.spec)

    def wanted(self, facts: Mapping[str, str]) -> str:
        """What the component should be, for people."""
        if self.same:
            other = facts.get(next(iter(self.when)), "")
            return ".".join(other.split("+")[0].split(".")[: self.same]) + ".*"
        return self.spec


@cache
def components() -> dict[str, Component]:
    """Every component that rules know, by name."""
    rows = _data()["component"].items()
    return {
        name: Component(name, **{**row, "versions": tuple(row.get("versions", ()))})
        for name, row in rows
    }


@cache
def rules() -> tuple[Rule, ...]:
    """Every rule, one component to fulfil each."""
    return tuple(rule for row in _data()["rule"] for rule in _expanded(row))


def _expanded(row: Mapping[str, Any]) -> Iterator[Rule]:
    source = row["source"]
    if "same" in row:
        one, other = row["same"]
        yield Rule({one: ">=0"}, other, "", source, same=row["digits"])
        return
    for name, spec in row["needs"].items():
        yield Rule(row["when"], name, spec, source, row.get("required", False))


@cache
def _data() -> dict[str, Any]:
    return tomllib.loads(_DATA.read_text("utf-8"))
