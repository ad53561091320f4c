"""Feeds are checked by name, kind, dtype, byte order and shape; what fits is not copied."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from autoglm.errors import InputError
from autoglm.spec import TensorInfo
from autoglm.tensor.dtype import DTYPES
from autoglm.tensor.feeds import check_feeds, describe, fits, is_exotic, is_plain

X = TensorInfo("x", "float32", ("n", 3))


def test_what_fits_is_handed_on_uncopied() -> None:
    x = np.zeros((2, 3), np.float32)

    assert check_feeds([X], {"x": x})["x"] is x


@pytest.mark.parametrize(
    ("info", "value", "expected"),
    [
        (X, np.zeros((2, 4), np.float32), "float32 [n, 3]; found float32 [2, 4]"),
        (X, np.zeros((2, 3)), "found float64 [2, 3]"),
        (X, np.zeros((2, 3), ">f4"), "byte-swapped float32"),
        (X, [[1.0, 2.0, 3.0]], "a Python list"),
        (X, None, "a Python NoneType"),
        (TensorInfo("x", "string", None), np.array([1, "a"], object), "holds a int"),
        (TensorInfo("x", "string", None), np.zeros(2), "found float64"),
        (TensorInfo("x", "int64", None, "sequence"), np.zeros(2, np.int64), "ndarray"),
        (TensorInfo("x", "int64", None, "sequence"), [np.zeros(2)], "found float64"),
        (TensorInfo("x", "int64", (2,), "optional"), np.zeros(3, np.int64), "int64 [3]"),
    ],
)
def test_what_does_not_fit_is_described(info: TensorInfo, value: Any, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        check_feeds([info], {"x": value})

    assert "'x'" in str(caught.value)
    assert expected in str(caught.value)


def test_text_becomes_str_objects() -> None:
    info = TensorInfo("x", "string", (None,))

    found = check_feeds([info], {"x": np.array(["a", "bc"])})["x"]

    assert found.dtype == object
    assert found.tolist() == ["a", "bc"]


def test_an_optional_may_be_absent_or_none() -> None:
    info = TensorInfo("x", "float32", None, "optional")

    assert check_feeds([info], {}) == {"x": None}
    assert check_feeds([info], {"x": None}) == {"x": None}


def test_an_undeclared_dtype_takes_any() -> None:
    x = np.zeros(2, np.int8)

    assert check_feeds([TensorInfo("x", "", None)], {"x": x})["x"] is x


def test_numpy_scalars_are_0_d_tensors() -> None:
    found = check_feeds([TensorInfo("x", "float32", ())], {"x": np.float32(2)})["x"]

    assert isinstance(found, np.ndarray)
    assert found.shape == ()


def test_every_dtype_is_plain_text_or_exotic() -> None:
    for name, row in DTYPES.items():
        info = TensorInfo("x", name, None)
        native = row.numpy.isbuiltin == 1 and row.numpy.kind in "biuf"
        assert is_plain(info) == native, name
        assert is_exotic(info) == (not native and name != "string"), name
    assert not is_plain(TensorInfo("x", "float8_e5m2", None))
    assert np.dtype(ml_dtypes.float8_e5m2).kind == "f"  # the trap


def test_fits_and_describe() -> None:
    assert fits((1, 2), None)
    assert fits((0, 3), ("n", 3))
    assert not fits((3,), ("n", 3))
    assert describe(TensorInfo("x", "int4", None, "sequence")) == "a sequence of int4 of any shape"
    assert describe(TensorInfo("x", "bool", (None, "n", 2))) == "bool [?, n, 2]"
