"""One algebra for tensor layouts: a layout is a permutation of axes, some split into blocks.

The stored array is the logical one with each blocked axis padded with zeros to a multiple of its
block and split into (outer, block), the pieces transposed into storage order, and pieces that share
a stored dimension joined. Going back does the same from right to left and drops the padding.

Names follow their owners: `NCHW`, `NHWC`, `HWIO`; oneDNN's `nChw16c` and `OIhw16i16o` (a capital is
a blocked axis; TVM writes `NCHW16c`); TensorRT's `NCHW_VECT_C4` and `NCHW_VECT_C32`; Ascend's
`NC1HWC0`, `NDC1HWC0`, `FRACTAL_NZ` and `FRACTAL_Z`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from autoglm.errors import InputError
from autoglm.tensor.dtype import nbytes


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a logical axis: a block of `size`, or (0) what is left outside its blocks."""

    axis: str
    size: int = 0


@dataclass(frozen=True, slots=True)
class Layout:
    """Logical axes in their usual order, and the stored dimensions, each of one or more pieces.

    Two layouts are equal when they store alike, whatever they are called.
    """

    name: str = field(compare=False)
    axes: tuple[str, ...]
    dims: tuple[tuple[Piece, ...], ...]
    batch: bool = False  # any number of further leading axes, stored first and whole

    def block(self, axis: str) -> int:
        """What `axis` is padded to a multiple of; 1 where it is not blocked."""
        return math.prod(p.size for p in self.pieces if p.axis == axis and p.size)

    @property
    def blocked(self) -> bool:
        """Whether any axis is split, so that padding may be stored."""
        return any(p.size for p in self.pieces)

    @property
    def pieces(self) -> list[Piece]:
        """All pieces in storage order."""
        return [piece for dim in self.dims for piece in dim]


@dataclass(frozen=True, slots=True)
class Conversion:
    """One change of layout."""

    source: Layout
    target: Layout


# Ascend's C0 is the width of its cube unit: 16, or 32 values of 8 bits. Newer chips may differ: a
# backend that knows better names the blocked layout outright (`nChw8c`).
_C0 = {"float16": 16, "bfloat16": 16, "float32": 16, "int8": 32, "uint8": 32}
_SPECS = {
    "NC1HWC0": ("NCHW", "N C H W c0"),
    "NDC1HWC0": ("NCDHW", "N D C H W c0"),
    "FRACTAL_NZ": ("*MN", "N M 16m n0"),
    "FRACTAL_Z": ("NCHW", "CHW N 16n c0"),
    "NCHW_VECT_C4": ("NCHW", "N C H W 4c"),
    "NCHW_VECT_C32": ("NCHW", "N C H W 32c"),
    "ND": ("*", ""),
}
_ORDER = "GNOICDHWLMST"  # the usual order of axes, activations and weights alike
_TAG = re.compile(r"(?P<axes>[A-Za-z]+)(?P<blocks>(?:\d+[a-z])*)")


@cache
def layout(name: str, dtype: str = "float16") -> Layout:
    """The layout of that name; `dtype` sets the block of Ascend's formats (32 for 8 bits)."""
    if name in _SPECS:
        axes, dims = _SPECS[name]
        c0 = _C0.get(dtype, 16)
        return _parse(name, axes, re.sub(r"([a-z])0", lambda m: f"{c0}{m[1]}", dims))
    match = _TAG.fullmatch(name)
    letters = match["axes"].upper() if match else ""
    blocks = re.findall(r"\d+[a-z]", match["blocks"]) if match else []
    known = len(set(letters)) == len(letters) and set(letters) <= set(_ORDER)
    split = {b[-1].upper() for b in blocks}
    if (
        not letters
        or not known
        or not split <= set(letters)
        or any(int(b[:-1]) < 2 for b in blocks)
    ):
        raise InputError(
            "Unknown layout {name!r}.",
            hint="Known: axis orders as NCHW, NHWC, HWIO; oneDNN tags as nChw16c; {known}.",
            name=name,
            known=", ".join(sorted(_SPECS)),
        )
    return _parse(name, "".join(sorted(letters, key=_ORDER.index)), " ".join([*letters, *blocks]))


def _parse(name: str, axes: str, dims: str) -> Layout:
    stored = tuple(
        (Piece(word[-1].upper(), int(word[:-1])),) if word[0].isdigit() else tuple(map(Piece, word))
        for word in dims.split()
    )
    return Layout(name, tuple(axes.lstrip("*")), stored, batch=axes.startswith("*"))


def bind(layout: Layout, rank: int) -> Layout:
    """`layout` for logical tensors of exactly that rank: leading axes are named 0, 1, …"""
    extra = rank - len(layout.axes)
    if extra < 0 or (extra and not layout.batch):
        raise InputError(
            "Layout {name} takes {expected} dimensions, found {found}.",
            name=layout.name,
            expected=f"at least {len(layout.axes)}" if layout.batch else len(layout.axes),
            found=rank,
        )
    if not layout.batch:
        return layout
    lead = tuple(str(i) for i in range(extra))
    return Layout(layout.name, lead + layout.axes, (*((Piece(a),) for a in lead), *layout.dims))


def packed_shape(dims: Sequence[int], layout: Layout) -> tuple[int, ...]:
    """The stored shape of a logical tensor of shape `dims` (in the layout's usual axis order)."""
    bound = bind(layout, len(dims))
    sizes = dict(zip(bound.axes, dims, strict=True))
    return tuple(math.prod(_size(piece, sizes, bound) for piece in dim) for dim in bound.dims)


def padding_bytes(dims: Sequence[int], layout: Layout, dtype: str) -> int:
    """Bytes stored beyond the logical elements."""
    return nbytes(dtype, math.prod(packed_shape(dims, layout))) - nbytes(dtype, math.prod(dims))


def convert(array: np.ndarray, source: Layout, target: Layout, **dims: int) -> np.ndarray:
    """`array`, stored as `source`, stored as `target`: contiguous, padding zero.

    `dims` gives the true size of blocked axes (`C=3`); one not named is taken to fill its blocks.
    Where nothing moves and `array` is contiguous, it is returned itself.
    """
    _same_axes(source, target)
    if source == target and not dims:
        return _contiguous(array)
    return pack(unpack(array, source, **dims), target)


def unpack(array: np.ndarray, source: Layout, **dims: int) -> np.ndarray:
    """The logical tensor (a view where possible) of an array stored as `source`."""
    bound = _bind_stored(source, array.ndim)
    sizes = _sizes(array.shape, bound, dims)
    split = array.reshape([_size(piece, sizes, bound) for piece in bound.pieces])
    padded = [_padded(sizes[axis], bound.block(axis)) for axis in bound.axes]
    whole = split.transpose(_logical_order(bound)).reshape(padded)
    return whole[tuple(slice(sizes[axis]) for axis in bound.axes)]


def pack(array: np.ndarray, target: Layout) -> np.ndarray:
    """A logical tensor stored as `target`: contiguous, padding zero."""
    bound = bind(target, array.ndim)
    sizes = dict(zip(bound.axes, array.shape, strict=True))
    order = _logical_order(bound)
    filled = _fill(array, [_padded(sizes[axis], bound.block(axis)) for axis in bound.axes])
    split = filled.reshape([_size(bound.pieces[i], sizes, bound) for i in order])
    stored = split.transpose([order.index(i) for i in range(len(order))])
    return _contiguous(stored).reshape(packed_shape(array.shape, bound))


def _logical_order(bound: Layout) -> list[int]:
    """Places of the stored pieces, axis by axis, the most significant first."""
    # Outside the blocks comes first, then the blocks as they are stored.
    keys = [(bound.axes.index(p.axis), p.size != 0, i) for i, p in enumerate(bound.pieces)]
    return [i for *_, i in sorted(keys)]


def permutation(source: Layout, target: Layout) -> tuple[int, ...] | None:
    """The `perm` of the Transpose that converts; None where a layout is blocked."""
    if source.blocked or target.blocked or source.batch or target.batch:
        return None
    _same_axes(source, target)
    stored = [dim[0].axis for dim in source.dims]
    return tuple(stored.index(dim[0].axis) for dim in target.dims)


def compose(first: Conversion, second: Conversion) -> Conversion | None:
    """Both conversions as one; None where they cancel (A to B to A)."""
    if first.target != second.source:
        raise InputError(
            "A conversion to {found} cannot precede one from {expected}.",
            found=first.target.name,
            expected=second.source.name,
        )
    _same_axes(first.source, second.target)
    return None if first.source == second.target else Conversion(first.source, second.target)


def cancel(chain: Sequence[Conversion]) -> tuple[Conversion, ...]:
    """The shortest chain that does the same: one conversion, or none."""
    left: Conversion | None = None
    for step in chain:
        left = step if left is None else compose(left, step)
    return () if left is None or left.source == left.target else (left,)


def apply(array: np.ndarray, chain: Sequence[Conversion], **dims: int) -> np.ndarray:
    """`array` through every conversion of the chain."""
    for step in chain:
        array = convert(array, step.source, step.target, **dims)
    return array


def _same_axes(source: Layout, target: Layout) -> None:
    if not (source.batch or target.batch) and set(source.axes) != set(target.axes):
        raise InputError(
            "{source} and {target} have different axes: {first} against {second}.",
            source=source.name,
            target=target.name,
            first="".join(source.axes),
            second="".join(target.axes),
        )


def _bind_stored(source: Layout, rank: int) -> Layout:
    extra = rank - len(source.dims)
    if extra < 0 or (extra and not source.batch):
        raise InputError(
            "An array stored as {name} has {expected} dimensions, found {found}.",
            name=source.name,
            expected=len(source.dims),
            found=rank,
        )
    return bind(source, len(source.axes) + extra)


def _sizes(shape: Sequence[int], bound: Layout, dims: Mapping[str, int]) -> dict[str, int]:
    """The true size of every logical axis, from the stored shape and what the caller says."""
    sizes = {axis: size for axis, size in dims.items() if axis in bound.axes}
    unknown = sorted(set(dims) - set(bound.axes))
    if unknown:
        raise InputError(
            "Layout {name} has no axis {axes}.", name=bound.name, axes=", ".join(unknown)
        )
    for stored, dim in zip(shape, bound.dims, strict=True):
        _solve(stored, dim, bound, sizes)
    expected = packed_shape([sizes[axis] for axis in bound.axes], bound)
    if expected != tuple(shape):
        raise InputError(
            "An array stored as {name} with {dims} has shape {expected}, found {found}.",
            name=bound.name,
            dims=", ".join(f"{axis}={sizes[axis]}" for axis in bound.axes),
            expected=list(expected),
            found=list(shape),
        )
    return sizes


def _solve(stored: int, dim: tuple[Piece, ...], bound: Layout, sizes: dict[str, int]) -> None:
    """Find the one axis of a stored dimension that is not known yet."""
    missing = [piece.axis for piece in dim if not piece.size and piece.axis not in sizes]
    if len(missing) > 1:
        raise InputError(
            "Layout {name} joins {axes} in one dimension; give their sizes.",
            hint="Pass them by name, as in convert(array, source, target, H=3, W=3).",
            name=bound.name,
            axes=", ".join(missing),
        )
    if missing:
        others = math.prod(_size(p, sizes, bound) for p in dim if p.axis != missing[0])
        sizes[missing[0]] = (stored // others if others else 0) * bound.block(missing[0])


def _size(piece: Piece, sizes: Mapping[str, int], bound: Layout) -> int:
    return piece.size or -(-sizes[piece.axis] // bound.block(piece.axis))


def _padded(size: int, block: int) -> int:
    return -(-size // block) * block


def _fill(array: np.ndarray, shape: list[int]) -> np.ndarray:
    if list(array.shape) == shape:
        return array
    filled = np.zeros(shape, array.dtype)
    filled[tuple(slice(size) for size in array.shape)] = array
    return filled


def _contiguous(array: np.ndarray) -> np.ndarray:
    # np.ascontiguousarray would turn a 0-d array into a 1-d one.
    return array if array.flags.c_contiguous else array.copy(order="C")
