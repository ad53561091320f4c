"""4-bit and 2-bit values survive packing, whatever their count and shape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.tensor.dtype import DTYPES
from autoglm.tensor.packing import from_bytes, to_bytes

LOW = ["int4", "uint4", "int2", "uint2", "float4_e2m1fn"]
WIDE = ["float32", "bfloat16", "float8_e5m2", "bool", "int64"]


@given(name=st.sampled_from(LOW + WIDE), data=st.binary(max_size=64), cut=st.integers(1, 5))
def test_bytes_come_back(name: str, data: bytes, cut: int) -> None:
    row = DTYPES[name]
    wide = np.frombuffer(data, np.uint8).astype(np.int64) % (1 << min(row.bits, 6))
    if row.kind == "int" and row.bits < 8:
        wide = wide - (1 << (row.bits - 1))
    array = wide.astype(np.uint8).view(row.numpy) if row.kind == "float" and row.bits < 8 else wide
    array = array.astype(row.numpy)[::cut]

    packed = to_bytes(array, name)
    back = from_bytes(packed, name, array.shape)

    assert packed.dtype == np.uint8
    assert packed.size == -(-array.size * row.bits // 8)
    assert back.dtype == array.dtype
    assert back.tobytes() == array.tobytes()


@pytest.mark.parametrize("name", LOW)
def test_the_first_element_is_in_the_lowest_bits(name: str) -> None:
    row = DTYPES[name]
    codes = np.array([1, 0, 0, 0, 1], np.uint8)
    array = codes.view(row.numpy) if row.kind == "float" else codes.astype(row.numpy)

    packed = to_bytes(array, name)

    assert packed[0] == 1
    assert packed[-1] == (1 if 5 % (8 // row.bits) == 1 else packed[-1])


def test_0_d_stays_0_d() -> None:
    array = np.array(3, DTYPES["int4"].numpy)

    assert from_bytes(to_bytes(array, "int4"), "int4", ()).shape == ()
    assert from_bytes(to_bytes(array, "int4"), "int4", ()) == array
