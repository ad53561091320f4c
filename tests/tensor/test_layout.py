"""Every layout gives back what it was given, and stores what its owner's formula says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm.errors import InputError
from autoglm.tensor.dtype import to_numpy
from autoglm.tensor.layout import (
    Conversion,
    apply,
    cancel,
    compose,
    convert,
    layout,
    pack,
    packed_shape,
    padding_bytes,
    permutation,
    unpack,
)

IMAGES = [
    "NCHW", "NHWC", "CHWN", "nChw16c", "nChw8c", "NCHW4c", "nhwC4c", "NC1HWC0",
    "NCHW_VECT_C4", "NCHW_VECT_C32", "FRACTAL_Z", "NChw4n8c", "NChw2n4c2n",
]  # fmt: skip
MATRICES = ["ND", "FRACTAL_NZ"]
SIZES = st.integers(0, 35)
SHAPES = st.tuples(st.integers(0, 20), SIZES, st.integers(0, 4), st.integers(0, 4))


def numbered(shape: tuple[int, ...], dtype: str = "int64") -> np.ndarray:
    return (np.arange(1, 1 + int(np.prod(shape))) % 100).reshape(shape).astype(to_numpy(dtype))


def sizes(shape: tuple[int, ...], axes: str = "NCHW") -> dict[str, int]:
    return dict(zip(axes, shape, strict=True))


@settings(max_examples=200, deadline=None)
@given(SHAPES, st.sampled_from(IMAGES), st.sampled_from(["int8", "bfloat16", "float32"]))
def test_unpacking_gives_back_what_was_packed(
    shape: tuple[int, ...], name: str, dtype: str
) -> None:
    array, kind = numbered(shape, dtype), layout(name, dtype)

    packed = pack(array, kind)

    assert packed.shape == packed_shape(shape, kind)
    assert packed.flags.c_contiguous
    assert packed.nbytes - array.nbytes == padding_bytes(shape, kind, dtype)
    assert unpack(packed, kind, **sizes(shape)).tobytes() == array.tobytes()
    assert np.count_nonzero(packed) == np.count_nonzero(array)  # padding is zero


@settings(max_examples=200, deadline=None)
@given(SHAPES, *[st.sampled_from(IMAGES)] * 3)
def test_any_way_through_three_layouts_is_one_conversion(
    shape: tuple[int, ...], one: str, two: str, three: str
) -> None:
    a, b, c = layout(one), layout(two), layout(three)
    start = pack(numbered(shape), a)
    chain = [Conversion(a, b), Conversion(b, c)]

    long = apply(start, chain, **sizes(shape))
    short = apply(start, cancel(chain), **sizes(shape))

    assert long.tobytes() == short.tobytes()
    assert len(cancel(chain)) <= 1
    assert cancel([Conversion(a, b), Conversion(b, a)]) == ()
    assert compose(Conversion(a, b), Conversion(b, a)) is None


@given(st.lists(st.integers(0, 3), max_size=2), SIZES, SIZES, st.sampled_from(["int8", "float16"]))
def test_fractal_nz_takes_any_number_of_leading_axes(
    lead: list[int], m: int, n: int, dtype: str
) -> None:
    shape = (*lead, m, n)
    array, kind = numbered(shape, dtype), layout("FRACTAL_NZ", dtype)
    n0 = 32 if dtype == "int8" else 16

    packed = pack(array, kind)

    assert packed.shape == (*lead, -(-n // n0), -(-m // 16), 16, n0)
    assert convert(packed, kind, layout("ND"), M=m, N=n).tobytes() == array.tobytes()


def test_the_owners_formulas_hold() -> None:
    x = numbered((2, 48, 3, 5))
    n, c, h, w = x.shape
    five = x.reshape(n, c // 16, 16, h, w).transpose(0, 1, 3, 4, 2)
    assert np.array_equal(pack(x, layout("NC1HWC0")), five)
    assert np.array_equal(pack(x, layout("nChw16c")), five)
    assert np.array_equal(pack(x, layout("NHWC")), x.transpose(0, 2, 3, 1))

    m = numbered((48, 32))
    nz = m.reshape(3, 16, 2, 16).transpose(2, 0, 1, 3)
    assert np.array_equal(pack(m, layout("FRACTAL_NZ")), nz)

    k = numbered((32, 48, 3, 3))
    z = k.reshape(2, 16, 3, 16, 3, 3).transpose(2, 4, 5, 0, 1, 3).reshape(27, 2, 16, 16)
    assert np.array_equal(pack(k, layout("FRACTAL_Z")), z)

    inner = pack(k, layout("OIhw8i16o2i"))
    assert inner.shape == (2, 3, 3, 3, 8, 16, 2)
    assert inner[1, 2, 0, 1, 3, 5, 1] == k[16 + 5, 2 * 16 + 3 * 2 + 1, 0, 1]


def test_layouts_are_equal_when_they_store_alike() -> None:
    assert layout("NC1HWC0") == layout("nChw16c") == layout("NCHW16c")
    assert layout("NC1HWC0", "int8") == layout("NCHW_VECT_C32")
    assert layout("NC1HWC0", "int8") != layout("NC1HWC0")
    assert layout("NCHW") != layout("NHWC")
    assert layout("nChw16c").block("C") == 16


def test_the_permutation_is_that_of_onnxs_transpose() -> None:
    perm = permutation(layout("NCHW"), layout("NHWC"))

    assert perm == (0, 2, 3, 1)
    x = numbered((2, 3, 4, 5))
    assert np.array_equal(x.transpose(perm), convert(x, layout("NCHW"), layout("NHWC")))
    assert permutation(layout("NCHW"), layout("nChw16c")) is None


def test_nothing_is_copied_where_nothing_moves() -> None:
    x = numbered((1, 2, 3, 4))

    assert convert(x, layout("NCHW"), layout("NCHW")) is x
    assert np.shares_memory(unpack(x, layout("NHWC")), x)
    zero = np.float32(3).reshape(())
    assert convert(zero, layout("ND"), layout("ND")).shape == ()


@pytest.mark.parametrize(
    "name", ["", "NCHW!", "NNHW", "XYZ", "nChw16x", "nChw1c", "FRACTAL_NZZ", "16c"]
)
def test_an_unknown_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(InputError) as caught:
        layout(name)
    assert "FRACTAL_NZ" in caught.value.hint


def test_arrays_and_sizes_that_do_not_fit_are_refused() -> None:
    nchw, blocked = layout("NCHW"), layout("nChw16c")
    with pytest.raises(InputError, match="has 5 dimensions, found 4"):
        unpack(np.zeros((1, 2, 3, 4)), blocked)
    with pytest.raises(InputError, match=r"has shape \[1, 1, 3, 4, 16\], found \[1, 2, 3, 4, 16\]"):
        unpack(np.zeros((1, 2, 3, 4, 16)), blocked, C=7)
    with pytest.raises(InputError, match="no axis Q"):
        convert(np.zeros((1, 2, 3, 4)), nchw, blocked, Q=7)
    with pytest.raises(InputError, match="takes 4 dimensions, found 3"):
        pack(np.zeros((1, 2, 3)), nchw)
    with pytest.raises(InputError, match="joins C, H, W"):
        unpack(np.zeros((9, 1, 16, 16)), layout("FRACTAL_Z"))
    with pytest.raises(InputError, match="different axes"):
        convert(np.zeros((1, 2, 3, 4)), nchw, layout("NWC"))
    with pytest.raises(InputError, match="cannot precede"):
        compose(Conversion(nchw, blocked), Conversion(nchw, blocked))
