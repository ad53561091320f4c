"""Fresh cases: new ones, the same for the same seed, and right by another engine."""

from __future__ import annotations

import numpy as np
import pytest

from autoglm import registry
from autoglm.spec import Constraint as By
from autoglm.spec import Evidence, Support, Verdict, no, unknown, yes
from autoglm.testing.conformance import compared, honesty
from autoglm.testing.fresh import fresh
from autoglm.testing.generate import build
from autoglm.testing.measure import Finding, find
from autoglm.testing.operators import SPECS


def test_a_seed_draws_the_same_cases_and_another_draws_others() -> None:
    first, again, other = fresh(12, 3), fresh(12, 3), fresh(12, 4)

    assert [(c.name, c.model) for c in first] == [(c.name, c.model) for c in again]
    assert not {c.model for c in first} & {c.model for c in other}


def test_no_fresh_case_is_one_that_packs_are_measured_with() -> None:
    made = fresh(40, 5)
    names = {c.name.removeprefix("fresh-").split("#")[0] for c in made}
    known = [
        build(s, int(n.split("@")[1].split(":")[0]), n.split(":")[1])
        for n in names
        for s in SPECS
        if n.split("@")[0] == s.op + (f"_{s.tag}" if s.tag else "")
    ]
    data = {(c.model, *(a.tobytes() for a in c.data[0][0])) for c in known if c is not None}

    assert not data & {(c.model, *(np.asarray(a).tobytes() for a in c.data[0][0])) for c in made}


def test_their_answers_are_right_by_another_engine() -> None:
    backend = registry.backend("onnxruntime")

    found = [find(backend, case) for case in fresh(60, 6)]

    assert sum(f.outcome == "yes" for f in found) > 25
    assert not [f for f in found if f.outcome == "wrong"]


@pytest.mark.parametrize(
    ("verdict", "outcome", "how"),
    [
        (yes(), "yes", "agree"),
        (yes(), "wrong", "false yes"),
        (no(By.OP, "x", Evidence.MEASURED), "refused", "agree"),
        (no(By.OP, "x", Evidence.MEASURED), "yes", "false no"),
        (no(By.VALUE, "x", Evidence.MEASURED), "yes", "by value"),
        (unknown("x"), "yes", "unknown"),
    ],
)
def test_a_verdict_is_compared_with_a_finding(verdict: Support, outcome: str, how: str) -> None:
    assert compared(verdict, Finding("case", outcome)) == how


def test_the_blind_test_compares_table_and_engine() -> None:
    rows = list(honesty("onnxruntime", 30, 8))

    assert len(rows) > 20
    assert {row.kind for row in rows} <= {"agree", "unknown", "by value"}
    assert any(row.verdict.verdict is Verdict.YES for row in rows)
    assert {row.known for row in rows} == {True, False}


def test_large_cases_hold_thousands_of_numbers() -> None:
    made = fresh(30, 9, large=True)
    sizes = [max((np.asarray(a).size for a in case.data[0][0]), default=0) for case in made]

    assert sum(size > 300 for size in sizes) > 15
    assert max(sizes) <= 50_000
