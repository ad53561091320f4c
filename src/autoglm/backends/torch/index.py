"""Gather, scatter, search and selection."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from autoglm.backends.torch.op import Kind, Node, Op, Table, move

_REDUCE = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _wrapped(index: Tensor, size: int) -> Tensor:
    index = index.to(torch.int64)
    return torch.where(index < 0, index + size, index)


def gather(node: Node, x: Tensor, index: Tensor) -> Tensor:
    """Whole slices along an axis."""
    axis = node["axis"] % x.ndim
    index = _wrapped(index, x.shape[axis])
    taken = x.index_select(axis, index.reshape(-1))
    return taken.reshape((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))


def gather_elements(node: Node, x: Tensor, index: Tensor) -> Tensor:
    """Single elements along an axis."""
    axis = node["axis"] % x.ndim
    return torch.gather(x, axis, _wrapped(index, x.shape[axis]))


def _flat_index(index: Tensor, shape: torch.Size) -> Tensor:
    """Tuples in the last axis -> offsets into an array of `shape`."""
    strides = [math.prod(shape[i + 1 :]) for i in range(index.shape[-1])]
    columns = [_wrapped(index[..., i], shape[i]) * s for i, s in enumerate(strides)]
    return sum(columns, torch.zeros(index.shape[:-1], dtype=torch.int64, device=index.device))


def gather_nd(node: Node, x: Tensor, index: Tensor) -> Tensor:
    """Slices by index tuples, after `batch_dims` common axes."""
    batch = node["batch_dims"] or 0
    depth = index.shape[-1]
    lead, inner = math.prod(x.shape[:batch]), x.shape[batch : batch + depth]
    tail = x.shape[batch + depth :]
    rows = x.reshape(lead * math.prod(inner), *tail)
    flat = _flat_index(index, inner).reshape(lead, -1)
    flat = flat + torch.arange(lead, device=x.device)[:, None] * math.prod(inner)
    return rows.index_select(0, flat.reshape(-1)).reshape((*index.shape[:-1], *tail))


def scatter_elements(node: Node, x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
    """Single elements along an axis; equal places combine by `reduction`."""
    axis = node["axis"] % x.ndim
    index = _wrapped(index, x.shape[axis])
    reduction = node["reduction"] or "none"
    if reduction == "none":
        return x.scatter(axis, index, updates)
    return x.scatter_reduce(axis, index, updates, _REDUCE[reduction], include_self=True)


def scatter_nd(node: Node, x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
    """Slices by index tuples."""
    depth = index.shape[-1]
    tail = x.shape[depth:]
    rows = x.reshape(math.prod(x.shape[:depth]), -1)
    flat = _flat_index(index, x.shape[:depth]).reshape(-1, 1).expand(-1, rows.shape[1])
    values = updates.reshape(-1, math.prod(tail))
    reduction = node["reduction"] or "none"
    if reduction == "none":
        result = rows.scatter(0, flat, values)
    else:
        result = rows.scatter_reduce(0, flat, values, _REDUCE[reduction], include_self=True)
    return result.reshape(x.shape)


def tensor_scatter(
    node: Node, cache: Tensor, update: Tensor, starts: Tensor | None = None
) -> Tensor:
    """Write `update` into each batch entry's cache from its start on."""
    axis = node["axis"] % cache.ndim
    limit, length = cache.shape[axis], update.shape[axis]
    place = torch.arange(length, device=cache.device)[None, :]
    if starts is not None:
        place = place + starts[:, None]
    if node["mode"] == "circular":
        place = place % limit
    place = place.expand(cache.shape[0], length)
    shape = [1] * cache.ndim
    shape[0], shape[axis] = cache.shape[0], length
    return cache.scatter(axis, place.reshape(shape).expand(update.shape), update)


def compress(node: Node, x: Tensor, condition: Tensor) -> Tensor:
    """Slices whose condition holds."""
    axis = node["axis"]
    if axis is None:
        x, axis = x.reshape(-1), 0
    return x.index_select(axis, condition.nonzero().reshape(-1))


def nonzero(node: Node, x: Tensor) -> Tensor:
    """Coordinates of what is not zero, one row per axis."""
    return x.nonzero().T.contiguous()


def one_hot(node: Node, index: Tensor, depth: Any, values: Tensor) -> Tensor:
    """values[1] at the index, values[0] elsewhere and where the index is out of range."""
    depth = int(depth[0] if isinstance(depth, list) else depth)
    axis = node["axis"] % (index.ndim + 1)
    index = index.to(torch.int64)
    index = torch.where(index < 0, index + depth, index).unsqueeze(axis)
    places = torch.arange(depth, device=index.device)
    places = places.reshape([-1 if i == axis else 1 for i in range(index.ndim)])
    return torch.where(index == places, values[1], values[0])


def top_k(node: Node, x: Tensor, k: Any) -> tuple[Tensor, Tensor]:
    """Of equal values the lower index comes first."""
    count = int(k[0] if isinstance(k, list) else k)
    axis, biggest = node["axis"], node["largest"] != 0
    values, index = torch.sort(x, dim=axis, descending=biggest, stable=True)
    return values.narrow(axis, 0, count), index.narrow(axis, 0, count)


def top_k_1(node: Node, x: Tensor) -> tuple[Tensor, Tensor]:
    """k as an attribute."""
    values, index = torch.sort(x, dim=node["axis"], descending=True, stable=True)
    return values.narrow(node["axis"], 0, node["k"]), index.narrow(node["axis"], 0, node["k"])


def unique(node: Node, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Values (or slices) once, with first places, inverse and counts."""
    axis = node["axis"]
    if axis is None:
        x, axis = x.reshape(-1), 0
    values, inverse, counts = torch.unique(x, True, True, True, dim=axis)
    order = torch.arange(inverse.numel(), device=x.device)
    first = torch.full_like(counts, inverse.numel())
    first = first.scatter_reduce(0, inverse.reshape(-1), order, "amin")
    if not node["sorted"]:
        rank = torch.argsort(first)
        back = torch.argsort(rank)
        values, inverse = values.index_select(axis, rank), back[inverse]
        first, counts = first[rank], counts[rank]
    return values, first, inverse.reshape(-1), counts


TABLE: Table = {
    "Gather": move(gather),
    "GatherElements": move(gather_elements),
    "GatherND": move(gather_nd),
    "Scatter": move(scatter_elements),
    "ScatterElements": Op(scatter_elements),
    "ScatterND": Op(scatter_nd),
    "TensorScatter": move(tensor_scatter),
    "Compress": move(compress),
    "NonZero": Op(nonzero),
    "OneHot": Op(one_hot, host=(1,)),
    "TopK": {
        1: Op(top_k_1, kind=Kind.ORDER),
        10: Op(top_k, host=(1,), kind=Kind.ORDER),
    },
    "Unique": Op(unique, kind=Kind.ORDER),
}
