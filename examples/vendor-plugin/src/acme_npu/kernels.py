"""What the simulated chip computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def conv(x: Any, w: Any, bias: Any = None, **attributes: Any) -> Any:
    """Two spatial axes: windows of the input times the kernel."""
    pads, strides = attributes.get("pads", (0, 0, 0, 0)), attributes.get("strides", (1, 1))
    padded = np.pad(x, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    windows = np.lib.stride_tricks.sliding_window_view(padded, w.shape[2:], axis=(2, 3))
    windows = windows[:, :, :: strides[0], :: strides[1]]
    y = np.einsum("nchwij,ocij->nohw", windows.astype(np.float32), w.astype(np.float32))
    return (y if bias is None else y + bias.reshape(1, -1, 1, 1)).astype(x.dtype)


KERNELS: Mapping[str, Callable[..., Any]] = {
    "Add": np.add,
    "Mul": np.multiply,
    "MatMul": np.matmul,
    "Relu": lambda x: np.maximum(x, x.dtype.type(0)),
    "Conv": conv,
}
