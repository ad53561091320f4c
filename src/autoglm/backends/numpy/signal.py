"""Fourier transforms in float64, windows, and mel weights."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from autoglm.backends.numpy.op import Array, Op, Table, scalar
from autoglm.rewrite.program import Call
from autoglm.tensor.dtype import from_onnx, to_numpy


def _complex(x: Array) -> Array:
    """The last axis holds a real part, or a real and an imaginary one; float32 stays single."""
    wide = x if x.dtype == np.float64 else x.astype(np.float32)
    return wide[..., 0] + 1j * wide[..., 1] if x.shape[-1] == 2 else wide[..., 0]


def _transform(x: Array, length: int | None, axis: int, inverse: bool, onesided: bool) -> Array:
    wide = _complex(x)
    axis = axis if axis >= 0 else axis + x.ndim
    if inverse and onesided:
        return np.fft.irfft(wide, length, axis)[..., None].astype(x.dtype)
    run = np.fft.ifft if inverse else np.fft.rfft if onesided else np.fft.fft
    result = run(wide, length, axis)
    return np.stack([result.real, result.imag], -1).astype(x.dtype)


def dft(call: Call, x: Array, length: Any = None, axis: Any = None) -> Array:
    """Opset 20: the axis is an input."""
    count = None if length is None else int(scalar(length))
    place = -2 if axis is None else int(scalar(axis))
    return _transform(x, count, place, bool(call["inverse"]), bool(call["onesided"]))


def dft_17(call: Call, x: Array, length: Any = None) -> Array:
    """The axis is an attribute."""
    return dft(call, x, length, call["axis"])


def stft(call: Call, x: Array, step: Array, window: Any = None, length: Any = None) -> Array:
    """Transforms of windowed frames."""
    size = x.shape[1] if window is None else window.shape[0]
    size = size if length is None else int(scalar(length))
    frames = np.lib.stride_tricks.sliding_window_view(x, size, 1)[:, :: int(scalar(step))]
    frames = frames if window is None else frames * window
    return _transform(np.moveaxis(frames, 3, 2), None, 2, False, bool(call["onesided"]))


def _window(weights: tuple[float, ...], call: Call, size: Array) -> Array:
    count = int(scalar(size))
    period = count if call["periodic"] else count - 1
    angle = np.arange(count) * (2 * math.pi / max(period, 1))
    terms = [(-1) ** i * w * np.cos(i * angle) for i, w in enumerate(weights)]
    return np.asarray(np.sum(terms, 0), to_numpy(from_onnx(call["output_datatype"])))


def mel_weights(call: Call, bins: Any, length: Any, rate: Any, low: Any, high: Any) -> Array:
    """Triangles that are even on the mel scale."""
    count, size = int(scalar(bins)), int(scalar(length))
    lowest, highest = (2595 * math.log10(1 + scalar(f) / 700) for f in (low, high))
    mel = np.arange(count + 2) * ((highest - lowest) / (count + 2)) + lowest
    hertz = 700 * (10 ** (mel / 2595) - 1)
    edges = np.floor((size + 1) * hertz / scalar(rate)).astype(np.int64)
    left, peak, right = edges[:-2], edges[1:-1], edges[2:]
    place = np.arange(size // 2 + 1)[:, None]
    rising = (place - left) / np.maximum(peak - left, 1)
    falling = (right - place) / np.maximum(right - peak, 1)
    weights = np.where((place >= left) & (place < peak), rising, 0.0)
    weights = np.where((place > peak) & (place < right), falling, weights)
    weights = np.where(place == peak, 1.0, weights)
    return weights.astype(to_numpy(from_onnx(call["output_datatype"])))


TABLE: Table = {
    "DFT": {17: Op(dft_17), 20: Op(dft)},
    "STFT": Op(stft),
    "HannWindow": Op(partial(_window, (0.5, 0.5))),
    "HammingWindow": Op(partial(_window, (25 / 46, 21 / 46))),
    "BlackmanWindow": Op(partial(_window, (0.42, 0.5, 0.08))),
    "MelWeightMatrix": Op(mel_weights),
}
