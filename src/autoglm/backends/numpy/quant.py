"""Integer, fp8 and 4-bit quantisation."""

from __future__ import annotations

from typing import Any

import numpy as np

from autoglm.backends.numpy.cast import convert
from autoglm.backends.numpy.op import Array, Op, Table
from autoglm.rewrite.program import Call
from autoglm.tensor.dtype import from_numpy, from_onnx, to_numpy

# Low and high ends of the integers ONNX quantises to.
RANGES: dict[str, tuple[int, int]] = {
    "uint2": (0, 3), "int2": (-2, 1), "uint4": (0, 15), "int4": (-8, 7), "uint8": (0, 255),
    "int8": (-128, 127), "uint16": (0, 65535), "int16": (-32768, 32767),
}  # fmt: skip


def _spread(call: Call, x: Array, vector: Array) -> Array:
    """A scale or zero point, shaped to broadcast: scalar, per axis, or per block."""
    if vector.size == 1 and vector.ndim <= 1:
        return vector.reshape(())
    axis = (1 if call["axis"] is None else call["axis"]) % x.ndim
    block = call["block_size"]
    if vector.ndim == 1 and not block:
        return vector.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    place: list[Any] = [slice(None)] * x.ndim
    place[axis] = slice(0, x.shape[axis])
    return np.asarray(np.repeat(vector, block, axis)[tuple(place)])


def _target(call: Call, zero: Array | None) -> str:
    if call["output_dtype"]:
        return from_onnx(call["output_dtype"])
    return "uint8" if zero is None else from_numpy(zero.dtype)


def quantize(call: Call, x: Array, scale: Array, zero: Array | None = None) -> Array:
    """round(x / scale) + zero point, saturated; floats are not rounded before their cast."""
    target = _target(call, zero)
    inner = to_numpy(from_onnx(call["precision"])) if call["precision"] else scale.dtype
    if from_numpy(inner) not in ("float16", "float32", "float64", "bfloat16"):
        inner = np.dtype(np.float32)
    ratio = x.astype(inner) / _spread(call, x, scale).astype(inner)
    shift = None if zero is None else _spread(call, x, zero)
    if target.startswith("float"):
        shifted = ratio if shift is None else ratio + shift.astype(inner)
        return convert(shifted, target, call["saturate"] != 0)
    return saturated(ratio, shift, target)


def saturated(ratio: Array, zero: Array | None, target: str) -> Array:
    """Round half to even, shift, and clamp into the integer's range."""
    rounded = np.rint(ratio.astype(np.float64))
    if zero is not None:
        rounded = rounded + zero.astype(np.int32)
    low, high = RANGES[target]
    return np.clip(rounded, low, high).astype(np.int32).astype(to_numpy(target))


def dequantize(call: Call, x: Array, scale: Array, zero: Array | None = None) -> Array:
    """(x - zero point) scale, in the output's precision."""
    held = to_numpy(from_onnx(call["output_dtype"])) if call["output_dtype"] else scale.dtype
    inner = np.float32 if from_numpy(x.dtype).startswith("float") else np.int32
    wide = x.astype(inner)
    if zero is not None:
        wide = wide - _spread(call, x, zero).astype(inner)
    return np.asarray(wide.astype(held) * _spread(call, x, scale).astype(held))


def dynamic_quantize(call: Call, x: Array) -> tuple[Array, Array, Array]:
    """uint8 over the range found, which includes zero."""
    low = np.minimum(x.min(initial=0), np.float32(0))
    high = np.maximum(x.max(initial=0), np.float32(0))
    scale = ((high - low) / np.float32(255)).astype(np.float32)
    safe = scale if scale != 0 else np.float32(1)
    zero = np.rint(np.clip(-low / safe, 0, 255))
    y = np.clip(np.rint(x / safe) + zero, 0, 255)
    return y.astype(np.uint8), np.asarray(scale), np.asarray(zero).astype(np.uint8)


def _along(vector: Array, rank: int, axis: int) -> Array:
    """A vector of one value per slice of `axis`; scalars and full shapes as they are."""
    if vector.size == 1:
        return vector.reshape(())
    if vector.ndim > 1:
        return vector
    return vector.reshape([-1 if i == axis % rank else 1 for i in range(rank)])


def _shifted(x: Array, zero: Array | None, axis: int) -> Array:
    wide = x.astype(np.int32)
    return wide if zero is None else wide - _along(zero, x.ndim, axis).astype(np.int32)


def matmul_integer(
    call: Call, a: Array, b: Array, a_zero: Array | None = None, b_zero: Array | None = None
) -> Array:
    """int32 product of shifted integers."""
    return np.asarray(_shifted(a, a_zero, -2) @ _shifted(b, b_zero, -1))


def qlinear_matmul(
    call: Call, a: Array, a_scale: Array, a_zero: Array, b: Array, b_scale: Array, b_zero: Array,
    y_scale: Array, y_zero: Array,
) -> Array:  # fmt: skip
    """Quantised in, quantised out."""
    sums = _shifted(a, a_zero, -2).astype(np.int64) @ _shifted(b, b_zero, -1).astype(np.int64)
    rank = sums.ndim
    factor = _along(a_scale, rank, -2).astype(float) * _along(b_scale, rank, -1).astype(float)
    ratio = sums * (factor / _along(y_scale, rank, -2).astype(float))
    return saturated(ratio, _along(y_zero, rank, -2), from_numpy(y_zero.dtype))


TABLE: Table = {
    "QuantizeLinear": Op(quantize),
    "DequantizeLinear": Op(dequantize),
    "DynamicQuantizeLinear": Op(dynamic_quantize),
    "MatMulInteger": Op(matmul_integer),
    "QLinearMatMul": Op(qlinear_matmul),
}
