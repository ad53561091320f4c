"""Memory starts where it was asked to, and tensors that live together never overlap."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm.errors import ConfigError, InputError, LimitError
from autoglm.tensor.arena import (
    HUGE_FROM,
    HUGE_PAGE,
    MAX_ALIGNMENT,
    Arena,
    Lifetime,
    address,
    aligned,
    allocate,
    check_alignment,
    empty_aligned,
    is_aligned,
    plan_memory,
)
from autoglm.tensor.dtype import DTYPES, from_numpy

ALIGNMENTS = st.integers(0, 21).map(lambda power: 1 << power)


@settings(deadline=None)
@given(st.integers(0, 300_000), ALIGNMENTS)
def test_every_address_is_a_multiple_of_the_alignment(nbytes: int, alignment: int) -> None:
    memory = allocate(nbytes, alignment)

    assert address(memory) % alignment == 0
    assert memory.nbytes == nbytes
    memory[:] = 7  # it is ours to write


@pytest.mark.parametrize("value", [0, -64, 63, 96, 2 * MAX_ALIGNMENT, 64.0, "64", True, None])
def test_an_alignment_is_a_power_of_two_up_to_2_mib(value: object) -> None:
    with pytest.raises(ConfigError, match=f"memory_alignment must be a power of two .* {value!r}"):
        check_alignment(value)


def test_large_memory_starts_on_a_huge_page_and_asks_for_huge_pages() -> None:
    memory = allocate(HUGE_FROM)

    assert address(memory) % HUGE_PAGE == 0
    flags = mapping_flags(address(memory))
    if "hg" not in flags and "thp" not in kernel_config():
        pytest.skip("this kernel has no transparent huge pages")
    assert "hg" in flags  # MADV_HUGEPAGE was taken


def mapping_flags(where: int) -> list[str]:
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = line.split(maxsplit=1)[0]
        if "-" in head and not head.endswith(":"):
            start, end = (int(part, 16) for part in head.split("-"))
            inside = start <= where < end
        elif inside and line.startswith("VmFlags:"):
            return line.split()[1:]
    return []


def kernel_config() -> str:
    return "thp" if Path("/sys/kernel/mm/transparent_hugepage").exists() else ""


@pytest.mark.parametrize("name", sorted(DTYPES))
def test_an_aligned_array_has_its_dtype_and_shape(name: str) -> None:
    shapes = [(3, 0, 2), (), (5, 3)]
    arrays = [empty_aligned(shape, name, 256) for shape in shapes]

    assert [a.shape for a in arrays] == shapes
    assert {from_numpy(a.dtype) for a in arrays} == {name}
    assert name == "string" or all(is_aligned(a, 256) for a in arrays)


def test_alignment_copies_only_what_needs_it() -> None:
    good = empty_aligned((4,), "float32", 64)
    raw = allocate(64)
    off = raw[4:20].view(np.float32)
    off[:] = [1, 2, 3, 4]

    assert aligned(good, 64) is good
    assert is_aligned(aligned(off, 64), 64)
    assert aligned(off, 64).tolist() == [1, 2, 3, 4]
    assert aligned(good[::2], 4).flags.c_contiguous


def test_memory_that_is_not_there_is_refused() -> None:
    with pytest.raises(LimitError, match="Cannot get"):
        empty_aligned((1 << 40, 1 << 20), "float32")
    with pytest.raises(LimitError, match="Cannot get"):
        allocate(1 << 70)
    with pytest.raises(InputError, match="no negative"):
        empty_aligned((-1,), "float32")


LIVES = st.lists(
    st.tuples(st.integers(0, 500), st.integers(0, 12), st.integers(0, 6)), max_size=24
).map(
    lambda rows: [
        Lifetime(str(i), size, first, first + more) for i, (size, first, more) in enumerate(rows)
    ]
)


@settings(max_examples=300, deadline=None)
@given(LIVES, ALIGNMENTS)
def test_tensors_that_live_together_never_overlap(lives: list[Lifetime], alignment: int) -> None:
    plan = plan_memory(lives, alignment)

    for tensor in lives:
        start = plan.offsets[tensor.name]
        assert start % alignment == 0
        assert 0 <= start <= plan.nbytes - tensor.nbytes
    for a, b in combinations(lives, 2):
        together = a.first <= b.last and b.first <= a.last
        start, other = plan.offsets[a.name], plan.offsets[b.name]
        if together and a.nbytes and b.nbytes:
            assert start + a.nbytes <= other or other + b.nbytes <= start
    peak = max(
        (sum(t.nbytes for t in lives if t.first <= step <= t.last) for step in range(20)), default=0
    )
    assert peak <= plan.nbytes <= plan.unshared_bytes


def test_a_chain_needs_two_buffers_only() -> None:
    chain = [Lifetime(f"t{i}", 1000, i, i + 1) for i in range(50)]

    plan = plan_memory(chain, 8)

    assert plan.nbytes == 2000
    assert plan.unshared_bytes == 50_000


def test_an_arena_gives_views_of_its_one_block() -> None:
    arena = Arena(4096, 256)
    one = arena.view(0, (4, 4), "float32")
    two = arena.view(256, (3,), "bfloat16")

    assert np.shares_memory(one, arena.memory)
    assert is_aligned(two, 256)
    memory = arena.memory
    del arena
    one[...] = 3
    assert memory[:4].view(np.float32)[0] == 3


@pytest.mark.parametrize(
    ("offset", "shape", "dtype"),
    [(4, (1,), "float32"), (4096, (1,), "int8"), (-256, (1,), "int8"), (0, (1 << 60,), "int8"),
     (0, (1,), "string")],
)  # fmt: skip
def test_an_arena_refuses_what_it_has_no_room_for(
    offset: int, shape: tuple[int, ...], dtype: str
) -> None:
    with pytest.raises(InputError, match="has no room"):
        Arena(4096, 256).view(offset, shape, dtype)
