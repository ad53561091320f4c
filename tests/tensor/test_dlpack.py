"""Memory crosses to other frameworks and back without a copy, and read-only stays read-only."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

from autoglm.errors import InputError
from autoglm.tensor.arena import address
from autoglm.tensor.dlpack import from_buffer, from_dlpack, to_buffer, to_dlpack
from autoglm.tensor.dtype import DTYPES, bits, from_numpy, to_numpy

CARRIED = sorted(n for n in DTYPES if bits(n) >= 8)
REFUSED = sorted(n for n in DTYPES if bits(n) < 8)


def numbers(name: str) -> np.ndarray:
    return np.array([[1, 2, 0], [4, 1, 2]]).astype(to_numpy(name))


@pytest.mark.parametrize("name", CARRIED)
@pytest.mark.parametrize("writable", [True, False])
def test_a_tensor_comes_back_as_the_same_memory(name: str, writable: bool) -> None:
    array = numbers(name)
    array.flags.writeable = writable

    back = from_dlpack(to_dlpack(array))

    assert address(back) == address(array)
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.tobytes() == array.tobytes()
    assert back.flags.writeable is writable


@pytest.mark.parametrize("name", CARRIED)
def test_torch_sees_the_same_memory_and_gives_it_back(name: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    array = numbers(name)

    tensor = torch.from_dlpack(to_dlpack(array))

    assert str(tensor.dtype) == f"torch.{name}"
    assert tensor.data_ptr() == address(array)
    back = from_dlpack(tensor)
    assert address(back) == address(array)
    assert back.dtype == array.dtype
    if name != "float8_e8m0fnu":
        array[0, 0] = 0
        assert tensor.flatten()[0].item() == 0


def test_memory_lives_as_long_as_the_last_who_uses_it() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    array = np.full(1000, 3, to_numpy("bfloat16"))

    tensor = torch.from_dlpack(to_dlpack(array))
    del array
    gc.collect()
    back = from_dlpack(tensor)
    del tensor
    gc.collect()

    assert back.astype(np.float32).sum() == 3000


def test_strides_cross_too() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    array = np.arange(12, dtype=np.float32).reshape(3, 4)

    tensor = torch.from_dlpack(to_dlpack(array.T[1:]))

    assert tensor.stride() == (1, 4)
    assert from_dlpack(tensor).tolist() == array.T[1:].tolist()


class Old:
    """A producer or consumer from before DLPack 1.0."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __dlpack__(self) -> Any:
        return self.inner.__dlpack__()


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_the_old_protocol_is_spoken_and_cannot_lose_the_read_only_mark(name: str) -> None:
    array = numbers(name)

    assert from_dlpack(Old(to_dlpack(array))).tolist() == array.tolist()

    array.flags.writeable = False
    with pytest.raises(BufferError, match="read"):
        to_dlpack(array).__dlpack__()


@pytest.mark.parametrize("name", REFUSED)
def test_what_dlpack_packs_otherwise_is_refused(name: str) -> None:
    array = np.empty(2, object) if name == "string" else np.ones(2).astype(to_numpy(name))
    with pytest.raises(InputError, match=f"cannot carry {name}"):
        to_dlpack(array)


class Elsewhere(Old):
    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)


def test_foreign_objects_and_devices_are_refused() -> None:
    with pytest.raises(InputError, match="A list does not give its memory"):
        from_dlpack([1, 2])
    with pytest.raises(InputError, match=r"device \(2, 0\)"):
        from_dlpack(Elsewhere(to_dlpack(np.zeros(2))))


def test_a_dtype_that_numpy_lacks_is_named() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")

    with pytest.raises(InputError, match="NumPy has no dtype for DLPack code 5 of 32 bits"):
        from_dlpack(torch.zeros(2, dtype=torch.complex32))


@pytest.mark.parametrize("name", sorted(set(DTYPES) - {"string"}))
@pytest.mark.parametrize("writable", [True, False])
def test_a_buffer_is_the_same_memory(name: str, writable: bool) -> None:
    array = np.array([[1, 0, 1], [0, 1, 1]]).astype(to_numpy(name))
    array.flags.writeable = writable

    view = to_buffer(array)
    back = from_buffer(view, name)

    assert view.readonly is not writable
    assert address(back) == address(array)
    assert back.flags.writeable is writable
    assert back.shape == array.shape
    assert from_numpy(back.dtype) == name


def test_any_object_with_a_buffer_is_taken() -> None:
    data = bytearray(8)

    array = from_buffer(data, "float32", (2, 1))
    array[:] = 1

    assert data == b"\x00\x00\x80\x3f" * 2
    assert not from_buffer(bytes(4), "int8").flags.writeable
    assert from_buffer(memoryview(np.eye(3))).tolist() == np.eye(3).tolist()


def test_buffers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="7 bytes of memory do not make a float32"):
        from_buffer(bytes(7), "float32")
    with pytest.raises(InputError, match=r"do not make a int8 \[3\]"):
        from_buffer(bytes(4), "int8", (3,))
    with pytest.raises(InputError, match="A int does not give"):
        from_buffer(3)
    with pytest.raises(InputError, match="without a copy"):
        from_buffer(np.eye(4)[:, :2].data, shape=(8,))
    with pytest.raises(InputError, match="Text"):
        to_buffer(np.array(["a"]))
