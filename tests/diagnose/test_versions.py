"""Vendors' version numbers in order."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.diagnose.versions import fits, key, same_release


@pytest.mark.parametrize(
    "rising",
    [
        ["7.0.RC1", "7.0.0", "8.0.RC1", "8.0.RC2", "8.0.0", "8.2.RC1", "8.5.0.alpha001", "9.1.0"],
        ["23.0.3", "24.1.RC1", "24.1.rc2", "24.1.1", "25.0.RC1", "25.2.0"],
        ["2.7.1.dev20250724", "2.7.1rc1", "2.7.1", "2.7.1.post1", "2.7.1.post2", "2.8.0"],
        ["450.80.02", "525.60.13", "535.104.05", "580.65.06"],
        ["3.8", "3.9", "3.10", "3.11.7"],
    ],
)
def test_versions_rise_as_their_vendors_mean_it(rising: list[str]) -> None:
    assert all(key(a) < key(b) for a, b in itertools.pairwise(rising))


@pytest.mark.parametrize(
    ("version", "spec", "verdict"),
    [
        ("2.7.1+cpu", "==2.7.1.*", True),
        ("2.7.1.post1", "==2.7.1.*", True),
        ("2.7.1.post1", "==2.7.1", False),
        ("2.7.10", "==2.7.1.*", False),
        ("3.11.7", ">=3.9,<3.12", True),
        ("3.12", ">=3.9,<3.12", False),
        ("8.9.2.26", "==9.*", False),
        ("R200", "=R200", True),
        ("P800", "=R200", False),
        ("1.26.4", "!=1.26.*", False),
        ("24.1.rc3", "==24.1.RC3", True),
        ("12.8", ">12.4,<=12.8", True),
        ("anything", "", True),
    ],
)
def test_a_version_fits_a_specification(version: str, spec: str, verdict: bool) -> None:
    assert fits(version, spec) is verdict


def test_only_the_first_numbers_count_for_the_same_release() -> None:
    assert same_release("2.7.1.post1", "2.7.1+cpu", 3)
    assert not same_release("2.7.1", "2.7.0", 3)
    assert same_release("8.3.RC2", "8.3.RC1", 2)


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_text_breaks_the_comparison(version: str, spec: str) -> None:
    fits(version, spec)
    assert key(version) == key(version)
