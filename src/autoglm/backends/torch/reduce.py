"""Reductions and the places of extremes."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from autoglm.backends.torch.dtypes import highest, lowest
from autoglm.backends.torch.op import Kernel, Kind, Node, Op, Table


def _float(x: Tensor) -> Tensor:
    return x if x.dtype.is_floating_point else x.double()


def _back(result: Tensor, x: Tensor) -> Tensor:
    return result if result.dtype is x.dtype else result.to(x.dtype)


def total(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Sum in the input's dtype."""
    return torch.sum(x, axes, keep, dtype=x.dtype)


def average(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Mean; integers truncate."""
    return _back(torch.mean(_float(x), axes, keep), x)


def product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """torch takes one axis at a time."""
    for axis in sorted(axes, reverse=True):
        x = torch.prod(x, axis, keep, dtype=x.dtype)
    return x


def largest(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Maximum; of nothing, the least value."""
    return _extreme(torch.amax, lowest(x.dtype), x, axes, keep)


def smallest(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Minimum; of nothing, the greatest value."""
    return _extreme(torch.amin, highest(x.dtype), x, axes, keep)


def _extreme(run: Kernel, empty: Any, x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if x.numel():
        result: Tensor = run(x, axes, keep)
        return result
    shape = torch.sum(x, axes, keep).shape
    return torch.full(shape, empty, dtype=x.dtype, device=x.device)


def log_sum_exp(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Stable; of nothing, -inf."""
    return _back(torch.logsumexp(_float(x), axes, keep), x)


def norm_1(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Sum of absolutes."""
    return total(x.abs(), axes, keep)


def norm_2(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Root of the sum of squares."""
    wide = _float(x)
    return _back(torch.sqrt(torch.sum(wide * wide, axes, keep)), x)


def square_sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Sum of squares."""
    return total(x * x, axes, keep)


def log_sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Log of the sum."""
    return _back(torch.log(torch.sum(_float(x), axes, keep)), x)


def reduced(run: Kernel, node: Node, x: Tensor, axes: Any = None) -> Tensor:
    """Axes as an attribute before opset 13 or 18, as an input since; none means all."""
    chosen = axes if axes is not None else node["axes"]
    if not chosen and node["noop_with_empty_axes"]:
        chosen = []
        if run in (total, average, product, largest, smallest):
            return x
    if not chosen and not node["noop_with_empty_axes"]:
        chosen = range(x.ndim)
    keep = bool(node["keepdims"])
    if x.ndim == 0 or not chosen:
        single: Tensor = run(x.reshape(*x.shape, 1), [-1], False)
        return single
    result: Tensor = run(x, [axis % x.ndim for axis in chosen], keep)
    return result


def place(run: Kernel, node: Node, x: Tensor) -> Tensor:
    """Index of the extreme; of equal ones the first, or the last on request."""
    axis, keep = node["axis"], bool(node["keepdims"])
    if x.dtype is torch.bool:
        x = x.to(torch.uint8)
    if not node["select_last_index"]:
        first: Tensor = run(x, axis, keep)
        return first
    last: Tensor = run(x.flip(axis), axis, keep)
    return x.shape[axis] - 1 - last


def _reduction(run: Kernel, kind: Kind = Kind.VALUE) -> Op:
    return Op(partial(reduced, run), host=(1,), kind=kind)


TABLE: Table = {
    "ReduceSum": _reduction(total),
    "ReduceMean": _reduction(average),
    "ReduceProd": _reduction(product),
    "ReduceMax": _reduction(largest, Kind.ORDER),
    "ReduceMin": _reduction(smallest, Kind.ORDER),
    "ReduceL1": _reduction(norm_1),
    "ReduceL2": _reduction(norm_2),
    "ReduceSumSquare": _reduction(square_sum),
    "ReduceLogSum": _reduction(log_sum),
    "ReduceLogSumExp": _reduction(log_sum_exp),
    "ArgMax": Op(partial(place, torch.argmax), kind=Kind.ORDER),
    "ArgMin": Op(partial(place, torch.argmin), kind=Kind.ORDER),
}
