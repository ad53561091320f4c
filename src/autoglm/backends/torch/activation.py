"""Activations, and the softmax family."""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from autoglm.backends.torch.op import Kernel, Node, Op, Table, bare


def elu(node: Node, x: Tensor) -> Tensor:
    """x, or alpha (e^x - 1) below zero."""
    return torch.where(x > 0, x, node["alpha"] * torch.expm1(x))


def celu(node: Node, x: Tensor) -> Tensor:
    """Continuous ELU."""
    alpha = node["alpha"]
    return x.clamp(min=0) + (alpha * torch.expm1(x / alpha)).clamp(max=0)


def selu(node: Node, x: Tensor) -> Tensor:
    """gamma times ELU."""
    below = node["alpha"] * torch.expm1(x)
    return node["gamma"] * torch.where(x > 0, x, below)


def gelu(node: Node, x: Tensor) -> Tensor:
    """Exact, or by tanh."""
    return F.gelu(x, approximate=node["approximate"])


def hard_sigmoid(node: Node, x: Tensor) -> Tensor:
    """A line cut at 0 and 1."""
    return (x * node["alpha"] + node["beta"]).clamp(0, 1)


def hard_swish(node: Node, x: Tensor) -> Tensor:
    """x HardSigmoid(x) with alpha 1/6."""
    return x * (x / 6 + 0.5).clamp(0, 1)


def leaky_relu(node: Node, x: Tensor) -> Tensor:
    """A slope below zero."""
    return F.leaky_relu(x, node["alpha"])


def thresholded_relu(node: Node, x: Tensor) -> Tensor:
    """Zero up to alpha."""
    return torch.where(x > node["alpha"], x, torch.zeros_like(x))


def prelu(node: Node, x: Tensor, slope: Tensor) -> Tensor:
    """Before opset 7 the slope lies on the channel axis."""
    if node.since < 7 and slope.ndim == 1 and x.ndim > 2:
        slope = slope.reshape(-1, *[1] * (x.ndim - 2))
    return torch.where(x < 0, x * slope, x)


def shrink(node: Node, x: Tensor) -> Tensor:
    """Pulls values toward zero by bias, and zeroes those within lambd."""
    bias, limit = node["bias"], node["lambd"]
    middle = torch.where(x > limit, x - bias, torch.zeros_like(x)).to(x.dtype)
    return torch.where(x < -limit, x + bias, middle).to(x.dtype)


def softplus(node: Node, x: Tensor) -> Tensor:
    """log(1 + e^x), exact where torch's own switches to x."""
    return torch.logaddexp(x, torch.zeros_like(x))


def softsign(node: Node, x: Tensor) -> Tensor:
    """x / (1 + |x|)."""
    return x / (1 + x.abs())


def swish(node: Node, x: Tensor) -> Tensor:
    """x sigmoid(alpha x)."""
    return x * torch.sigmoid(node["alpha"] * x)


def swiglu(node: Node, gate: Tensor, value: Tensor) -> Tensor:
    """Swish of the gate, times the value."""
    return swish(node, gate) * value


def mish(node: Node, x: Tensor) -> Tensor:
    """x tanh(softplus(x))."""
    return x * torch.tanh(softplus(node, x))


def hardmax(x: Tensor, axis: int) -> Tensor:
    """One at the first maximum."""
    index = x.argmax(axis, keepdim=True)
    return torch.zeros_like(x).scatter(axis, index, 1)


def over_axis(run: Kernel, node: Node, x: Tensor) -> Tensor:
    """Opset 13 on: along one axis."""
    result: Tensor = run(x, node["axis"])
    return result


def flattened(run: Kernel, node: Node, x: Tensor) -> Tensor:
    """Before opset 13: over all axes from `axis` on, as one."""
    axis = node["axis"] % x.ndim if x.ndim else 0
    flat = x.reshape(math.prod(x.shape[:axis]), -1)
    result: Tensor = run(flat, 1)
    return result.reshape(x.shape)


def _family(run: Kernel) -> dict[int, Op]:
    return {1: Op(partial(flattened, run)), 13: Op(partial(over_axis, run))}


TABLE: Table = {
    "Relu": bare(torch.relu),
    "Sigmoid": bare(torch.sigmoid),
    "Tanh": bare(torch.tanh),
    "Elu": Op(elu),
    "Celu": Op(celu),
    "Selu": Op(selu),
    "Gelu": Op(gelu),
    "HardSigmoid": Op(hard_sigmoid),
    "HardSwish": Op(hard_swish),
    "LeakyRelu": Op(leaky_relu),
    "ThresholdedRelu": Op(thresholded_relu),
    "PRelu": Op(prelu),
    "Shrink": Op(shrink),
    "Softplus": Op(softplus),
    "Softsign": Op(softsign),
    "Swish": Op(swish),
    "SwiGLU": Op(swiglu),
    "Mish": Op(mish),
    "Softmax": _family(torch.softmax),
    "LogSoftmax": _family(torch.log_softmax),
    "Hardmax": _family(hardmax),
}
