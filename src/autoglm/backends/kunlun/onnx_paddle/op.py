"""One row of the operator table, and a node as its function sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Value = Any  # a variable of the Paddle program under construction
Run = Callable[..., Any]

# ONNX's element types by number, as Paddle names them.
DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    14: "complex64",
    15: "complex128",
    16: "bfloat16",
}
FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})


class Refused(Exception):
    """This node has no counterpart in Paddle; the text says what was found."""


@dataclass(frozen=True)
class Op:
    """How one version of one operator is written."""

    run: Run
    host: tuple[int, ...] = ()  # inputs that become Python numbers and lists
    open: tuple[int, ...] = ()  # of those: may be left as variables where they are no constants
    bare: bool = False  # `run` is a Paddle function that needs no node
    wide: bool = False  # small integers are computed in int32, for which Paddle has a kernel


Versions = Mapping[int, Op]
Table = Mapping[str, "Op | Versions"]


@dataclass(frozen=True)
class Node:
    """A call; `node["axis"]` reads an attribute, None where it has no default."""

    name: str
    op: str
    since: int
    attributes: Mapping[str, Any]
    inputs: Sequence[str]  # dtype names; "" where absent or unknown
    outputs: Sequence[str]
    wanted: Sequence[bool]
    known: Sequence[np.ndarray[Any, Any] | None]

    def __getitem__(self, attribute: str) -> Any:
        return self.attributes.get(attribute)

    @property
    def arity(self) -> int:
        """Number of inputs, absent ones included."""
        return len(self.inputs)


def bare(run: Run, *, wide: bool = False) -> Op:
    """A Paddle function that is the operator already."""
    return Op(run, bare=True, wide=wide)


_WIDER = {
    "int8": "int32",
    "uint8": "int32",
    "int16": "int32",
    "float16": "float32",
    "bfloat16": "float32",
}


def is_narrow(value: Any) -> bool:
    """Whether it is a variable of a dtype for which Paddle's CPU lacks many kernels."""
    return hasattr(value, "dtype") and name_of(value) in _WIDER


def widened(value: Any, *, halves: bool) -> Any:
    """A small integer (and on request a half) in a dtype that holds it exactly."""
    import paddle

    if not is_narrow(value) or (name_of(value) in FLOATS and not halves):
        return value
    return paddle.cast(value, _WIDER[name_of(value)])


def name_of(value: Value) -> str:
    """The variable's dtype: `float32`."""
    return str(value.dtype).rpartition(".")[2].lower()


def rank(value: Value) -> int:
    """Number of dimensions."""
    return len(value.shape)


def sizes(value: Value) -> list[int]:
    """The shape, where every size is known."""
    shape = [int(n) for n in value.shape]
    if -1 in shape:
        raise Refused(f"needs a shape that is known when it is compiled; found {shape}")
    return shape


def size(value: Value, axis: int) -> int:
    """One size, where it is known."""
    found = int(value.shape[axis])
    if found == -1:
        raise Refused(f"needs the size of axis {axis} when it is compiled; found {value.shape}")
    return found


def axis_of(axis: int, dims: int) -> int:
    """The axis, counted from the front."""
    return axis + dims if axis < 0 else axis


def scalar(value: Any) -> Any:
    """The number in a nest of lists."""
    while isinstance(value, (list, tuple)):
        value = value[0]
    return value


# What Paddle writes into a program as it is; other constants are written wider and cast.
_WRITTEN = frozenset({"float32", "float64", "int32", "int64", "bool"})


def constant(array: np.ndarray[Any, Any]) -> Value:
    """A small constant of the program."""
    import paddle

    name = str(array.dtype)
    if name in _WRITTEN:
        return paddle.assign(np.ascontiguousarray(array).reshape(array.shape))
    wide = "float32" if name in FLOATS else "int32"
    return paddle.cast(paddle.assign(array.astype(wide)), name)


def full_like(value: Value, number: float) -> Value:
    """A scalar of the variable's dtype, which broadcasts against it."""
    import paddle

    return paddle.full([], number, name_of(value))


def as_float(value: Value) -> Value:
    """The variable in a floating dtype that Paddle computes in on any device."""
    import paddle

    return value if name_of(value) in FLOATS else paddle.cast(value, "float64")


def back(value: Value, like: Value) -> Value:
    """The variable in the dtype of `like`."""
    import paddle

    return value if value.dtype == like.dtype else paddle.cast(value, like.dtype)
