"""Random numbers and dropout, by NumPy's seeded generator."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from autoglm.backends.numpy.op import Array, Op, Table, scalar
from autoglm.rewrite.program import Call
from autoglm.tensor.dtype import from_onnx, to_numpy


def _state(call: Call) -> np.random.RandomState:
    seed = call["seed"]
    if seed is None:
        return np.random.RandomState()
    return np.random.RandomState(struct.unpack("<I", struct.pack("<f", seed))[0])


def _dtype(call: Call, like: Any) -> Any:
    if call["dtype"]:
        return to_numpy(from_onnx(call["dtype"]))
    return np.float32 if like is None else like.dtype


def uniform(call: Call, like: Any = None) -> Array:
    """Of the shape given, or the input's."""
    shape = call["shape"] if like is None else like.shape
    return np.asarray(_state(call).uniform(call["low"], call["high"], shape)).astype(
        _dtype(call, like)
    )


def normal(call: Call, like: Any = None) -> Array:
    """Of the shape given, or the input's."""
    shape = call["shape"] if like is None else like.shape
    return np.asarray(_state(call).normal(call["mean"], call["scale"], shape)).astype(
        _dtype(call, like)
    )


def bernoulli(call: Call, x: Array) -> Array:
    """One with probability x."""
    return (_state(call).uniform(0, 1, x.shape) < x).astype(_dtype(call, x))


def dropout(call: Call, x: Array, ratio: Any = None, training: Any = None) -> tuple[Array, Array]:
    """Identity unless training; then by an integer seed, as ONNX's own cases draw."""
    rate = 0.5 if ratio is None else float(scalar(ratio))
    if training is None or not scalar(training) or rate == 0.0:
        return x, np.ones(x.shape, np.bool_)
    draw = np.random.RandomState(call["seed"]).uniform(0, 1.0, x.shape)
    mask = np.asarray(draw >= rate)
    return (x * mask / (1 - rate)).astype(x.dtype), mask


TABLE: Table = {
    "RandomUniform": Op(uniform),
    "RandomUniformLike": Op(uniform),
    "RandomNormal": Op(normal),
    "RandomNormalLike": Op(normal),
    "Bernoulli": Op(bernoulli),
    "Dropout": {12: Op(dropout)},
}
