"""Operators that onnx's reference answers wrongly (1.23.2): their formulas, in float64.

LRN sums over the batch's length instead of the channels, LpNormalization p=1 leaves out the
absolute value, LpPool
miscounts the last window of ceil_mode, GlobalMaxPool is right with two spatial axes only.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def lrn(x: Any, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> Any:
    """Local response normalisation across channels."""
    import numpy as np

    channels = x.shape[1]
    total = np.zeros_like(x)
    for c in range(channels):
        low, high = max(0, c - (size - 1) // 2), min(channels, c + math.ceil((size - 1) / 2) + 1)
        total[:, c] = np.sum(x[:, low:high] ** 2, axis=1)
    return x / (bias + alpha / size * total) ** beta


def lp_normalization(x: Any, *, axis: int = -1, p: int = 2) -> Any:
    """x over its p-norm along one axis."""
    import numpy as np

    return x / np.sum(np.abs(x) ** p, axis=axis, keepdims=True) ** (1 / p)


def global_max_pool(x: Any) -> Any:
    """The largest of every channel."""
    import numpy as np

    return np.max(x, axis=tuple(range(2, x.ndim)), keepdims=True)


def lp_pool(
    x: Any,
    *,
    kernel_shape: Sequence[int],
    strides: Sequence[int] = (),
    pads: Sequence[int] = (),
    dilations: Sequence[int] = (),
    ceil_mode: int = 0,
    auto_pad: str = "NOTSET",
    p: int = 2,
) -> Any:
    """The p-norm of every window; what lies outside the input counts as 0."""
    import numpy as np

    axes = len(kernel_shape)
    steps, spread = list(strides) or [1] * axes, list(dilations) or [1] * axes
    reach = [(k - 1) * d + 1 for k, d in zip(kernel_shape, spread, strict=True)]
    begin, end = _pads(x.shape[2:], reach, steps, list(pads) or [0] * (2 * axes), auto_pad)
    up = math.ceil if ceil_mode else math.floor
    shape = [
        up((n + b + e - r) / s) + 1
        for n, b, e, r, s in zip(x.shape[2:], begin, end, reach, steps, strict=True)
    ]
    y = np.zeros((*x.shape[:2], *shape))
    for place in itertools.product(*map(range, shape)):
        for offset in itertools.product(*map(range, kernel_shape)):
            at = [
                i * s + o * d - b
                for i, s, o, d, b in zip(place, steps, offset, spread, begin, strict=True)
            ]
            if all(0 <= a < n for a, n in zip(at, x.shape[2:], strict=True)):
                here: Any = (..., *place)
                there: Any = (..., *at)
                y[here] += np.abs(x[there]) ** p
    return y ** (1 / p)


def _pads(
    sizes: Sequence[int], reach: Sequence[int], steps: Sequence[int], pads: list[int], auto: str
) -> tuple[list[int], list[int]]:
    if not auto.startswith("SAME"):
        return pads[: len(sizes)], pads[len(sizes) :]
    total = [
        max(0, (math.ceil(n / s) - 1) * s + r - n)
        for n, r, s in zip(sizes, reach, steps, strict=True)
    ]
    low = [t // 2 for t in total]
    high = [t - half for t, half in zip(total, low, strict=True)]
    return (low, high) if auto == "SAME_UPPER" else (high, low)


FORMULAS: Mapping[str, Callable[..., Any]] = {
    "GlobalMaxPool": global_max_pool,
    "LRN": lrn,
    "LpNormalization": lp_normalization,
    "LpPool": lp_pool,
}
