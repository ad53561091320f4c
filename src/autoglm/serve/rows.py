"""Rows of requests: whether a model takes several at once, joining them, and giving each its own.

The first axis of every tensor is the batch where the model leaves it open in all its inputs.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoglm.errors import InvalidRequestError
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
    joins = open_ and not any(isinstance(size, int) for size in outputs)
    return Batching(info.inputs, _fast(info.inputs) if joins else (), joins)


def _fast(inputs: Sequence[TensorInfo]) -> tuple[tuple[str, Any, tuple[int, ...]], ...]:
    rows = []
    for info in inputs:
        tail: tuple[Dim, ...] = (info.shape or ())[1:]
        if not is_native(info.dtype) or not all(isinstance(d, int) for d in tail):
            return ()
        rows.append((info.name, to_numpy(info.dtype), tail))
    return tuple(rows)  # type: ignore[arg-type]


def check_shapes(batching: Batching, feeds: Feeds) -> tuple[int, Hashable]:
    """Rows of a request, and the key that requests of one batch share. Raises InputError."""
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
    checked = check_feeds(declared, feeds)
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
        for count in rows:
            parts.append({name: array[begin : begin + count]})
            begin += count
        return parts
    for count in rows:
        end = begin + count
        parts.append({name: array[begin:end] for name, array in outputs.items()})
        begin = end
    return parts
