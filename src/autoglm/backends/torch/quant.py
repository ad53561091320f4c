"""Casts, and integer and fp8 quantisation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from autoglm.backends.torch.conv import check_rank, conv
from autoglm.backends.torch.dtypes import TORCH
from autoglm.backends.torch.lowbit import RANGES, convert
from autoglm.backends.torch.op import Kind, Node, Op, Table
from autoglm.rewrite.program import Call
from autoglm.tensor.dtype import from_onnx


def cast(node: Node, x: Tensor) -> Tensor:
    """To the dtype named by number."""
    return _converted(node, x, from_onnx(node["to"]))


def cast_like(node: Node, x: Tensor, like: Tensor) -> Tensor:
    """To the declared dtype of the second input."""
    return _converted(node, x, node.call.outputs[0] or node.call.inputs[1])


def _converted(node: Node, x: Tensor, target: str) -> Tensor:
    if target == "float32":
        return x.to(node.held("float32"))
    return convert(x, target, node["saturate"] != 0, node["round_mode"] or "up")


def bit_cast(node: Node, x: Tensor) -> Tensor:
    """The same bits under another dtype; bool takes one byte."""
    held = TORCH[from_onnx(node["to"])]
    x = x.contiguous()
    if held is torch.bool:
        return x.view(torch.uint8).view(torch.bool)
    return x.view(torch.uint8).view(held) if x.dtype is torch.bool else x.view(held)


def check_bit_cast(call: Call) -> str:
    """Sub-byte values travel widened here, so their bits are not at hand."""
    names = (call.inputs[0], from_onnx(call.attributes["to"]))
    narrow = [n for n in names if n in ("int4", "uint4", "int2", "uint2", "float4_e2m1fn")]
    return f"the bits of {narrow[0]} are not at hand in PyTorch" if narrow else ""


def _spread(node: Node, x: Tensor, vector: Tensor) -> Tensor:
    """A scale or zero point, shaped to broadcast against `x`: scalar, per axis, or per block."""
    if vector.numel() == 1 and vector.ndim <= 1:
        return vector.reshape(())
    axis = node["axis"] % x.ndim if node["axis"] is not None else 1
    if vector.ndim == 1 and x.ndim >= 1 and not node["block_size"]:
        return vector.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    block = node["block_size"]
    return _by_bits(vector, lambda v: v.repeat_interleave(block, axis)).narrow(
        axis, 0, x.shape[axis]
    )


def _by_bits(x: Tensor, move: Any) -> Tensor:
    if x.element_size() == 1 and x.is_floating_point():
        moved: Tensor = move(x.view(torch.uint8)).view(x.dtype)
        return moved
    result: Tensor = move(x)
    return result


def _target(node: Node) -> str:
    if node["output_dtype"]:
        return from_onnx(node["output_dtype"])
    zero = node.call.inputs[2] if node.arity > 2 else ""
    return zero or node.call.outputs[0] or "uint8"


def quantize(node: Node, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    """round(x / scale) + zero point, saturated; floats are not rounded before their cast."""
    target = _target(node)
    inner = scale.dtype
    if node["precision"]:
        inner = TORCH[from_onnx(node["precision"])]
    elif inner is torch.float8_e8m0fnu or not inner.is_floating_point:
        inner = torch.float32
    ratio = x.to(inner) / _spread(node, x, scale).to(inner)
    shift = None if zero is None else _spread(node, x, zero)
    if target.startswith("float"):
        shifted = ratio if shift is None else ratio + shift.to(ratio.dtype)
        return convert(shifted, target, node["saturate"] != 0)
    return saturated(ratio, shift, target)


def saturated(ratio: Tensor, zero: Tensor | None, target: str) -> Tensor:
    """Round half to even, shift, and clamp into the integer's range."""
    rounded = torch.round(ratio).float()
    if zero is not None:
        rounded = rounded + zero.to(torch.float32)
    low, high = RANGES[target]
    return rounded.clamp(low, high).to(torch.int32).to(TORCH[target])


def dequantize(node: Node, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    """(x - zero point) scale."""
    if node["output_dtype"]:
        held = node.held(from_onnx(node["output_dtype"]))
    else:
        held = scale.dtype
    inner = torch.float32 if x.is_floating_point() else torch.int32
    wide = x.to(inner)
    if zero is not None:
        wide = wide - _spread(node, x, zero).to(inner)
    return (wide.to(held) * _spread(node, x, scale).to(held)).to(held)


def dynamic_quantize(node: Node, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """uint8 over the range found, which includes zero."""
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    scale = (high - low) / 255
    safe = torch.where(scale == 0, torch.ones_like(scale), scale)
    zero = torch.round((-low / safe).clamp(0, 255))
    y = (torch.round(x / safe) + zero).clamp(0, 255)
    return y.to(torch.uint8), scale, zero.to(torch.uint8)


def _exact(x: Tensor, zero: Tensor | None, axis: int | None = None) -> Tensor:
    """x minus its zero point in float64, where sums of products of bytes are exact."""
    wide = x.double()
    if zero is None:
        return wide
    shift = zero.double()
    if shift.ndim == 1 and shift.numel() > 1 and axis is not None:
        shift = shift.reshape([-1 if i == axis % wide.ndim else 1 for i in range(wide.ndim)])
    return wide - shift


def matmul_integer(
    node: Node, a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None
) -> Tensor:
    """int32 product of shifted integers."""
    product = _exact(a, a_zero, -2 if a.ndim > 1 else None) @ _exact(b, b_zero)
    return product.to(torch.int32)


def conv_integer(
    node: Node, x: Tensor, w: Tensor, x_zero: Tensor | None = None, w_zero: Tensor | None = None
) -> Tensor:
    """int32 convolution of shifted integers."""
    return conv(node, _exact(x, x_zero), _exact(w, w_zero, 0)).to(torch.int32)


def _column(vector: Tensor, rank: int, axis: int) -> Tensor:
    if vector.numel() == 1:
        return vector.reshape(())
    if vector.ndim > 1:
        return vector
    return vector.reshape([-1 if i == axis % rank else 1 for i in range(rank)])


def qlinear_matmul(
    node: Node, a: Tensor, a_scale: Tensor, a_zero: Tensor, b: Tensor, b_scale: Tensor,
    b_zero: Tensor, y_scale: Tensor, y_zero: Tensor,
) -> Tensor:  # fmt: skip
    """Quantised in, quantised out."""
    sums = _exact(a, a_zero, -2) @ _exact(b, b_zero, -1)
    rank = sums.ndim
    factor = _column(a_scale, rank, -2).double() * _column(b_scale, rank, -1).double()
    ratio = sums * (factor / _column(y_scale, rank, -2).double())
    return saturated(ratio, _column(y_zero, rank, -2), node.call.inputs[7])


def qlinear_conv(
    node: Node, x: Tensor, x_scale: Tensor, x_zero: Tensor, w: Tensor, w_scale: Tensor,
    w_zero: Tensor, y_scale: Tensor, y_zero: Tensor, bias: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Quantised in, quantised out; the bias is int32 in units of x_scale w_scale."""
    sums = conv(node, _exact(x, x_zero), _exact(w, w_zero, 0))
    if bias is not None:
        sums = sums + _column(bias, sums.ndim, 1).double()
    factor = x_scale.double().reshape(()) * _column(w_scale, sums.ndim, 1).double()
    return saturated(
        sums * (factor / y_scale.double().reshape(())), y_zero.reshape(()), node.call.inputs[7]
    )


def _native(run: Any, check: Any = None) -> Op:
    return Op(run, kind=Kind.NATIVE, check=check)


TABLE: Table = {
    "Cast": _native(cast),
    "CastLike": _native(cast_like),
    "BitCast": _native(bit_cast, check_bit_cast),
    "QuantizeLinear": Op(quantize, kind=Kind.NATIVE, high=True),
    "DequantizeLinear": Op(dequantize, kind=Kind.NATIVE, high=True),
    "DynamicQuantizeLinear": Op(dynamic_quantize, kind=Kind.NATIVE, high=True),
    "MatMulInteger": _native(matmul_integer),
    "ConvInteger": _native(conv_integer, check_rank),
    "QLinearMatMul": Op(qlinear_matmul, kind=Kind.NATIVE, high=True),
    "QLinearConv": Op(qlinear_conv, kind=Kind.NATIVE, high=True, check=check_rank),
}
