"""One step of an optimiser (the preview training domain)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from autoglm.backends.numpy.op import Array, Kernel, Op, Table, scalar
from autoglm.rewrite.program import Call

_DOMAIN = "ai.onnx.preview.training"


def adagrad(call: Call, rate: Array, count: Array, x: Array, g: Array, h: Array) -> Any:
    """Learning rate by accumulated squares."""
    step = float(scalar(rate)) / (1 + int(scalar(count)) * call["decay_factor"])
    g = call["norm_coefficient"] * x + g
    h = h + g * g
    return x - step * g / (np.sqrt(h) + call["epsilon"]), h


def adam(call: Call, rate: Array, count: Array, x: Array, g: Array, v: Array, h: Array) -> Any:
    """Running mean and mean square of the gradient."""
    alpha, beta = call["alpha"], call["beta"]
    g = call["norm_coefficient"] * x + g
    v = alpha * v + (1 - alpha) * g
    h = beta * h + (1 - beta) * g * g
    steps, step = int(scalar(count)), float(scalar(rate))
    if steps > 0:
        step = step * (1 - beta**steps) ** 0.5 / (1 - alpha**steps)
    x = x - step * v / (np.sqrt(h) + call["epsilon"])
    return (1 - call["norm_coefficient_post"]) * x, v, h


def momentum(call: Call, rate: Array, count: Array, x: Array, g: Array, v: Array) -> Any:
    """Standard or Nesterov's."""
    g = call["norm_coefficient"] * x + g
    beta = call["beta"] if int(scalar(count)) > 0 else 1.0
    v = call["alpha"] * v + beta * g
    step = g + call["alpha"] * v if call["mode"] == "nesterov" else v
    return x - float(scalar(rate)) * step, v


def _each_tensor(run: Callable[..., Any], groups: int) -> Kernel:
    """Inputs come grouped by role (all x, all g, ...); so do outputs."""

    def update(call: Call, rate: Array, count: Array, *inputs: Array) -> Any:
        size = len(inputs) // groups
        rows = [run(call, rate, count, *inputs[i::size]) for i in range(size)]
        columns = zip(*rows, strict=True)
        return tuple(np.asarray(v).astype(inputs[0].dtype) for column in columns for v in column)

    return update


TABLE: Table = {
    f"{_DOMAIN}::Adagrad": Op(_each_tensor(adagrad, 3)),
    f"{_DOMAIN}::Adam": Op(_each_tensor(adam, 4)),
    f"{_DOMAIN}::Momentum": Op(_each_tensor(momentum, 3)),
}
