"""Aligned memory: single arrays, and one block shared by tensors whose lives do not overlap."""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoglm.errors import ConfigError, InputError, LimitError
from autoglm.tensor.dtype import from_numpy, to_numpy

HUGE_PAGE = 2 << 20
HUGE_FROM = 8 << 20  # from here on an allocation asks for huge pages
MAX_ALIGNMENT = HUGE_PAGE
_SMALL = 64 << 10  # below this the heap is cheaper than a mapping of its own


def check_alignment(value: object) -> int:
    """`value` as a memory alignment; ConfigError unless it is a power of two from 1 to 2 MiB."""
    good = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_ALIGNMENT
    if isinstance(value, int) and good and value & (value - 1) == 0:
        return value
    raise ConfigError(
        "memory_alignment must be a power of two from 1 to {limit}; found {found!r}.",
        hint="Use 64 (a cache line) unless the device asks for more.",
        limit=MAX_ALIGNMENT,
        found=value,
    )


def allocate(nbytes: int, alignment: int = 64) -> np.ndarray:
    """Zeroed or fresh memory as a uint8 array whose address is a multiple of `alignment`.

    From 8 MiB on it starts on a huge page and asks the system for huge pages.
    """
    check_alignment(alignment)
    if nbytes < _SMALL:
        raw = np.empty(nbytes + alignment, np.uint8)
        return _aligned(raw, nbytes, alignment)
    huge = nbytes >= HUGE_FROM
    align = max(alignment, HUGE_PAGE if huge else 1)
    # A mapping starts on a page, so only what exceeds a page must be searched for.
    spare = align if align > mmap.PAGESIZE else 0
    try:
        block = mmap.mmap(-1, nbytes + spare, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError, ValueError) as error:
        raise LimitError(
            "Cannot get {size} bytes of memory.",
            hint="Use a smaller batch or shape, or a machine with more memory.",
            size=nbytes,
        ) from error
    if huge and hasattr(mmap, "MADV_HUGEPAGE"):
        _advise(block)
    return _aligned(np.frombuffer(block, np.uint8), nbytes, align)


def empty_aligned(shape: Sequence[int], dtype: str, alignment: int = 64) -> np.ndarray:
    """An uninitialised array at an aligned address."""
    held = to_numpy(dtype)
    if held.kind == "O":
        return np.full(tuple(shape), "", held)
    if any(size < 0 for size in shape):
        raise InputError("A shape has no negative sizes; found {shape}.", shape=list(shape))
    count = 1
    for size in shape:
        count *= int(size)
    return allocate(count * held.itemsize, alignment).view(held).reshape(tuple(shape))


def aligned(array: np.ndarray, alignment: int = 64) -> np.ndarray:
    """`array` itself where it is contiguous and aligned, else an aligned copy."""
    if array.dtype.kind == "O" or (array.flags.c_contiguous and is_aligned(array, alignment)):
        return array
    copy = empty_aligned(array.shape, from_numpy(array.dtype), alignment)
    copy[...] = array
    return copy


def is_aligned(array: np.ndarray, alignment: int) -> bool:
    """Whether the array's data starts at a multiple of `alignment`."""
    return address(array) % alignment == 0


def address(array: np.ndarray) -> int:
    """Where the array's data starts."""
    return int(array.__array_interface__["data"][0])


@dataclass(frozen=True, slots=True)
class Lifetime:
    """A tensor that lives from step `first` to step `last`, both included."""

    name: str
    nbytes: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Where each tensor lies in one block of `nbytes`, and what they would take side by side."""

    offsets: Mapping[str, int]
    nbytes: int
    unshared_bytes: int
    alignment: int


def plan_memory(tensors: Sequence[Lifetime], alignment: int = 64) -> MemoryPlan:
    """Offsets at which tensors alive together never overlap: largest first, tightest gap."""
    check_alignment(alignment)
    placed: list[tuple[Lifetime, int, int]] = []
    total = 0
    for tensor in sorted(tensors, key=lambda t: (-t.nbytes, t.first, t.name)):
        size = _round_up(tensor.nbytes, alignment)
        busy = sorted((start, end) for other, start, end in placed if _meet(tensor, other))
        start = _best_gap(busy, size)
        placed.append((tensor, start, start + size))
        total = max(total, start + size)
    unshared = sum(_round_up(t.nbytes, alignment) for t in tensors)
    return MemoryPlan({t.name: start for t, start, _ in placed}, total, unshared, alignment)


class Arena:
    """One aligned block from which arrays are cut; they keep it alive."""

    def __init__(self, nbytes: int, alignment: int = 64) -> None:
        self.alignment = check_alignment(alignment)
        self.memory = allocate(nbytes, alignment)

    @property
    def nbytes(self) -> int:
        """Size of the block."""
        return int(self.memory.nbytes)

    def view(self, offset: int, shape: Sequence[int], dtype: str) -> np.ndarray:
        """An array over this block from `offset`; whoever planned the offsets minds overlaps."""
        held = to_numpy(dtype)
        size = int(np.prod(shape, dtype=object)) * held.itemsize
        if held.kind == "O" or offset % self.alignment or not 0 <= offset <= self.nbytes - size:
            raise InputError(
                "An arena of {total} bytes, aligned to {alignment}, has no room for {size} bytes of"
                " {dtype} at {offset}.",
                total=self.nbytes,
                alignment=self.alignment,
                size=size,
                dtype=dtype,
                offset=offset,
            )
        return self.memory[offset : offset + size].view(held).reshape(tuple(shape))


def _aligned(raw: np.ndarray, nbytes: int, alignment: int) -> np.ndarray:
    start = -address(raw) % alignment
    # Not a slice: an empty slice would lose the address.
    return np.ndarray((nbytes,), np.uint8, raw, start)


def _advise(block: mmap.mmap) -> None:
    try:
        block.madvise(mmap.MADV_HUGEPAGE)
    except OSError:  # a kernel without huge pages: a hint that cannot be taken costs nothing
        return


def _round_up(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


def _meet(one: Lifetime, other: Lifetime) -> bool:
    return one.first <= other.last and other.first <= one.last


def _best_gap(busy: list[tuple[int, int]], size: int) -> int:
    """Start of the smallest gap between busy ranges that holds `size`; else behind them all."""
    best, best_size, end = -1, 0, 0
    for start, stop in busy:
        gap = start - end
        if gap >= size and (best < 0 or gap < best_size):
            best, best_size = end, gap
        end = max(end, stop)
    return best if best >= 0 else end
