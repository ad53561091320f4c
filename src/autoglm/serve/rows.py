"""Rows of requests: whether a model takes several at once, joining them, and giving each its own.

The first axis of every tensor is the batch where the model leaves it open in all its inputs, and
no output calls its own first axis otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoglm.errors import InputError, InvalidRequestError
from autoglm.serve.core import ModelInfo
from autoglm.spec import Dim, Feeds, TensorInfo, Value
from autoglm.tensor.dtype import is_native, to_numpy
from autoglm.tensor.feeds import check_feeds


@dataclass(frozen=True, slots=True)
class Batching:
    """How one model's requests may be joined, worked out once."""

    inputs: tuple[TensorInfo, ...]
    # (name, dtype, sizes behind the first axis where all are known) of each input; () = no way
    # but the careful one
    fast: tuple[tuple[str, Any, tuple[int, ...]], ...]
    joins: bool  # False: every request runs by itself
    fixed: int = 0  # the one row count that the model takes; 0 = any

    @property
    def pads(self) -> bool:
        """Whether rows must be filled up."""
        return self.fixed > 1


def batching_of(info: ModelInfo) -> Batching:
    """Read it off the declared shapes."""
    firsts = {i.shape[0] if i.kind == "tensor" and i.shape else "" for i in info.inputs}
    tensors = all(i.kind == "tensor" and i.shape for i in (*info.inputs, *info.outputs))
    first = next(iter(firsts)) if len(firsts) == 1 and tensors else ""
    outputs = {o.shape[0] for o in info.outputs if o.shape}
    if isinstance(first, int):
        fixed = first if outputs == {first} else 0
        return Batching(info.inputs, (), fixed > 1, fixed if fixed > 1 else 0)
    # Two names for the first axis are two axes; no name at all may be the same one.
    open_ = tensors and bool(firsts) and (len(firsts) == 1 or not any(firsts - {None}))
    joins = bool(open_) and _rows_stay_apart(info, first)
    return Batching(info.inputs, _fast(info.inputs) if joins else (), joins)


def _rows_stay_apart(info: ModelInfo, first: str | None) -> bool:
    """Whether the names of the axes allow that each output row belongs to one input row."""
    for output in info.outputs:
        size = (output.shape or ("",))[0]
        # Such as [boxes, 7]: their number may be that of the rows by chance.
        if isinstance(size, int) or (size and size != first):
            return False
    later = {size for t in (*info.inputs, *info.outputs) for size in (t.shape or ())[1:]}
    return not first or first not in later


def rows_are_independent(
    info: ModelInfo, run: Callable[[Feeds], Mapping[str, Value]], feeds: Sequence[Feeds]
) -> bool:
    """Run two rows of `feeds` alone and together: whether each gets the same answer, but for the
    noise of its precision. False as well where the model fails at it.
    """
    batching = batching_of(info)
    if not batching.joins:
        return False
    try:
        pair = _different_rows(feeds)
        if not pair:
            return False  # equal rows prove nothing
        fixed = batching.fixed
        alone = [run(join([one], max(fixed - 1, 0))) for one in pair]
        singles = [split(outputs, [1], fixed or 1) for outputs in alone]
        parts = split(run(join(pair, max(fixed - 2, 0))), [1, 1], fixed or 2)
    except Exception:  # an engine may raise anything; this one then runs request by request
        return False
    if parts is None:
        return False
    return all(
        single is not None and all(_alike(single[0][name], part[name]) for name in part)
        for single, part in zip(singles, parts, strict=True)
    )


def _different_rows(feeds: Sequence[Feeds]) -> list[Feeds]:
    first = _row(feeds[-1], 0)
    halved = {n: v * v.dtype.type(0.5) if v.dtype.kind == "f" else v for n, v in first.items()}
    for other in (*(_row(f, -1) for f in reversed(feeds)), halved):
        fits = all(v.shape == first[n].shape for n, v in other.items())
        if fits and any(not np.array_equal(v, first[n]) for n, v in other.items()):
            return [first, other]
    return []


def _row(feeds: Feeds, index: int) -> dict[str, np.ndarray]:
    return {n: v[index:][:1] for n, v in feeds.items() if isinstance(v, np.ndarray)}


def _alike(one: Value, other: Value) -> bool:
    if not isinstance(one, np.ndarray) or not isinstance(other, np.ndarray):
        return False
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype.kind in "biuOSUM":
        return np.array_equal(one, other)
    wide = np.complex128 if one.dtype.kind == "c" else np.float64
    noise = 1e-4 if one.dtype.itemsize >= 4 else 2e-2
    a, b = one.astype(wide), other.astype(wide)
    largest = float(np.abs(a[np.isfinite(a)]).max(initial=0.0))
    return np.allclose(a, b, rtol=noise, atol=noise * largest, equal_nan=True)


def _fast(inputs: Sequence[TensorInfo]) -> tuple[tuple[str, Any, tuple[int, ...]], ...]:
    rows = []
    for info in inputs:
        tail: tuple[Dim, ...] = (info.shape or ())[1:]
        if not is_native(info.dtype) or not all(isinstance(d, int) for d in tail):
            return ()
        rows.append((info.name, to_numpy(info.dtype), tail))
    return tuple(rows)  # type: ignore[arg-type]


def check_shapes(batching: Batching, feeds: Feeds) -> tuple[int, Hashable]:
    """Rows of a request, and the key that requests of one batch share. Raises
    InvalidRequestError.
    """
    fast = batching.fast
    if fast and len(feeds) == len(fast):
        rows = -1
        for name, dtype, tail in fast:
            array = feeds.get(name)
            if array is None or array.dtype is not dtype:
                break
            shape = array.shape
            if shape[1:] != tail or not shape or (rows >= 0 and shape[0] != rows):
                break
            rows = shape[0]
        else:
            if rows > 0:
                return rows, None
    return _check_slowly(batching, feeds)


def _check_slowly(batching: Batching, feeds: Feeds) -> tuple[int, Hashable]:
    fixed = batching.fixed
    declared = batching.inputs
    if fixed:
        declared = tuple(_open(info) for info in declared)
    checked = _checked(declared, feeds)
    if not batching.joins:
        return 1, None
    rows = {array.shape[0] for array in checked.values()}
    if len(rows) != 1 or rows == {0} or (fixed and max(rows) > fixed):
        raise InvalidRequestError(
            "All inputs need the same number of rows, {allowed}; found {found}.",
            allowed=f"1 to {fixed}" if fixed else "at least 1",
            found=", ".join(f"{name} {a.shape[0]}" for name, a in checked.items()),
        )
    return rows.pop(), tuple((n, a.dtype, a.shape[1:]) for n, a in sorted(checked.items()))


def _checked(declared: Sequence[TensorInfo], feeds: Feeds) -> dict[str, Value]:
    """To a client there is one kind of wrong request, whoever finds what is wrong with it."""
    try:
        return check_feeds(declared, feeds)
    except InputError as error:
        raise InvalidRequestError(error.template, hint=error.hint_template, **error.facts) from None


def _open(info: TensorInfo) -> TensorInfo:
    return TensorInfo(info.name, info.dtype, (None, *(info.shape or ())[1:]), info.kind)


def join(feeds: Sequence[Feeds], padding: int) -> dict[str, Value]:
    """One set of feeds, in order; `padding` more rows repeat the last."""
    joined = {}
    for name in feeds[0]:
        parts = [f[name] for f in feeds]
        if padding:
            parts.append(np.repeat(parts[-1][-1:], padding, axis=0))
        joined[name] = np.concatenate(parts) if len(parts) > 1 else parts[0]
    return joined


def split(
    outputs: Mapping[str, Value], rows: Sequence[int], total: int
) -> list[Mapping[str, Value]] | None:
    """Each request's rows, as views; None where an output has not `total` rows."""
    for array in outputs.values():
        if not isinstance(array, np.ndarray) or array.ndim == 0 or array.shape[0] != total:
            return None
    parts: list[Mapping[str, Value]] = []
    begin = 0
    if len(outputs) == 1:
        ((name, array),) = outputs.items()
        if len(rows) == total:  # a row for each: NumPy walks them sooner than Python slices
            return [{name: row} for row in array[:, None]]
        for count in rows:
            parts.append({name: array[begin : begin + count]})
            begin += count
        return parts
    for count in rows:
        end = begin + count
        parts.append({name: array[begin:end] for name, array in outputs.items()})
        begin = end
    return parts
