"""Random numbers, from torch's generator; a node's `seed` makes them repeatable."""

from __future__ import annotations

import struct
from typing import Any

import torch
from torch import Tensor

from autoglm.backends.torch.op import Node, Op, Table
from autoglm.tensor.dtype import from_onnx


def _generator(node: Node) -> torch.Generator | None:
    if node["seed"] is None:
        return None
    generator = torch.Generator(node.device)
    generator.manual_seed(struct.unpack("<I", struct.pack("<f", node["seed"]))[0])
    return generator


def _dtype(node: Node, like: Tensor | None) -> torch.dtype:
    if node["dtype"]:
        return node.held(from_onnx(node["dtype"]))
    return like.dtype if like is not None else node.held("float32")


def _normal(node: Node, shape: Any, dtype: torch.dtype) -> Tensor:
    draw = torch.randn(shape, generator=_generator(node), device=node.device)
    return (draw * node["scale"] + node["mean"]).to(dtype)


def _uniform(node: Node, shape: Any, dtype: torch.dtype) -> Tensor:
    draw = torch.rand(shape, generator=_generator(node), device=node.device)
    return (draw * (node["high"] - node["low"]) + node["low"]).to(dtype)


def normal(node: Node) -> Tensor:
    """Of the shape given."""
    return _normal(node, node["shape"], _dtype(node, None))


def normal_like(node: Node, x: Tensor) -> Tensor:
    """Of the input's shape."""
    return _normal(node, x.shape, _dtype(node, x))


def uniform(node: Node) -> Tensor:
    """Of the shape given."""
    return _uniform(node, node["shape"], _dtype(node, None))


def uniform_like(node: Node, x: Tensor) -> Tensor:
    """Of the input's shape."""
    return _uniform(node, x.shape, _dtype(node, x))


def bernoulli(node: Node, x: Tensor) -> Tensor:
    """One with probability x."""
    draw = torch.rand(x.shape, generator=_generator(node), device=node.device)
    return (draw < x).to(_dtype(node, x))


def multinomial(node: Node, x: Tensor) -> Tensor:
    """Class numbers drawn by unnormalised log-probabilities."""
    chances = torch.softmax(x.float(), -1)
    draw = torch.multinomial(chances, node["sample_size"], True, generator=_generator(node))
    return draw.to(node.held(from_onnx(node["dtype"] or 6)))


TABLE: Table = {
    "RandomNormal": Op(normal),
    "RandomNormalLike": Op(normal_like),
    "RandomUniform": Op(uniform),
    "RandomUniformLike": Op(uniform_like),
    "Bernoulli": Op(bernoulli),
    "Multinomial": Op(multinomial),
}
