"""Normalisations and dropout."""

from __future__ import annotations

from typing import Any

import paddle
import paddle.nn.functional as F

from .op import (
    DTYPES,
    Node,
    Op,
    Refused,
    Table,
    Value,
    axis_of,
    back,
    full_like,
    name_of,
    rank,
    size,
)

_MAX_EPSILON = 1e-3  # Paddle's own operators refuse more


def _columns(x: Value, vector: Value) -> Value:
    return paddle.reshape(vector, [-1] + [1] * (rank(x) - 2))


def batch_norm(
    node: Node, x: Value, scale: Value, bias: Value, mean: Value, variance: Value
) -> Value:
    """With the given statistics."""
    if node["training_mode"] or node["spatial"] == 0 or (node.since < 7 and not node["is_test"]):
        raise Refused("takes given statistics per channel; found training or spatial=0")
    alike = scale.dtype == x.dtype == mean.dtype
    if alike and rank(x) > 1 and node["epsilon"] <= _MAX_EPSILON:
        return F.batch_norm(x, mean, variance, scale, bias, False, 0.9, node["epsilon"])
    wide = paddle.cast(x, mean.dtype)
    root = paddle.sqrt(paddle.scale(variance, 1.0, node["epsilon"]))
    factor = paddle.cast(scale, mean.dtype) / root
    shifted = (wide - _columns(x, mean)) * _columns(x, factor)
    return back(shifted + _columns(x, paddle.cast(bias, mean.dtype)), x)


def instance_norm(node: Node, x: Value, scale: Value, bias: Value) -> Value:
    """Each plane by its own mean and variance."""
    normal, _, _ = _normal(x, list(range(2, rank(x))), node["epsilon"])
    return normal * _columns(x, scale) + _columns(x, bias)


def _normal(x: Value, axes: list[int], epsilon: float) -> tuple[Value, Value, Value]:
    mean = paddle.mean(x, axes, True)
    centred = x - mean
    variance = paddle.mean(centred * centred, axes, True)
    inverse = paddle.rsqrt(paddle.scale(variance, 1.0, epsilon))
    return centred * inverse, mean, inverse


def _stash(node: Node, x: Value) -> Value:
    # stash_type 1 asks for float32 inside, whatever the input is; float64 stays.
    wanted = DTYPES.get(node["stash_type"] or 1, "float32")
    return x if "64" in str(x.dtype) else paddle.cast(x, wanted)


def group_norm(node: Node, x: Value, scale: Value, bias: Value) -> Value:
    """Scale and bias are per channel as of opset 21, per group before."""
    groups, channels = node["num_groups"], size(x, 1)
    wide = _stash(node, x)
    split = paddle.reshape(wide, [0, groups, -1])
    normal, _, _ = _normal(split, [2], node["epsilon"])
    normal = back(paddle.reshape(normal, paddle.shape(x)), x)
    if node.since < 21:
        scale, bias = (paddle.repeat_interleave(v, channels // groups) for v in (scale, bias))
    return normal * _columns(x, scale) + _columns(x, bias)


def layer_norm(node: Node, x: Value, scale: Value, bias: Value = None) -> Any:
    """Over the axes from `axis` on; mean and inverse deviation on request."""
    axis = axis_of(node["axis"], rank(x))
    tail = [int(n) for n in x.shape[axis:]]
    fused = -1 not in tail and [int(n) for n in scale.shape] == tail and scale.dtype == x.dtype
    fused = fused and (bias is None or [int(n) for n in bias.shape] == tail)
    # Paddle's CPU kernel reads bfloat16 weights as float32 and fails.
    fused = fused and node["epsilon"] <= _MAX_EPSILON and name_of(x) != "bfloat16"
    if fused and not any(node.wanted[1:]):
        weights = [w if w is None else paddle.reshape(w, [-1]) for w in (scale, bias)]
        return F.layer_norm(x, tail, *weights, node["epsilon"])
    normal, mean, inverse = _normal(_stash(node, x), list(range(axis, rank(x))), node["epsilon"])
    y = back(normal, x) * scale
    return (y if bias is None else y + bias), mean, inverse


def rms_norm(node: Node, x: Value, scale: Value) -> Value:
    """x over its root mean square."""
    axes = list(range(axis_of(node["axis"], rank(x)), rank(x)))
    wide = _stash(node, x)
    square = paddle.mean(wide * wide, axes, True)
    normal = wide * paddle.rsqrt(paddle.scale(square, 1.0, node["epsilon"]))
    return back(back(normal, x), scale) * scale


def mean_variance(node: Node, x: Value) -> Value:
    """To zero mean and unit variance over the given axes."""
    axes = list(node["axes"] or (0, 2, 3))
    mean = paddle.mean(x, axes, True)
    centred = x - mean
    deviation = paddle.sqrt(paddle.mean(centred * centred, axes, True))
    return centred / paddle.scale(deviation, 1.0, 1e-9)


def lp_norm(node: Node, x: Value) -> Value:
    """Over its p-norm; zero stays zero."""
    axis = axis_of(node["axis"], rank(x))
    if node["p"] == 1:
        length = paddle.sum(paddle.abs(x), axis, keepdim=True)
    else:
        length = paddle.sqrt(paddle.sum(x * x, axis, keepdim=True))
    return x / paddle.where(paddle.equal(length, full_like(length, 0)),
                            paddle.ones_like(length), length)  # fmt: skip


def dropout(node: Node, x: Value, ratio: Any = None, training: Any = None) -> Any:
    """At inference nothing is dropped."""
    if training is not None:
        known = node.known[2]
        if known is None:
            raise Refused("takes training_mode as a constant false")
        if known.item():
            raise Refused("takes training_mode=false; found true")
    return paddle.assign(x), paddle.ones_like(x, dtype="bool")


TABLE: Table = {
    "BatchNormalization": Op(batch_norm),
    "InstanceNormalization": Op(instance_norm),
    "GroupNormalization": Op(group_norm),
    "LayerNormalization": Op(layer_norm),
    "RMSNormalization": Op(rms_norm),
    "MeanVarianceNormalization": Op(mean_variance),
    "LpNormalization": Op(lp_norm),
    "Dropout": Op(dropout),
}
