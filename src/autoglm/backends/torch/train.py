"""One step of an optimiser (the preview training domain)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from autoglm.backends.torch.op import Kernel, Node, Op, Table

_DOMAIN = "ai.onnx.preview.training"


def adagrad(node: Node, rate: Tensor, count: Tensor, x: Tensor, g: Tensor, h: Tensor) -> Any:
    """Learning rate by accumulated squares."""
    step = rate / (1 + count * node["decay_factor"])
    g = node["norm_coefficient"] * x + g
    h = h + g * g
    return x - step * g / (torch.sqrt(h) + node["epsilon"]), h


def adam(
    node: Node, rate: Tensor, count: Tensor, x: Tensor, g: Tensor, v: Tensor, h: Tensor
) -> Any:
    """Running mean and mean square of the gradient."""
    alpha, beta = node["alpha"], node["beta"]
    g = node["norm_coefficient"] * x + g
    v = alpha * v + (1 - alpha) * g
    h = beta * h + (1 - beta) * g * g
    steps = int(count)
    if steps > 0:
        rate = rate * ((1 - beta**steps) ** 0.5 / (1 - alpha**steps))
    x = x - rate * v / (torch.sqrt(h) + node["epsilon"])
    return (1 - node["norm_coefficient_post"]) * x, v, h


def momentum(node: Node, rate: Tensor, count: Tensor, x: Tensor, g: Tensor, v: Tensor) -> Any:
    """Standard or Nesterov's."""
    g = node["norm_coefficient"] * x + g
    beta = node["beta"] if int(count) > 0 else 1.0
    v = node["alpha"] * v + beta * g
    step = g + node["alpha"] * v if node["mode"] == "nesterov" else v
    return x - rate * step, v


def _each_tensor(run: Callable[..., Any], groups: int) -> Kernel:
    """Inputs come grouped by role (all x, all g, ...); so do outputs."""

    def update(node: Node, rate: Tensor, count: Tensor, *inputs: Tensor) -> Any:
        size = len(inputs) // groups
        rows = [run(node, rate, count, *inputs[i::size]) for i in range(size)]
        return tuple(value for column in zip(*rows, strict=True) for value in column)

    return update


TABLE: Table = {
    f"{_DOMAIN}::Adagrad": Op(_each_tensor(adagrad, 3)),
    f"{_DOMAIN}::Adam": Op(_each_tensor(adam, 4)),
    f"{_DOMAIN}::Momentum": Op(_each_tensor(momentum, 3)),
}
