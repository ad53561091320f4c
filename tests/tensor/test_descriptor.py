"""A descriptor states its layout, and says what an edge must do."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from autoglm.errors import ConfigError, InputError
from autoglm.tensor.arena import empty_aligned
from autoglm.tensor.descriptor import TensorDescriptor, dense, describe, steps
from autoglm.tensor.layout import layout, pack


def test_an_array_is_described_with_the_layout_it_is_told() -> None:
    x = empty_aligned((2, 3, 4, 5), "float32", 64)

    plain = describe(x, "NCHW")
    other = describe(x, "NHWC")

    assert (plain.dims, plain.strides) == ((2, 3, 4, 5), (60, 20, 5, 1))
    assert other.dims == (2, 5, 3, 4)  # logical order, whatever the storage
    assert other.stored_shape == (2, 3, 4, 5)
    assert plain.alignment >= 64
    assert plain.nbytes == x.nbytes


def test_strides_count_elements_and_tell_a_view() -> None:
    x = np.zeros((4, 6), np.float32)

    view = describe(x.T)

    assert view.strides == (1, 6)
    assert not view.contiguous
    assert describe(x[:, :1]).strides == (6, 1)
    assert describe(np.zeros((0, 3), np.int8)).contiguous
    assert describe(np.zeros((1, 3), np.int8)[:, :]).contiguous


def test_a_padded_array_keeps_its_true_size() -> None:
    x = np.ones((1, 3, 2, 2), np.float16)
    packed = pack(x, layout("NC1HWC0"))

    told = describe(packed, "NC1HWC0", (1, 3, 2, 2))

    assert told.dims == (1, 3, 2, 2)
    assert told.nbytes == packed.nbytes == 1 * 1 * 2 * 2 * 16 * 2
    assert describe(packed, "NC1HWC0").dims == (1, 16, 2, 2)
    with pytest.raises(InputError, match=r"has shape \[1, 2, 2, 2, 16\]"):
        describe(packed, "NC1HWC0", (1, 17, 2, 2))


def test_ascends_block_follows_the_dtype() -> None:
    assert dense((1, 64, 2, 2), "float16", "NC1HWC0").stored_shape == (1, 4, 2, 2, 16)
    assert dense((1, 64, 2, 2), "int8", "NC1HWC0").stored_shape == (1, 2, 2, 2, 32)


def test_a_descriptor_is_frozen_and_checked() -> None:
    good = dense((2, 3), "float32")

    with pytest.raises(FrozenInstanceError):
        good.dtype = "int8"  # type: ignore[misc]
    with pytest.raises(ConfigError, match="found 63"):
        replace(good, alignment=63)
    with pytest.raises(InputError, match="found 1 strides"):
        replace(good, strides=(1,))
    with pytest.raises(InputError, match="negative"):
        TensorDescriptor((-1, 2), (2, 1), "float32")
    with pytest.raises(InputError, match="Unknown dtype"):
        replace(good, dtype="float33")
    with pytest.raises(InputError, match="Unknown layout"):
        replace(good, layout="N?")


def test_an_edge_does_only_what_is_needed() -> None:
    have = dense((1, 32, 4, 4), "float32", "NCHW", alignment=64)

    assert steps(have, have) == ()
    assert steps(have, replace(have, alignment=16)) == ()
    assert steps(have, replace(have, alignment=4096)) == ("copy",)
    assert steps(have, replace(have, device="cuda:0")) == ("copy",)
    assert steps(have, dense((1, 32, 4, 4), "float16", "NHWC")) == ("layout", "cast")
    assert steps(have, dense((1, 32, 4, 4), "int8", "NCHW", device="npu:0")) == ("cast", "copy")
    same = dense((1, 32, 4, 4), "float32", "nChw16c"), dense((1, 32, 4, 4), "float32", "NC1HWC0")
    assert steps(*same) == ()
    strided = describe(np.zeros((4, 6), np.float32).T)
    assert steps(strided, dense((6, 4), "float32", alignment=1)) == ("copy",)
    with pytest.raises(InputError, match="keeps the shape"):
        steps(have, dense((1, 32), "float32"))
