"""Activations, and the softmax family."""

from __future__ import annotations

from functools import partial

import paddle
import paddle.nn.functional as F

from .op import Node, Op, Run, Table, Value, axis_of, bare, full_like, name_of, rank, size


def elu(node: Node, x: Value) -> Value:
    """x, or alpha (e^x - 1) below zero."""
    return paddle.where(_positive(x), x, paddle.scale(paddle.expm1(x), node["alpha"]))


def _positive(x: Value) -> Value:
    return paddle.greater_than(x, paddle.zeros_like(x))


def celu(node: Node, x: Value) -> Value:
    """Continuous ELU."""
    alpha = node["alpha"]
    below = paddle.scale(paddle.expm1(paddle.scale(x, 1 / alpha)), alpha)
    return paddle.where(_positive(x), x, below)


def selu(node: Node, x: Value) -> Value:
    """gamma times ELU."""
    return paddle.scale(elu(node, x), node["gamma"])


def gelu(node: Node, x: Value) -> Value:
    """Exact, or by tanh."""
    return F.gelu(x, approximate=node["approximate"] == "tanh")


def hard_sigmoid(node: Node, x: Value) -> Value:
    """A line cut at 0 and 1."""
    return paddle.clip(paddle.scale(x, node["alpha"], node["beta"]), 0.0, 1.0)


def hard_swish(node: Node, x: Value) -> Value:
    """x HardSigmoid(x) with alpha 1/6."""
    return x * paddle.clip(paddle.scale(x, 1 / 6, 0.5), 0.0, 1.0)


def leaky_relu(node: Node, x: Value) -> Value:
    """A slope below zero."""
    return F.leaky_relu(x, node["alpha"])


def thresholded_relu(node: Node, x: Value) -> Value:
    """Zero up to alpha."""
    return paddle.where(x > full_like(x, node["alpha"]), x, paddle.zeros_like(x))


def prelu(node: Node, x: Value, slope: Value) -> Value:
    """Before opset 7 the slope lies on the channel axis."""
    if node.since < 7 and rank(slope) == 1 and rank(x) > 2:
        slope = paddle.reshape(slope, [-1] + [1] * (rank(x) - 2))
    return paddle.where(x < paddle.zeros_like(x), x * slope, x)


def shrink(node: Node, x: Value) -> Value:
    """Pulls values toward zero by bias, and zeroes those within lambd."""
    bias, limit = node["bias"], node["lambd"]
    wide = x if name_of(x).startswith("float") else paddle.cast(x, "float32")
    zero = paddle.zeros_like(wide)
    middle = paddle.where(wide > full_like(wide, limit), paddle.scale(wide, 1.0, -bias), zero)
    low = paddle.scale(wide, 1.0, bias)
    return paddle.cast(paddle.where(wide < full_like(wide, -limit), low, middle), x.dtype)


def softplus(node: Node, x: Value) -> Value:
    """log(1 + e^x), stable on both sides."""
    zero = paddle.zeros_like(x)
    return paddle.maximum(x, zero) + paddle.log1p(paddle.exp(-paddle.abs(x)))


def softsign(node: Node, x: Value) -> Value:
    """x / (1 + |x|)."""
    return x / paddle.scale(paddle.abs(x), 1.0, 1.0)


def swish(node: Node, x: Value) -> Value:
    """x sigmoid(alpha x)."""
    return x * F.sigmoid(paddle.scale(x, node["alpha"]))


def swiglu(node: Node, gate: Value, value: Value) -> Value:
    """Swish of the gate, times the value."""
    return swish(node, gate) * value


def mish(node: Node, x: Value) -> Value:
    """x tanh(softplus(x))."""
    return x * paddle.tanh(softplus(node, x))


def hardmax(x: Value, axis: int) -> Value:
    """One at the first maximum."""
    axis = axis_of(axis, rank(x))
    index = paddle.argmax(x, axis, True)
    shape = [-1 if i == axis else 1 for i in range(rank(x))]
    places = paddle.reshape(paddle.arange(size(x, axis), dtype="int64"), shape)
    return paddle.cast(paddle.equal(places, index), x.dtype)


def over_axis(run: Run, node: Node, x: Value) -> Value:
    """Opset 13 on: along one axis."""
    return run(x, node["axis"])


def flattened(run: Run, node: Node, x: Value) -> Value:
    """Before opset 13: over all axes from `axis` on, as one."""
    axis = axis_of(node["axis"], rank(x))
    if axis == rank(x) - 1:
        return run(x, axis)
    flat = paddle.flatten(x, axis, -1)
    return paddle.reshape(run(flat, axis), paddle.shape(x))


def _family(run: Run) -> dict[int, Op]:
    return {1: Op(partial(flattened, run)), 13: Op(partial(over_axis, run))}


TABLE: Table = {
    "Relu": bare(F.relu),
    "Sigmoid": bare(F.sigmoid),
    "Tanh": bare(paddle.tanh),
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
    "Softmax": _family(F.softmax),
    "LogSoftmax": _family(F.log_softmax),
    "Hardmax": _family(hardmax),
}
