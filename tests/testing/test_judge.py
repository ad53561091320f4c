"""Judging answers: dtype, shape, specials, and how near is near enough."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from autoglm.testing.cases import Case
from autoglm.testing.judge import judge


def case(**more: object) -> Case:
    return Case("c", b"", (), **more)  # type: ignore[arg-type]


def verdict(want: object, have: object, **more: object) -> str:
    return judge(case(**more), (want,), (have,)).outcome


ONE = np.array([1.0, -2.0], np.float32)


def test_equal_is_right() -> None:
    assert verdict(ONE, ONE.copy()) == "yes"


@pytest.mark.parametrize(
    ("have", "words"),
    [
        (ONE.astype(np.float64), "dtype float64 for float32"),
        (ONE.reshape(2, 1), "shape 2x1 for 2"),
        (np.array([1.0, -2.1], np.float32), "max error 0.1 of 2"),
        (np.array([1.0, np.nan], np.float32), "NaN or inf in other places"),
        (np.array([1.0, np.inf], np.float32), "NaN or inf in other places"),
    ],
)
def test_what_is_wrong_is_said(have: object, words: str) -> None:
    answer = judge(case(), (ONE,), (have,))

    assert (answer.outcome, answer.reason) == ("wrong", words)


def test_the_sign_of_infinity_matters() -> None:
    assert verdict(np.array([np.inf]), np.array([-np.inf])) == "wrong"


def test_tolerance_follows_the_dtype() -> None:
    for dtype, error in ((np.float32, 5e-5), (ml_dtypes.bfloat16, 1e-2)):
        want = np.array([1.0], dtype)
        assert verdict(want, (want.astype(np.float64) + error).astype(dtype)) == "yes"
    assert verdict(ONE, ONE + np.float32(1e-3)) == "wrong"


def test_integers_and_strings_are_exact() -> None:
    assert verdict(np.array([3]), np.array([4])) == "wrong"
    assert verdict(np.array(["a"], object), np.array(["a"])) == "yes"
    assert verdict(np.array(["a"], object), np.array(["b"], object)) == "wrong"


def test_right_for_the_dtype_but_not_for_the_case_is_imprecise() -> None:
    assert (
        verdict(np.float32([100, 0]), np.float32([100, 1e-5]), rtol=1e-3, atol=1e-7) == "imprecise"
    )


def test_random_numbers_are_judged_by_shape() -> None:
    assert verdict(ONE, ONE + 9, judge="shapes") == "yes"
    assert verdict(ONE, np.zeros(3, np.float32), judge="shapes") == "wrong"


def test_sequences_and_absent_optionals() -> None:
    assert verdict([ONE, ONE], [ONE, ONE]) == "yes"
    assert verdict([ONE, ONE], [ONE]) == "wrong"
    assert verdict(None, None) == "yes"
    assert verdict(None, ONE) == "wrong"


def test_the_output_that_is_wrong_is_named() -> None:
    answer = judge(case(), (ONE, ONE), (ONE, ONE + 1))

    assert answer.reason.startswith("output 1: ")
