"""Sequences are lists, an empty optional is None."""

from __future__ import annotations

from typing import Any

import numpy as np

from autoglm.backends.numpy.op import Array, Op, Table, listed, scalar
from autoglm.rewrite.program import Call


def construct(call: Call, *items: Any) -> list[Any]:
    """A list of the inputs; none for SequenceEmpty."""
    return list(items)


def insert(call: Call, items: list[Any], x: Any, place: Any = None) -> list[Any]:
    """Before `place`, or at the end."""
    at = len(items) if place is None else int(scalar(place))
    return [*items[:at], x, *items[at:]]


def erase(call: Call, items: list[Any], place: Any = None) -> list[Any]:
    """Without the item at `place`, or the last."""
    at = (-1 if place is None else int(scalar(place))) % len(items)
    return [*items[:at], *items[at + 1 :]]


def at(call: Call, items: list[Any], place: Any) -> Any:
    """One item."""
    return items[int(scalar(place))]


def length(call: Call, items: list[Any]) -> Array:
    """How many items."""
    return np.array(len(items), np.int64)


def split_to(call: Call, x: Array, sizes: Any = None) -> list[Array]:
    """Pieces of one size or of given sizes; singles lose their axis unless keepdims."""
    axis = call["axis"] % x.ndim
    if sizes is None:
        pieces = np.split(x, x.shape[axis], axis)
        return pieces if call["keepdims"] else [p.squeeze(axis) for p in pieces]
    if np.ndim(sizes) == 0:
        step = int(scalar(sizes))
        return np.split(x, list(range(step, x.shape[axis], step)), axis)
    return np.split(x, np.cumsum(listed(sizes))[:-1], axis)


def concat_from(call: Call, items: list[Array]) -> Array:
    """Join, on a new axis on request."""
    return (
        np.stack(items, call["axis"]) if call["new_axis"] else np.concatenate(items, call["axis"])
    )


def optional(call: Call, x: Any = None) -> Any:
    """The value, or nothing."""
    return x


def has_element(call: Call, x: Any = None) -> Array:
    """Whether there is a value."""
    return np.array(x is not None)


def get_element(call: Call, x: Any) -> Any:
    """The value that is there."""
    if x is None:
        raise ValueError("OptionalGetElement of an optional that is empty")
    return x


TABLE: Table = {
    "SequenceEmpty": Op(construct),
    "SequenceConstruct": Op(construct),
    "SequenceInsert": Op(insert),
    "SequenceErase": Op(erase),
    "SequenceAt": Op(at),
    "SequenceLength": Op(length),
    "SplitToSequence": Op(split_to),
    "ConcatFromSequence": Op(concat_from),
    "Optional": Op(optional),
    "OptionalHasElement": Op(has_element),
    "OptionalGetElement": Op(get_element),
}
