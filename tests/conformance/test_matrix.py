"""The matrix: every registered backend under the shipped suite. Installing a vendor's package
joins it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from autoglm import registry
from autoglm.spec import Backend
from autoglm.testing.cases import Case
from autoglm.testing.conformance import (
    Expected,
    check,
    core_cases,
    dishonest,
    full_cases,
    read_expected,
    sample,
)

EXPECT = Path(__file__).parent / "expect"
# `null` answers zeros by design: no cell of it could be right (tests/backends judges its shapes).
# `emulated` has its vendors' tables, which are judged as theirs (tests/backends judges the rest).
BACKENDS = sorted(set(registry.backends()) - {"null", "emulated"})
CORE = core_cases()
HONEST = 40


def expected(backend: str) -> dict[str, Expected] | None:
    path = EXPECT / f"{backend}.toml"
    return read_expected(path) if path.exists() else None


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return registry.backend(request.param)


@pytest.mark.parametrize("cell", CORE, ids=lambda case: case.name)
def test_cell(backend: Backend, cell: Case) -> None:
    check(
        backend,
        cell,
        expected(backend.name),
        skip=pytest.skip,
        fail=pytest.fail,
        xfail=pytest.xfail,
    )


def honest(backend: Backend, cases: Callable[[], tuple[Case, ...]], size: int) -> list[str]:
    if not backend.version():
        pytest.skip(f"not run: the toolkit of {backend.name} is not installed")
    found = ((case.name, dishonest(backend, case)) for case in sample(cases(), 20261122, size))
    return [f"{name}: {text}" for name, text in found if text]


def test_the_table_says_what_happens(backend: Backend) -> None:
    wrong = honest(backend, full_cases, HONEST)

    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
def test_the_table_says_what_happens_in_every_case(backend: Backend) -> None:
    wrong = honest(backend, full_cases, 10_000)

    assert not wrong, "\n".join(wrong)


def test_every_expected_cell_exists() -> None:
    known = {case.name for case in CORE}
    backends = {path.stem for path in EXPECT.glob("*.toml")}

    assert backends <= set(BACKENDS)
    for name in backends:
        assert set(expected(name) or {}) <= known
