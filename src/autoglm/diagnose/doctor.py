"""The diagnosis of one machine: what is there, what does not fit, what to change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autoglm.diagnose.rules import Rule, components, rules
from autoglm.diagnose.solve import Solution, chains, conflicts, solve
from autoglm.messages import tr


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Facts, the chains of rules that they break, and the nearest set that fits."""

    facts: Mapping[str, str]
    broken: tuple[tuple[Rule, ...], ...] = ()
    solution: Solution | None = None
    checked: int = 0  # rules that these facts could be judged by

    @property
    def consistent(self) -> bool:
        """Whether no rule is broken."""
        return not self.broken

    def sentences(self) -> list[list[str]]:
        """Each chain of conflicts, a sentence a broken rule."""
        return [[sentence(rule, self.facts) for rule in chain] for chain in self.broken]

    def to_dict(self) -> dict[str, Any]:
        """The same in JSON's types."""
        changes = self.solution.changes if self.solution else ()
        return {
            "facts": dict(self.facts),
            "consistent": self.consistent,
            "checked": self.checked,
            "conflicts": [
                [
                    {
                        "components": {n: self.facts.get(n) for n in rule.components},
                        "component": rule.component,
                        "wanted": rule.wanted(self.facts),
                        "sentence": sentence(rule, self.facts),
                        "source": rule.source,
                    }
                    for rule in chain
                ]
                for chain in self.broken
            ],
            "solvable": self.consistent or self.solution is not None,
            "changes": [
                {"component": c.component, "from": c.before, "to": c.after, "command": c.command}
                for c in changes
            ],
        }


def examine(facts: Mapping[str, str]) -> Diagnosis:
    """Judge these versions by every rule that speaks of them."""
    told = rules()
    broken = conflicts(facts, told)
    applicable = [r for r in told if all(name in facts for name in r.components)]
    return Diagnosis(
        facts=facts,
        broken=tuple(chains(broken)),
        solution=solve(facts, told, components()) if broken else None,
        checked=len(applicable),
    )


def sentence(rule: Rule, facts: Mapping[str, str]) -> str:
    """What a broken rule says of these versions."""
    have = " + ".join(f"{title(name)} {facts.get(name, '')}".strip() for name in rule.when)
    found = facts.get(rule.component)
    if rule.spec == "absent":
        return tr(
            "{have} and {other} {found} cannot be in one environment.",
            have=have,
            other=title(rule.component),
            found=found,
        )
    wanted = rule.wanted(facts)
    if found is None:
        return tr(
            "{have} needs {other} {wanted}, which is not here.",
            have=have,
            other=title(rule.component),
            wanted=wanted,
        )
    return tr(
        "{have} needs {other} {wanted}; found {found}.",
        have=have,
        other=title(rule.component),
        wanted=wanted,
        found=found,
    )


def title(name: str) -> str:
    """A component's name for people."""
    known = components().get(name)
    return known.title if known else name
