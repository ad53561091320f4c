"""Casts between all dtypes, to the letter of the operator: fp8, e8m0, 6-, 4- and 2-bit, strings."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from autoglm.backends.numpy.op import Array, Op, Table
from autoglm.rewrite.program import Call
from autoglm.tensor.dtype import bits, from_numpy, from_onnx, to_numpy

_WIDTH = {"uint2": 2, "int2": 2, "uint4": 4, "int4": 4}
_FP8 = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")
_SMALL = ("float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn")


def convert(x: Array, target: str, saturate: bool = True, rounding: str = "up") -> Array:
    """`x` as ONNX's Cast makes it `target`."""
    source = from_numpy(x.dtype)
    if source == target:
        return x
    if source == "string":
        return _from_text(x, target, saturate)
    if target == "string":
        return _to_text(x)
    if target in _WIDTH:
        return _wrapped(x, target)
    if target == "bool":
        return np.asarray(_wide(x) != 0)
    if target == "float8_e8m0fnu":
        return _power_of_two(x.astype(np.float32), saturate, rounding)
    if target in _SMALL or (target in _FP8 and saturate):
        limit = float(ml_dtypes.finfo(to_numpy(target)).max)
        return np.clip(x.astype(np.float32), -limit, limit).astype(to_numpy(target))
    if target in _FP8:
        return x.astype(np.float32).astype(to_numpy(target))
    return _wide(x).astype(to_numpy(target))


def _wide(x: Array) -> Array:
    """ml_dtypes' values in a type that NumPy computes in."""
    if x.dtype.kind != "V" and x.dtype.name in np.sctypeDict:
        return x
    return x.astype(np.int8 if from_numpy(x.dtype) in _WIDTH else np.float32)


def _wrapped(x: Array, target: str) -> Array:
    """Truncate, keep the low bits, read them as signed or not."""
    width = _WIDTH[target]
    low = _wide(x).astype(np.int64) & ((1 << width) - 1)
    if target.startswith("int"):
        sign = 1 << (width - 1)
        low = (low ^ sign) - sign
    return low.astype(np.int8).astype(to_numpy(target))


def _power_of_two(x: Array, saturate: bool, rounding: str) -> Array:
    mantissa, exponent = np.frexp(x)  # x = mantissa * 2**exponent, mantissa in [0.5, 1)
    code = exponent.astype(np.int64) + 126
    if rounding == "up":
        code = code + (mantissa > 0.5)
    elif rounding == "nearest":
        code = code + (mantissa >= 0.75)
    code = np.where(x == 0, -1, np.where(np.isposinf(x), 255, code))
    bad = np.isnan(x) | (x < 0)
    if not saturate:
        bad |= (code < 0) | (code > 254)
    code = np.where(bad, 255, np.clip(code, 0, 254))
    return code.astype(np.uint8).view(ml_dtypes.float8_e8m0fnu)


def _from_text(x: Array, target: str, saturate: bool) -> Array:
    if target.startswith(("int", "uint")):
        whole = np.array([int(float(t)) for t in x.reshape(-1)], np.int64)
        return convert(whole.reshape(x.shape), target)
    floats = np.array([float(t) for t in x.reshape(-1)], np.float64).reshape(x.shape)
    return floats if target == "float64" else convert(floats.astype(np.float64), target, saturate)


def _to_text(x: Array) -> Array:
    result = np.empty(x.size, object)
    result[:] = [_spelled(v) for v in _wide(x).reshape(-1)]
    return result.reshape(x.shape)


def _spelled(value: np.generic) -> str:
    if isinstance(value, np.bool_):
        return str(int(value))
    if not isinstance(value, np.floating):
        return str(value)
    if np.isnan(value):
        return "NaN"
    if np.isinf(value):
        return "INF" if value > 0 else "-INF"
    text = str(value)
    return text[:-2] if text.endswith(".0") else text


def cast(call: Call, x: Array) -> Array:
    """To the dtype named by number."""
    return convert(x, from_onnx(call["to"]), call["saturate"] != 0, call["round_mode"] or "up")


def cast_like(call: Call, x: Array, like: Array) -> Array:
    """To the second input's dtype."""
    target = from_numpy(like.dtype)
    return convert(x, target, call["saturate"] != 0, call["round_mode"] or "up")


def bit_cast(call: Call, x: Array) -> Array:
    """The same bits under another dtype of equal width."""
    target = from_onnx(call["to"])
    source = from_numpy(x.dtype)
    if bits(source) != bits(target):
        raise ValueError(f"BitCast from {source} to {target}: the widths differ")
    if source == target:
        return x
    if bits(source) in (2, 4):
        return _narrow_bits(x, source, target)
    return np.ascontiguousarray(x).reshape(x.shape).view(to_numpy(target))


def _narrow_bits(x: Array, source: str, target: str) -> Array:
    # ml_dtypes keeps one element per byte: the code in the low bits, integers sign-extended.
    mask = (1 << bits(source)) - 1
    codes = np.ascontiguousarray(x).view(np.uint8) & np.uint8(mask)
    if target in ("float4_e2m1fn",):
        return codes.reshape(x.shape).view(to_numpy(target))
    return _wrapped(codes.reshape(x.shape), target)


def check_bit_cast(call: Call) -> str:
    """Strings have no bits."""
    return "strings have no bits" if "string" in (call.inputs[0], call.outputs[0]) else ""


TABLE: Table = {
    "Cast": Op(cast),
    "CastLike": Op(cast_like),
    "BitCast": Op(bit_cast, check_bit_cast),
}
