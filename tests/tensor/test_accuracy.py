"""Distances are what their definitions say, and nothing strange passes as close."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from autoglm.errors import InputError
from autoglm.tensor.accuracy import SAME, TOLERANCE, Difference, compare, passes, tolerance
from autoglm.tensor.dtype import to_numpy

FINITE = st.floats(-1e6, 1e6, allow_subnormal=False).filter(lambda v: v == 0 or abs(v) > 1e-6)
ARRAYS = npst.arrays(np.float64, npst.array_shapes(max_dims=3, max_side=4), elements=FINITE)


@given(ARRAYS, st.data())
def test_each_figure_is_its_formula(golden: np.ndarray, data: st.DataObject) -> None:
    got = data.draw(npst.arrays(np.float64, golden.shape, elements=FINITE))

    found = compare(golden, got)

    error = golden - got
    assert found.max_abs == np.abs(error).max()
    if not error.any():
        assert found == SAME
    elif golden.any() and got.any():
        a, b = golden.ravel(), got.ravel()
        assert found.max_relative == pytest.approx(np.abs(error).max() / np.abs(golden).max())
        assert found.sqnr_db == pytest.approx(10 * np.log10((a @ a) / np.sum(error**2)), abs=1e-6)
        cosine = (a @ b) / (np.linalg.norm(a) * np.linalg.norm(b))
        assert found.cosine == pytest.approx(cosine, abs=1e-9)


@given(npst.arrays(st.sampled_from(["f4", "f2", "i8", "u1", "?", "c8"]), (3, 2)))
def test_a_tensor_does_not_differ_from_itself(array: np.ndarray) -> None:
    assert compare(array, array.copy()) == SAME


def test_huge_and_tiny_values_neither_overflow_nor_vanish() -> None:
    for scale in (1e-300, 1e300):
        golden = np.array([1.0, 2.0]) * scale
        found = compare(golden, golden * 1.001)
        assert found.max_relative == pytest.approx(1e-3)
        assert found.sqnr_db == pytest.approx(60, abs=0.1)
    assert compare(np.array([1e308]), np.array([-1e308])).max_relative == math.inf


@pytest.mark.parametrize(
    ("golden", "got"),
    [
        ([np.nan, 1.0], [1.0, 1.0]),
        ([1.0, 1.0], [np.nan, 1.0]),
        ([np.inf], [-np.inf]),
        ([np.inf], [1e30]),
        ([np.nan], [np.inf]),
    ],
)
def test_nan_and_infinity_must_stand_in_the_same_places(
    golden: list[float], got: list[float]
) -> None:
    found = compare(np.array(golden), np.array(got))

    assert found.max_relative == math.inf
    assert not any(passes(found, p) for p in TOLERANCE)
    assert not passes(found, "fp32", max_error=1e9)


def test_agreeing_nan_and_infinity_are_left_out() -> None:
    golden = np.array([np.nan, np.inf, -np.inf, 1.0])

    assert compare(golden, golden.copy()) == SAME
    assert compare(golden, golden + np.array([0, 0, 0, 0.5])).max_relative == 0.5


def test_whole_numbers_count_what_differs() -> None:
    golden = np.arange(1000)
    got = golden.copy()
    got[7] += 1

    found = compare(golden, got)

    assert (found.mismatches, found.max_abs) == (1, 1.0)
    assert found.max_relative == pytest.approx(1 / 999)
    assert not passes(found, "fp32")
    assert passes(found, "bf16")


def test_64_bit_numbers_are_compared_exactly() -> None:
    assert compare(np.array([2**63 - 1]), np.array([2**63 - 2])).mismatches == 1
    assert compare(np.array([2**64 - 1], "u8"), np.array([0], "u8")).max_abs == 2.0**64


def test_text_booleans_and_small_types_are_compared_by_value() -> None:
    text = np.array(["a", "b"], object)
    assert compare(text, np.array(["a", "b"])) == SAME
    assert compare(text, np.array(["a", "c"], object)).mismatches == 1
    assert compare(np.array([True]), np.array([False])).mismatches == 1
    int4 = np.array([-8, 7]).astype(to_numpy("int4"))
    assert compare(int4, int4[::-1]).max_abs == 15
    half = np.array([1.5, -2]).astype(to_numpy("bfloat16"))
    assert compare(half, half.astype(np.float32)) == SAME
    assert compare(half.astype(to_numpy("float8_e5m2")), half) == SAME
    assert compare(text, np.array([1.0, 2.0])).max_relative == math.inf


def test_shapes_kinds_and_lengths_must_agree() -> None:
    one = np.float32(1)
    assert "expected shape [], found [1]" in compare(one, np.ones(1, "f4")).detail
    for golden, got in (([one], [one, one]), ([one], one), (one, [one]), (None, one), (one, None)):
        assert compare(golden, got).max_relative == math.inf
    assert compare([one, None, []], [one, None, []]) == SAME
    assert compare(np.zeros((0, 3)), np.zeros((0, 3))) == SAME


def test_the_worst_output_is_named() -> None:
    golden = {"a": np.ones(4), "b": [np.ones(4), np.ones(4)], "c": np.array(["x"])}
    got = {"a": np.ones(4) + 1e-3, "b": [np.ones(4), np.ones(4) - 0.5], "c": np.array(["x"])}

    found = compare(golden, got)

    assert found.max_relative == 0.5
    assert found.detail == "b: [1]: element 0: expected 1, found 0.5"
    assert compare(golden, {"a": np.ones(4)}).max_relative == math.inf
    assert "is missing" in compare(golden, {"a": np.ones(4)}).detail


def test_an_all_zero_reference_takes_the_absolute_error() -> None:
    found = compare(np.zeros(3), np.array([0, 1e-6, 0]))

    assert found.max_relative == 1e-6
    assert passes(found, "fp32")
    assert not passes(compare(np.zeros(3), np.ones(3)), "int4")
    assert not passes(compare(np.ones(3), np.zeros(3)), "int4")


def test_cosine_alone_is_no_gate() -> None:
    good = Difference(max_relative=1e-5, sqnr_db=100, cosine=0.9999999)
    assert passes(good, "fp32")
    for bad in (
        Difference(max_relative=2e-4, sqnr_db=100, cosine=1.0),
        Difference(max_relative=1e-5, sqnr_db=79, cosine=1.0),
        Difference(max_relative=1e-5, sqnr_db=100, cosine=0.99999),
    ):
        assert not passes(bad, "fp32")
    assert passes(Difference(max_relative=0.02, sqnr_db=30, cosine=0.9), "fp32", max_error=2e-2)


def test_tolerances_loosen_with_the_precision() -> None:
    rows = [tolerance(p) for p in ("fp32", "fp16", "bf16", "int8", "int4")]

    assert [r.max_relative for r in rows] == sorted(r.max_relative for r in rows)
    assert [-r.sqnr_db for r in rows] == sorted(-r.sqnr_db for r in rows)
    with pytest.raises(InputError, match="Unknown precision 'fp64'"):
        tolerance("fp64")
