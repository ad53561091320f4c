"""Conversions to the dtypes that torch holds without arithmetic: fp8, e8m0, 4-bit and 2-bit."""

from __future__ import annotations

import torch
from torch import Tensor

from autoglm.backends.torch.dtypes import TORCH

# Low and high ends of the integers ONNX quantises to.
RANGES: dict[str, tuple[int, int]] = {
    "uint2": (0, 3), "int2": (-2, 1), "uint4": (0, 15), "int4": (-8, 7), "uint8": (0, 255),
    "int8": (-128, 127), "uint16": (0, 65535), "int16": (-32768, 32767),
}  # fmt: skip
_WIDTH = {"uint2": 2, "int2": 2, "uint4": 4, "int4": 4}
# Mantissa bits, exponent of the least normal number, greatest value.
_MINIFLOAT = {"float4_e2m1fn": (1, 0, 6.0)}
# What rounds beyond the greatest fp8 value, and what that becomes without saturation. E4M3FN's 448
# has an even mantissa, so the tie at 464 stays; the others' ties go up.
_OVERFLOW = {
    torch.float8_e4m3fn: (464.00003, float("nan")),
    torch.float8_e4m3fnuz: (248.0, float("nan")),
    torch.float8_e5m2: (61440.0, float("inf")),
    torch.float8_e5m2fnuz: (61440.0, float("nan")),
}


def convert(x: Tensor, target: str, saturate: bool = True, rounding: str = "up") -> Tensor:
    """`x` as ONNX's Cast makes it `target`."""
    if target == "bool":
        return (x.float() if x.element_size() == 1 and x.is_floating_point() else x) != 0
    if target in _WIDTH:
        return _wrapped(x, target)
    if target in _MINIFLOAT:
        return _minifloat(x.float(), *_MINIFLOAT[target])
    if target == "float8_e8m0fnu":
        return _power_of_two(x.float(), saturate, rounding)
    if target.startswith("float8"):
        return _fp8(x, TORCH[target], saturate)
    held = TORCH[target]
    if held in (torch.uint16, torch.uint32, torch.uint64) and x.is_floating_point():
        x = x.to(torch.int64)
    return x.to(held)


def _wrapped(x: Tensor, target: str) -> Tensor:
    """Truncate, keep the low bits, read them as signed or not."""
    width = _WIDTH[target]
    bits = (x.float() if x.is_floating_point() else x).to(torch.int64) & ((1 << width) - 1)
    if target.startswith("int"):
        sign = 1 << (width - 1)
        bits = (bits ^ sign) - sign
    return bits.to(TORCH[target])


def _minifloat(x: Tensor, mantissa: int, least: int, limit: float) -> Tensor:
    """Nearest even in a small format without infinities; the values stay in float32."""
    _, exponent = torch.frexp(x)
    step = torch.exp2((exponent - 1).clamp(min=least).float() - mantissa)
    return (torch.round(x / step) * step).clamp(-limit, limit)


def _fp8(x: Tensor, held: torch.dtype, saturate: bool) -> Tensor:
    x = x.float() if x.dtype is not torch.float64 else x.to(torch.float32)
    limit = torch.finfo(held).max
    narrow = x.clamp(-limit, limit).to(held)
    if saturate:
        return narrow
    # torch saturates in some versions and on some devices only; this does not depend on that.
    beyond, replaced = _OVERFLOW[held]
    over = torch.where(x.abs() >= beyond, torch.copysign(torch.full_like(x, replaced), x), x)
    over = torch.where(x.abs() >= beyond, over, narrow.float())
    return over.to(held)


def _power_of_two(x: Tensor, saturate: bool, rounding: str) -> Tensor:
    mantissa, exponent = torch.frexp(x)  # x = mantissa * 2**exponent, mantissa in [0.5, 1)
    floor = exponent.to(torch.int32) - 1
    threshold = {"up": mantissa > 0.5, "nearest": mantissa >= 0.75}
    power = floor + threshold.get(rounding, torch.zeros_like(x, dtype=torch.bool)).to(torch.int32)
    code = power + 127
    outside = (code < 0) | (code > 254) | (x == 0) | x.isinf()
    code = torch.where(x == 0, torch.zeros_like(code), code)
    code = torch.where(x == torch.inf, torch.full_like(code, 254), code).clamp(0, 254)
    bad = x.isnan() | (x < 0) if saturate else x.isnan() | (x < 0) | outside
    code = torch.where(bad, torch.full_like(code, 255), code)
    return code.to(torch.uint8).view(torch.float8_e8m0fnu)
