"""Fourier transforms and windows."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autoglm.backends.torch.op import Node, Op, Table
from autoglm.tensor.dtype import from_onnx


def _number(value: Any) -> Any:
    while isinstance(value, list):
        value = value[0]
    return value


def _complex(x: Tensor) -> Tensor:
    """The last axis holds a real part, or a real and an imaginary one."""
    # The CPU has float64, whose rounding is below what the result can show.
    x = x.double() if x.device.type == "cpu" else x.float()
    return torch.view_as_complex(x.contiguous()) if x.shape[-1] == 2 else x.squeeze(-1)


def _transform(
    node: Node, x: Tensor, length: int | None, axis: int, inverse: bool, onesided: bool
) -> Tensor:
    wide = _complex(x)
    axis = axis if axis >= 0 else axis + x.ndim
    if inverse and onesided:
        return torch.fft.irfft(wide, length, axis).unsqueeze(-1).to(x.dtype)
    if inverse:
        result = torch.fft.ifft(wide, length, axis)
    elif onesided:
        result = torch.fft.rfft(wide, length, axis)
    else:
        result = torch.fft.fft(wide, length, axis)
    return torch.view_as_real(result).to(x.dtype)


def dft(node: Node, x: Tensor, length: Any = None, axis: Any = None) -> Tensor:
    """Opset 20: the axis is an input."""
    count = None if length is None else int(_number(length))
    place = -2 if axis is None else int(_number(axis))
    return _transform(node, x, count, place, bool(node["inverse"]), bool(node["onesided"]))


def dft_17(node: Node, x: Tensor, length: Any = None) -> Tensor:
    """The axis is an attribute."""
    return dft(node, x, length, node["axis"])


def stft(
    node: Node, x: Tensor, step: Any, window: Tensor | None = None, length: Any = None
) -> Tensor:
    """Transforms of windowed frames."""
    size = window.shape[0] if window is not None else x.shape[1]
    size = size if length is None else int(_number(length))
    frames = x.unfold(1, size, int(_number(step)))  # [batch, frames, 1 or 2, size]
    if window is not None:
        frames = frames * window
    return _transform(node, frames.transpose(2, 3), None, 2, False, bool(node["onesided"]))


def _window(weights: tuple[float, ...], node: Node, size: Any) -> Tensor:
    count = int(_number(size))
    period = count if node["periodic"] else count - 1
    angle = torch.arange(count, dtype=torch.float64) * (2 * math.pi / max(period, 1))
    terms = [(-1) ** i * w * torch.cos(i * angle) for i, w in enumerate(weights)]
    total = torch.stack(terms).sum(0)
    return total.to(node.held(from_onnx(node["output_datatype"]))).to(node.device)


def mel_weights(node: Node, bins: Any, length: Any, rate: Any, low: Any, high: Any) -> Tensor:
    """Triangles that are even on the mel scale."""
    count, spectrum = int(_number(bins)), int(_number(length)) // 2 + 1
    lowest, highest = (2595 * math.log10(1 + _number(f) / 700) for f in (low, high))
    mel = torch.arange(count + 2, dtype=torch.float64) * ((highest - lowest) / (count + 2)) + lowest
    hertz = 700 * (10 ** (mel / 2595) - 1)
    edges = torch.floor((int(_number(length)) + 1) * hertz / _number(rate)).long()
    left, peak, right = edges[:-2], edges[1:-1], edges[2:]
    place = torch.arange(spectrum)[:, None]
    rising = (place - left) / (peak - left).clamp(min=1)
    falling = (right - place) / (right - peak).clamp(min=1)
    up = torch.where((place >= left) & (place < peak), rising, 0.0)
    weights = torch.where((place >= peak) & (place < right), falling, up)
    weights = torch.where(place == peak, 1.0, weights)
    return weights.to(node.held(from_onnx(node["output_datatype"]))).to(node.device)


_HAMMING = (25 / 46, 21 / 46)

TABLE: Table = {
    "DFT": {17: Op(dft_17, host=(1,), high=True), 20: Op(dft, host=(1, 2), high=True)},
    "STFT": Op(stft, host=(1, 3), high=True),
    "HannWindow": Op(partial(_window, (0.5, 0.5)), host=(0,)),
    "HammingWindow": Op(partial(_window, _HAMMING), host=(0,)),
    "BlackmanWindow": Op(partial(_window, (0.42, 0.5, 0.08)), host=(0,)),
    "MelWeightMatrix": Op(mel_weights, host=(0, 1, 2, 3, 4)),
}
