"""Small questions that rules ask of a value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

FLOATS = frozenset(
    {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16}
)
_READ_BYTES = 1 << 16


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The value as an array where it is known before running and cannot be fed; else None."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return np.asarray(value.const_value.numpy())


def small(value: ir.Value | None) -> np.ndarray | None:
    """`constant`, but never reads a weight: None above 64 KiB."""
    if value is None or value.const_value is None or value.const_value.nbytes > _READ_BYTES:
        return None
    return constant(value)


def ints(value: ir.Value | None) -> list[int] | None:
    """A constant integer scalar or vector as a list."""
    array = small(value)
    if array is None or array.ndim > 1 or array.dtype.kind not in "iu":
        return None
    return [int(i) for i in array.reshape(-1)]


def scalar(value: ir.Value | None) -> float | None:
    """A constant of one element as a number."""
    array = small(value)
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None


def is_scalar(value: ir.Value | None, wanted: float) -> bool:
    """Whether the constant is `wanted`, as well as its own dtype can say it."""
    found = scalar(value)
    if found is None or value is None or value.dtype is None:
        return False
    eps = float(value.dtype.eps) if value.dtype.is_floating_point() else 0.0
    # Exporters print constants with about 7 digits; half-precision models store them rounded.
    return abs(found - wanted) <= max(eps, 2e-7 if eps else 0.0) * abs(wanted)


def rank(value: ir.Value | None) -> int | None:
    """Number of dimensions, where known."""
    return None if value is None or value.shape is None else len(value.shape)


def static(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape where every dimension is a number."""
    if value is None or value.shape is None or not value.shape.is_static():
        return None
    return tuple(int(d) for d in value.shape)  # type: ignore[arg-type]


def same_shape(left: ir.Value | None, right: ir.Value | None) -> bool:
    """Whether two shapes are known to be equal; unnamed dimensions are never equal."""
    if left is None or right is None or left.shape is None or right.shape is None:
        return False
    if len(left.shape) != len(right.shape):
        return False
    return all(
        a == b and (isinstance(a, int) or a.value is not None)
        for a, b in zip(left.shape, right.shape, strict=True)
    )


def broadcasts_into(value: ir.Value, target: ir.Value) -> bool:
    """Whether an elementwise operator of both surely has `target`'s shape."""
    inner, outer = value.shape, target.shape
    if inner is not None and len(inner) == 0:
        return True
    if inner is None or outer is None or len(inner) > len(outer):
        return False
    tail = list(outer)[len(outer) - len(inner) :]
    return all(
        a == 1 or (a == b and (isinstance(a, int) or a.value is not None))
        for a, b in zip(inner, tail, strict=True)
    )


def permutation(node: ir.Node | None) -> list[int] | None:
    """A Transpose's permutation, its default included; None where the rank is unknown."""
    if node is None or node.op_type != "Transpose":
        return None
    attribute = node.attributes.get("perm")
    if attribute is not None:
        return None if attribute.is_ref() else list(attribute.as_ints())
    size = rank(node.inputs[0])
    return None if size is None else list(reversed(range(size)))


def like(value: ir.Value, number: float | Sequence[float], name: str = "") -> ir.TensorProtocol:
    """A tensor of `value`'s dtype."""
    assert value.dtype is not None
    return ir.Tensor(np.asarray(number).astype(value.dtype.numpy()), dtype=value.dtype, name=name)


def exact_in(array: np.ndarray, dtype: ir.DataType) -> ir.TensorProtocol:
    """An array rounded once into `dtype`."""
    return ir.Tensor(np.asarray(array).astype(dtype.numpy()), dtype=dtype)
