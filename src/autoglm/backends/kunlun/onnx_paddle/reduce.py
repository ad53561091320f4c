"""Reductions and the places of extremes."""

from __future__ import annotations

from functools import partial
from typing import Any

import paddle

from .op import Node, Op, Run, Table, Value, as_float, axis_of, back, name_of, rank, size


def total(x: Value, axes: list[int], keep: bool) -> Value:
    """Sum in the input's dtype."""
    return back(paddle.sum(x, axes, keepdim=keep), x)


def average(x: Value, axes: list[int], keep: bool) -> Value:
    """Mean; integers truncate."""
    return back(paddle.mean(as_float(x), axes, keep), x)


def product(x: Value, axes: list[int], keep: bool) -> Value:
    """Product in the input's dtype."""
    return back(paddle.prod(x, axes, keep), x)


def extreme(run: Run, x: Value, axes: list[int], keep: bool) -> Value:
    """Maximum or minimum, of booleans too."""
    if name_of(x) == "bool":
        return paddle.cast(run(paddle.cast(x, "int32"), axes, keep), "bool")
    return run(x, axes, keep)


def log_sum_exp(x: Value, axes: list[int], keep: bool) -> Value:
    """Stable."""
    return back(paddle.logsumexp(as_float(x), axes, keep), x)


def norm_1(x: Value, axes: list[int], keep: bool) -> Value:
    """Sum of absolutes."""
    return total(paddle.abs(x), axes, keep)


def norm_2(x: Value, axes: list[int], keep: bool) -> Value:
    """Root of the sum of squares."""
    wide = as_float(x)
    return back(paddle.sqrt(paddle.sum(wide * wide, axes, keepdim=keep)), x)


def square_sum(x: Value, axes: list[int], keep: bool) -> Value:
    """Sum of squares."""
    return total(x * x, axes, keep)


def log_sum(x: Value, axes: list[int], keep: bool) -> Value:
    """Log of the sum."""
    return back(paddle.log(paddle.sum(as_float(x), axes, keepdim=keep)), x)


def reduced(run: Run, node: Node, x: Value, axes: Any = None) -> Value:
    """Axes as an attribute before opset 13 or 18, as an input since; none means all."""
    chosen = list(axes if axes is not None else node["axes"] or ())
    single = not chosen and bool(node["noop_with_empty_axes"])
    if not chosen and not single:
        chosen = list(range(rank(x)))
    if single or rank(x) == 0:
        return run(paddle.unsqueeze(x, -1), [rank(x)], False)
    return run(x, [axis_of(a, rank(x)) for a in chosen], bool(node["keepdims"]))


def place(run: Run, node: Node, x: Value) -> Value:
    """Index of the extreme; of equal ones the first, or the last on request."""
    axis, keep = axis_of(node["axis"], rank(x)), bool(node["keepdims"])
    if not node["select_last_index"]:
        return run(x, axis, keep)
    last = run(paddle.flip(x, [axis]), axis, keep)
    return paddle.scale(last, -1, size(x, axis) - 1)


def _reduction(run: Run) -> Op:
    return Op(partial(reduced, run), host=(1,))


TABLE: Table = {
    "ReduceSum": _reduction(total),
    "ReduceMean": _reduction(average),
    "ReduceProd": _reduction(product),
    "ReduceMax": _reduction(partial(extreme, paddle.max)),
    "ReduceMin": _reduction(partial(extreme, paddle.min)),
    "ReduceL1": _reduction(norm_1),
    "ReduceL2": _reduction(norm_2),
    "ReduceSumSquare": _reduction(square_sum),
    "ReduceLogSum": _reduction(log_sum),
    "ReduceLogSumExp": _reduction(log_sum_exp),
    "ArgMax": Op(partial(place, paddle.argmax)),
    "ArgMin": Op(partial(place, paddle.argmin)),
}
