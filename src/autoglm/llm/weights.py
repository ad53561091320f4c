"""Every weight of a language model by shape and role: what is counted, stored and split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache

from autoglm.llm.architecture import Architecture, Attention, Dense, Experts, Layer


class Role(StrEnum):
    """What a weight is for; quantisation takes the first four."""

    ATTENTION = "attention"
    DENSE = "dense"
    EXPERT = "experts"
    SHARED = "shared experts"
    ROUTER = "router"
    SMALL = "norms and biases"
    EMBEDDING = "embedding"
    HEAD = "head"


class Split(StrEnum):
    """What divides a weight between devices that share every layer."""

    HEADS = "heads"
    KV_HEADS = "key and value heads"
    WIDTH = "width"
    EXPERTS = "experts"
    VOCABULARY = "vocabulary"
    WHOLE = "not split"


@dataclass(frozen=True, slots=True)
class Weight:
    """`copies` equal matrices of `rows` outputs and `columns` inputs; a vector has one column."""

    role: Role
    rows: int
    columns: int = 1
    copies: int = 1
    split: Split = Split.WHOLE

    @property
    def elements(self) -> int:
        """Elements of all copies."""
        return self.rows * self.columns * self.copies


def layer_counts(arch: Architecture) -> dict[Layer, int]:
    """Each kind of layer, and how many there are; a model has few kinds and many layers."""
    return dict(Counter(arch.layers))


@cache
def layer_weights(layer: Layer, hidden: int) -> tuple[Weight, ...]:
    """The weights of one decoder layer."""
    norms = Weight(Role.SMALL, hidden, copies=layer.norms)
    attention = layer.attention
    own = _latent if attention.latent else _grouped
    feed = layer.feed
    rest = _dense(feed, hidden) if isinstance(feed, Dense) else _experts(feed, hidden)
    return (norms, *own(attention, hidden), *rest)


def embedding(arch: Architecture) -> Weight:
    """The embedding's table; looked up, not multiplied."""
    return Weight(Role.EMBEDDING, arch.vocabulary, arch.hidden, split=Split.VOCABULARY)


def head(arch: Architecture) -> tuple[Weight, ...]:
    """The final norm, and the head where it is not the embedding."""
    norm = Weight(Role.SMALL, arch.hidden)
    own = Weight(Role.HEAD, arch.vocabulary, arch.hidden, split=Split.VOCABULARY)
    return (norm,) if arch.tied else (norm, own)


def all_weights(arch: Architecture) -> Iterator[tuple[Weight, int]]:
    """Every weight with the number of layers that have it."""
    yield embedding(arch), 1
    for weight in head(arch):
        yield weight, 1
    for layer, count in layer_counts(arch).items():
        for weight in layer_weights(layer, arch.hidden):
            yield weight, count


def parameters(arch: Architecture) -> int:
    """Parameters in all, as transformers counts them; without spare layers."""
    return sum(w.elements * count for w, count in all_weights(arch))


def active_parameters(arch: Architecture) -> int:
    """Parameters that one token meets: of the experts those that run."""
    total = parameters(arch)
    for layer, count in layer_counts(arch).items():
        feed = layer.feed
        if isinstance(feed, Experts):
            idle = feed.count - feed.active
            experts = [w for w in layer_weights(layer, arch.hidden) if w.role is Role.EXPERT]
            total -= count * sum(w.elements // feed.count * idle for w in experts)
    return total


def spare_parameters(arch: Architecture) -> int:
    """Parameters of the layers for multi-token prediction, with their own embedding and head."""
    if not arch.spare_layers:
        return 0
    hidden = arch.hidden
    layer = sum(w.elements for w in layer_weights(arch.layers[-1], hidden))
    joined = 2 * hidden * hidden + 3 * hidden
    return arch.spare_layers * (layer + joined + 2 * arch.vocabulary * hidden)


def _grouped(own: Attention, hidden: int) -> Iterator[Weight]:
    query, key = own.heads * own.qk_dim, own.kv_heads * own.qk_dim
    value, out = own.kv_heads * own.v_dim, own.heads * own.v_dim
    yield Weight(Role.ATTENTION, query, hidden, split=Split.HEADS)
    yield Weight(Role.ATTENTION, key, hidden, split=Split.KV_HEADS)
    yield Weight(Role.ATTENTION, value, hidden, split=Split.KV_HEADS)
    yield Weight(Role.ATTENTION, hidden, out, split=Split.HEADS)
    if own.bias:
        yield Weight(Role.SMALL, query + key + value)
    if own.output_bias:
        yield Weight(Role.SMALL, hidden)
    if own.qk_norm:
        yield Weight(Role.SMALL, own.qk_dim, copies=2)


def _latent(own: Attention, hidden: int) -> Iterator[Weight]:
    query = own.heads * own.qk_dim
    if own.query_rank:
        yield Weight(Role.ATTENTION, own.query_rank, hidden)
        yield Weight(Role.SMALL, own.query_rank * (2 if own.bias else 1))
        yield Weight(Role.ATTENTION, query, own.query_rank, split=Split.HEADS)
    else:
        yield Weight(Role.ATTENTION, query, hidden, split=Split.HEADS)
    down = own.latent + own.rope_dim
    up = own.heads * (own.qk_dim - own.rope_dim + own.v_dim)
    yield Weight(Role.ATTENTION, down, hidden)
    yield Weight(Role.SMALL, own.latent + (down if own.bias else 0))
    yield Weight(Role.ATTENTION, up, own.latent, split=Split.HEADS)
    yield Weight(Role.ATTENTION, hidden, own.heads * own.v_dim, split=Split.HEADS)
    if own.output_bias:
        yield Weight(Role.SMALL, hidden)
    if own.index and own.index.own:
        yield Weight(Role.ATTENTION, own.index.heads * own.index.width, own.query_rank or hidden)
        yield Weight(Role.ATTENTION, own.index.width, hidden)
        yield Weight(Role.SMALL, 2 * own.index.width)
        yield Weight(Role.ROUTER, own.index.heads, hidden)


def _gated(role: Role, width: int, hidden: int, copies: int, split: Split) -> Iterator[Weight]:
    yield Weight(role, 2 * width, hidden, copies, split)
    yield Weight(role, hidden, width, copies, split)


def _dense(own: Dense, hidden: int) -> Iterator[Weight]:
    yield from _gated(Role.DENSE, own.width, hidden, 1, Split.WIDTH)
    if own.bias:
        yield Weight(Role.SMALL, 2 * own.width + hidden)


def _experts(own: Experts, hidden: int) -> Iterator[Weight]:
    yield Weight(Role.ROUTER, own.count, hidden)
    yield from _gated(Role.EXPERT, own.width, hidden, own.count, Split.EXPERTS)
    if own.shared_width:
        yield from _gated(Role.SHARED, own.shared_width, hidden, 1, Split.WIDTH)
    if own.shared_gate:
        yield Weight(Role.SMALL, hidden)


def met(weight: Weight, feed: Dense | Experts, tokens: float) -> Weight:
    """What `tokens` tokens together meet of a weight: experts are drawn alike and independently."""
    if weight.role is not Role.EXPERT or not isinstance(feed, Experts):
        return weight
    share = 1.0 - (1.0 - feed.active / feed.count) ** tokens
    return replace(weight, copies=max(feed.active, round(feed.count * share)))
