"""Normalisations and dropout."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from autoglm.backends.torch.op import Node, Op, Table
from autoglm.rewrite.program import Call
from autoglm.tensor.dtype import from_onnx


def _columns(x: Tensor, vector: Tensor) -> Tensor:
    return vector.reshape(-1, *[1] * (x.ndim - 2))


def batch_norm(
    node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> Any:
    """With the given statistics, or (training_mode) with the batch's own."""
    if not node["training_mode"]:
        return _normalized(x, scale, bias, mean, variance, node["epsilon"])
    axes = [0, *range(2, x.ndim)]
    wide = x.to(mean.dtype)
    batch_mean = wide.mean(axes)
    batch_variance = wide.var(axes, unbiased=False)
    momentum = node["momentum"]
    y = _normalized(x, scale, bias, batch_mean, batch_variance, node["epsilon"])
    running_mean = mean * momentum + batch_mean * (1 - momentum)
    running_variance = variance * momentum + batch_variance * (1 - momentum)
    return y, running_mean, running_variance


def _normalized(
    x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, epsilon: float
) -> Tensor:
    if x.dtype is mean.dtype is scale.dtype:
        return F.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)
    factor = scale.to(mean.dtype) / torch.sqrt(variance + epsilon)
    shifted = (x.to(mean.dtype) - _columns(x, mean)) * _columns(x, factor)
    return (shifted + _columns(x, bias.to(mean.dtype))).to(x.dtype)


def check_batch_norm(call: Call) -> str:
    """Statistics per channel; training as of opset 14."""
    if call.attributes.get("spatial", 1) == 0:
        return "statistics are per channel only, found spatial=0"
    if call.since < 14 and any(call.wanted[1:]):
        return "training outputs are mapped as of opset 14"
    return "" if call.since >= 7 or call.attributes.get("is_test") else "is_test=0 means training"


def instance_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Each plane by its own mean and variance."""
    axes = list(range(2, x.ndim))
    centred = x - x.mean(axes, keepdim=True)
    variance = (centred * centred).mean(axes, keepdim=True)
    normal = centred / torch.sqrt(variance + node["epsilon"])
    return normal * _columns(x, scale) + _columns(x, bias)


def _stash(node: Node, x: Tensor) -> torch.dtype:
    # stash_type 1 asks for float32 inside, whatever the input is; float64 stays.
    name = from_onnx(node["stash_type"] or 1)
    wanted = torch.bfloat16 if name == "bfloat16" else torch.float32
    return x.dtype if x.dtype is torch.float64 else wanted


def group_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Scale and bias are per channel as of opset 21, per group before."""
    groups = node["num_groups"]
    inner = _stash(node, x)
    normal = F.group_norm(x.to(inner), groups, None, None, node["epsilon"]).to(x.dtype)
    if node.since < 21:
        repeat = x.shape[1] // groups
        scale, bias = scale.repeat_interleave(repeat), bias.repeat_interleave(repeat)
    return normal * _columns(x, scale) + _columns(x, bias)


def layer_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Any:
    """Over the axes from `axis` on; mean and inverse deviation on request."""
    axis = node["axis"] % x.ndim
    shape = list(x.shape[axis:])
    fused = scale.dtype is x.dtype and list(scale.shape) == shape
    if not any(node.wanted[1:]) and fused and (bias is None or list(bias.shape) == shape):
        return F.layer_norm(x, shape, scale, bias, node["epsilon"])
    axes = list(range(axis, x.ndim))
    wide = x.to(_stash(node, x))
    mean = wide.mean(axes, keepdim=True)
    centred = wide - mean
    inverse = torch.rsqrt((centred * centred).mean(axes, keepdim=True) + node["epsilon"])
    y = (centred * inverse).to(x.dtype) * scale
    return (y if bias is None else y + bias), mean, inverse


def rms_norm(node: Node, x: Tensor, scale: Tensor) -> Tensor:
    """x over its root mean square."""
    axes = list(range(node["axis"] % x.ndim, x.ndim))
    wide = x.to(_stash(node, x))
    root = torch.sqrt((wide * wide).mean(axes, keepdim=True) + node["epsilon"])
    return (wide / root).to(x.dtype).to(scale.dtype) * scale


def mean_variance(node: Node, x: Tensor) -> Tensor:
    """To zero mean and unit variance over the given axes."""
    axes = list(node["axes"] or (0, 2, 3))
    mean = x.mean(axes, keepdim=True)
    deviation = torch.sqrt((x * x).mean(axes, keepdim=True) - mean * mean)
    return (x - mean) / (deviation + 1e-9)


def lp_norm(node: Node, x: Tensor) -> Tensor:
    """Divide by the 1- or 2-norm; zeros stay zeros."""
    axis = node["axis"]
    size = x.abs().sum(axis, True) if node["p"] == 1 else torch.sqrt((x * x).sum(axis, True))
    return torch.where(size == 0, torch.zeros_like(x), x / size)


def dropout(node: Node, x: Tensor, ratio: Any = None, training: Any = None) -> Any:
    """Identity unless training; then with torch's generator."""
    rate = 0.5 if ratio is None else float(_first(ratio))
    if not _first(training) or rate == 0.0:
        return x, torch.ones_like(x, dtype=torch.bool)
    # NumPy's generator, as in ONNX's own cases: a seed gives one mask on every device.
    draw = np.random.RandomState(node["seed"]).uniform(0, 1.0, tuple(x.shape))
    mask = torch.from_numpy(np.asarray(draw >= rate)).to(x.device)
    return x * mask / (1 - rate), mask


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) else value


def dropout_1(node: Node, x: Tensor) -> Any:
    """Inference only."""
    mask = torch.ones_like(x, dtype=torch.bool)
    return x, (mask if node.since >= 10 else mask.to(x.dtype))


TABLE: Table = {
    "BatchNormalization": Op(batch_norm, check=check_batch_norm),
    "InstanceNormalization": Op(instance_norm),
    "GroupNormalization": Op(group_norm),
    "LayerNormalization": Op(layer_norm),
    "RMSNormalization": Op(rms_norm),
    "MeanVarianceNormalization": Op(mean_variance),
    "LpNormalization": Op(lp_norm),
    "Dropout": {1: Op(dropout_1), 12: Op(dropout, host=(1, 2))},
}
