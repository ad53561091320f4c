"""The dtype table agrees with onnx, NumPy and ml_dtypes, both ways."""

from __future__ import annotations

import numpy as np
import pytest

from autoglm.errors import InputError
from autoglm.tensor import dtype


def test_every_element_type_of_onnx_is_in_the_table_under_its_number() -> None:
    onnx = pytest.importorskip("onnx")
    numbers = set(onnx.TensorProto.DataType.values()) - {0}

    assert {row.onnx for row in dtype.DTYPES.values()} >= numbers


@pytest.mark.parametrize("name", sorted(dtype.DTYPES))
def test_names_survive_the_round_trip(name: str) -> None:
    assert dtype.from_numpy(dtype.to_numpy(name)) == name
    assert dtype.from_onnx(dtype.to_onnx(name)) == name


@pytest.mark.parametrize("name", sorted(set(dtype.DTYPES) - {"string"}))
def test_the_numpy_type_agrees_with_onnxs(name: str) -> None:
    helper = pytest.importorskip("onnx.helper")

    assert helper.tensor_dtype_to_np_dtype(dtype.to_onnx(name)) == dtype.to_numpy(name)


def test_text_of_any_kind_is_a_string_and_byte_order_does_not_matter() -> None:
    assert {dtype.from_numpy(d) for d in ("U3", "S2", object)} == {"string"}
    assert dtype.from_numpy(">f4") == "float32"
    assert dtype.from_onnx(0) == ""


def test_sizes_are_those_of_packed_elements() -> None:
    assert [dtype.nbytes(n, 3) for n in ("int4", "uint2", "bfloat16", "complex128")] == [
        2,
        1,
        6,
        48,
    ]
    assert dtype.nbytes("float6_e2m3fn", 4) == 3
    assert dtype.bits("string") == 0


def test_only_numpys_own_types_are_native() -> None:
    native = {name for name in dtype.DTYPES if dtype.is_native(name)}

    assert native == {n for n in dtype.DTYPES if n in dir(np) or n == "bool"} - {"string"}
    assert "float8_e5m2" not in native


def test_what_is_not_in_the_table_is_refused() -> None:
    with pytest.raises(InputError, match="Unknown dtype 'float33'"):
        dtype.to_numpy("float33")
    with pytest.raises(InputError, match="datetime64"):
        dtype.from_numpy("M8[s]")
    with pytest.raises(InputError, match="Unknown ONNX element type 99"):
        dtype.from_onnx(99)
