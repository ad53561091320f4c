"""Compare the version numbers that vendors really use: 2.7.1.post1, 8.2.RC1, 535.104.05, R200."""

from __future__ import annotations

import re
from functools import cache

_STAGES = {"dev": -4, "alpha": -3, "a": -3, "beta": -2, "b": -2, "rc": -1, "": 0, "post": 1}
_TOKEN = re.compile(r"\d+|[A-Za-z]+")
_CLAUSE = re.compile(r"(==|!=|>=|<=|>|<|=)?\s*(.+)")
_WIDTH = 6

Key = tuple[tuple[int, ...], int, tuple[int, ...]]


@cache
def key(version: str) -> Key:
    """A sortable form: release numbers, stage (dev < alpha < beta < rc < final < post), and the
    stage's own numbers. What follows a `+` is ignored.
    """
    release: list[int] = []
    stage, rest = 0, list[int]()
    named = False
    for token in _TOKEN.findall(version.split("+", 1)[0]):
        if token.isdigit():
            (rest if named else release).append(int(token))
        elif token.lower() in _STAGES:
            stage, named = _STAGES[token.lower()], True
    return (*release, *[0] * (_WIDTH - len(release))), stage, tuple(rest)


@cache
def fits(version: str, spec: str) -> bool:
    """Whether `version` fulfils every clause of `spec`, such as `>=8.1.RC1,<9` or `==2.7.1.*`.

    `=P800` compares as text (chips have names, not versions).
    """
    return all(_fits(version, clause.strip()) for clause in spec.split(",") if clause.strip())


def _fits(version: str, clause: str) -> bool:
    match = _CLAUSE.fullmatch(clause)
    sign, wanted = match.groups() if match else ("=", clause)
    if sign in ("=", None):
        return version == wanted
    if wanted.endswith(".*"):
        digits = [int(t) for t in re.findall(r"\d+", wanted)]
        same = list(key(version)[0][: len(digits)]) == digits
        return same if sign == "==" else not same
    here, there = key(version), key(wanted)
    return {
        "==": here == there,
        "!=": here != there,
        ">=": here >= there,
        "<=": here <= there,
        ">": here > there,
        "<": here < there,
    }[sign]


def same_release(one: str, other: str, digits: int) -> bool:
    """Whether the first `digits` numbers agree."""
    return key(one)[0][:digits] == key(other)[0][:digits]
