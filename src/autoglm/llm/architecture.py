"""A decoder-only language model as its config.json describes it: plain data, sizes in elements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Index:
    """Sparse attention: a small scorer over all tokens picks the `most` that are attended to."""

    heads: int
    width: int  # of one head, and of the key that is kept for each token
    most: int
    own: bool  # False: this layer takes what an earlier one picked


@dataclass(frozen=True, slots=True)
class Attention:
    """Attention of one layer; with `latent`, keys and values are kept as one latent (MLA)."""

    heads: int
    kv_heads: int
    qk_dim: int  # of one head's query and key
    v_dim: int  # of one head's value
    bias: bool = False  # of the projections to q, k, v; with `latent` of the two that go down
    output_bias: bool = False
    qk_norm: bool = False  # a norm of each head's query and key
    window: int = 0  # tokens that are seen back; 0 = all
    latent: int = 0  # MLA: width of the kept latent
    rope_dim: int = 0  # MLA: width of the rotary key beside it
    query_rank: int = 0  # MLA: the query's own bottleneck; 0 = none
    index: Index | None = None


@dataclass(frozen=True, slots=True)
class Dense:
    """A gated feed-forward network (gate, up, down) of one layer."""

    width: int
    bias: bool = False


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts: `active` of `count` run for a token, the shared one always."""

    count: int
    active: int
    width: int
    shared_width: int = 0
    shared_gate: bool = False


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer; `norms` are those of the residual stream."""

    attention: Attention
    feed: Dense | Experts
    norms: int = 2


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary position embedding: plain, or stretched by `factor`."""

    kind: str = "default"  # default, linear, dynamic, yarn, llama3, longrope, mrope
    theta: float = 10_000.0
    factor: float = 1.0
    original: int = 0  # positions before it was stretched; 0 = not said
    fraction: float = 1.0  # of a head that is rotated


@dataclass(frozen=True, slots=True)
class Architecture:
    """What the plan is made from."""

    model_type: str
    hidden: int
    vocabulary: int
    layers: tuple[Layer, ...]
    tied: bool  # the head is the embedding
    context: int  # positions, stretching included
    rope: Rope
    dtype: str  # of the checkpoint: fp32, bf16, fp16
    # quantization_config as it stands
    quantization: Mapping[str, object] | None = field(default=None, hash=False)
    spare_layers: int = 0  # multi-token prediction: in the checkpoint, not in the plan
    parts: tuple[str, ...] = ()  # of a multimodal model: what is not planned here
