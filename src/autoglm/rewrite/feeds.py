"""Whether what `run` is given fits what a session declares, before any engine sees it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoglm.errors import InputError
from autoglm.spec import Dim, Feeds, TensorInfo, Value
from autoglm.tensor.dtype import from_numpy


def checked(inputs: Sequence[TensorInfo], feeds: Feeds) -> list[Value]:
    """The feeds in the order of `inputs`; InputError names the first that does not fit."""
    if len(feeds) != len(inputs) or any(info.name not in feeds for info in inputs):
        _check_names(inputs, feeds)
    return [_checked(info, feeds[info.name]) for info in inputs]


def _check_names(inputs: Sequence[TensorInfo], feeds: Feeds) -> None:
    known = [info.name for info in inputs]
    for name in feeds:
        if name not in known:
            raise InputError(
                "The model has no input {name!r}; it takes {known}.",
                name=name,
                known=", ".join(known) or "none",
            )
    missing = [name for name in known if name not in feeds]
    raise InputError("Input {name!r} is missing.", name=missing[0])


def _checked(info: TensorInfo, value: Value) -> Value:
    if info.kind != "tensor":
        return _checked_container(info, value)
    array = value if isinstance(value, np.ndarray) else np.asarray(value)
    found = array.dtype.name
    if info.dtype and found != info.dtype and from_numpy(array.dtype) != info.dtype:
        raise InputError(
            "Input {name!r} is {expected}; found {found}.",
            name=info.name,
            expected=info.dtype,
            found=from_numpy(array.dtype),
        )
    if info.shape is not None and not _fits(array.shape, info.shape):
        raise InputError(
            "Input {name!r} has shape {expected}; found {found}.",
            name=info.name,
            expected=list(info.shape),
            found=list(array.shape),
        )
    return array


def _fits(found: Sequence[int], declared: Sequence[Dim]) -> bool:
    if len(found) != len(declared):
        return False
    return all(not isinstance(d, int) or d == f for f, d in zip(found, declared, strict=True))


def _checked_container(info: TensorInfo, value: Value) -> Value:
    if value is None and info.kind == "optional":
        return None
    if info.kind == "sequence" and not isinstance(value, (list, tuple)):
        raise InputError(
            "Input {name!r} is a sequence; found {found}.",
            hint="Give a list of arrays.",
            name=info.name,
            found=type(value).__name__,
        )
    if isinstance(value, (list, tuple)):
        return [None if v is None else np.asarray(v) for v in value]
    return np.asarray(value)
