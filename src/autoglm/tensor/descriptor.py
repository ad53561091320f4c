"""What a tensor in memory is: dims, strides, dtype, an explicit layout tag, alignment, device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoglm.errors import InputError
from autoglm.tensor.arena import MAX_ALIGNMENT, address, check_alignment
from autoglm.tensor.dtype import dtype as dtype_row
from autoglm.tensor.dtype import from_numpy
from autoglm.tensor.layout import Layout, layout, packed_shape, unpack


@dataclass(frozen=True, slots=True)
class TensorDescriptor:
    """A tensor's shape in memory. The layout is a tag of its own, never guessed from strides.

    `dims` are logical, in the layout's usual axis order (NCHW order for NHWC too); `strides` count
    elements, one for each stored dimension (`stored_shape`).
    """

    dims: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    layout: str = "ND"
    alignment: int = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        dtype_row(self.dtype)
        check_alignment(self.alignment)
        if any(size < 0 for size in self.dims):
            raise InputError("A shape has no negative sizes; found {dims}.", dims=list(self.dims))
        if len(self.strides) != len(self.stored_shape):
            raise InputError(
                "Layout {layout} stores {dims} in {expected} dimensions; found {found} strides.",
                layout=self.layout,
                dims=list(self.dims),
                expected=len(self.stored_shape),
                found=len(self.strides),
            )

    @property
    def format(self) -> Layout:
        """The layout itself."""
        return layout(self.layout, self.dtype)

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape as stored: permuted, blocked, padded."""
        return packed_shape(self.dims, self.format)

    @property
    def contiguous(self) -> bool:
        """Whether elements are stored one behind the other."""
        shape = self.stored_shape
        if 0 in shape:
            return True
        expected = row_strides(shape)
        return all(n == 1 or a == b for n, a, b in zip(shape, self.strides, expected, strict=True))

    @property
    def nbytes(self) -> int:
        """Bytes of a contiguous copy, padding included; a sub-byte element takes one."""
        return math.prod(self.stored_shape) * dtype_row(self.dtype).numpy.itemsize


def row_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides, in elements, of a contiguous array."""
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def dense(
    dims: Sequence[int],
    dtype: str,
    layout_name: str = "ND",
    *,
    alignment: int = 64,
    device: str = "cpu",
) -> TensorDescriptor:
    """The descriptor of a contiguous tensor that is yet to be made."""
    stored = packed_shape(dims, layout(layout_name, dtype))
    return TensorDescriptor(tuple(dims), row_strides(stored), dtype, layout_name, alignment, device)


def describe(
    array: np.ndarray, layout_name: str = "ND", dims: Sequence[int] | None = None
) -> TensorDescriptor:
    """The descriptor of an array stored as `layout_name`; `dims` is its shape without padding."""
    name = from_numpy(array.dtype)
    kind = layout(layout_name, name)
    if dims is None:
        dims = _logical(array, kind)
    if packed_shape(dims, kind) != array.shape:
        raise InputError(
            "{dims} stored as {layout} has shape {expected}, found {found}.",
            dims=list(dims),
            layout=layout_name,
            expected=list(packed_shape(dims, kind)),
            found=list(array.shape),
        )
    strides = tuple(step // array.itemsize for step in array.strides)
    start = address(array)
    alignment = min(start & -start, MAX_ALIGNMENT) if start else MAX_ALIGNMENT
    return TensorDescriptor(tuple(dims), strides, name, layout_name, alignment)


def steps(have: TensorDescriptor, want: TensorDescriptor) -> tuple[str, ...]:
    """What turns one into the other: of layout, cast, copy, in that order; () shares memory."""
    if have.dims != want.dims:
        raise InputError(
            "An edge keeps the shape: {have} against {want}.",
            have=list(have.dims),
            want=list(want.dims),
        )
    needed = []
    if have.format != want.format:
        needed.append("layout")
    if have.dtype != want.dtype:
        needed.append("cast")
    # Changing layout or dtype writes fresh memory, aligned and dense already.
    unfit = have.alignment < want.alignment or (want.contiguous and not have.contiguous)
    if have.device != want.device or (unfit and not needed):
        needed.append("copy")
    return tuple(needed)


def _logical(array: np.ndarray, kind: Layout) -> tuple[int, ...]:
    return tuple(unpack(array, kind).shape)
