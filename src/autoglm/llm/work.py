"""Arithmetic and traffic of one prefill and of one decode step, on one device of a layout."""

from __future__ import annotations

from dataclasses import dataclass

from autoglm.llm.architecture import Architecture, Attention, Layer
from autoglm.llm.memory import CHUNK, cache_bytes, cached_tokens, index_bytes
from autoglm.llm.split import Layout, stage_weights, stages
from autoglm.llm.storage import Storage
from autoglm.llm.weights import Role, layer_counts, layer_weights, met

_MULTIPLIED = frozenset({Role.ATTENTION, Role.DENSE, Role.EXPERT, Role.SHARED, Role.ROUTER})


@dataclass(frozen=True, slots=True)
class StepWork:
    """FLOPs and bytes of one device, and what it sends; pipeline stages one after another."""

    flops: float
    read_bytes: float
    sent_bytes: float
    collectives: int  # how often it waits for the others
    layers: int  # kernels' launches are counted by layer


def prefill_work(arch: Architecture, storage: Storage, layout: Layout, tokens: int) -> StepWork:
    """A whole prompt in chunks; every chunk reads all weights again."""
    chunks = -(-tokens // CHUNK)
    flops = tokens * token_flops(arch) + head_flops(arch)
    for layer, count in layer_counts(arch).items():
        own = layer.attention
        seen = own.index.most if own.index else own.window
        flops += count * prompt_pairs(tokens, seen) * pair_flops(own, latent=False)
        flops += count * prompt_pairs(tokens, 0) * index_flops(own)
    sent, waits = _sent(arch, storage, layout, tokens)
    read = chunks * _weights_read(arch, storage, layout, min(tokens, CHUNK))
    layers = chunks * len(arch.layers)
    return StepWork(flops / layout.tensor, read, sent, chunks * waits, layers)


def decode_work(
    arch: Architecture, storage: Storage, layout: Layout, context: int, sequences: int
) -> StepWork:
    """One token for each of `sequences` that have `context` tokens behind them."""
    flops = sequences * (token_flops(arch) + head_flops(arch))
    cache = 0
    for layer, count in layer_counts(arch).items():
        own = layer.attention
        kept = cached_tokens(own, context)
        seen = min(kept, own.index.most) if own.index else kept
        pairs = seen * pair_flops(own, latent=True) + kept * index_flops(own)
        flops += sequences * count * pairs
        size = seen * cache_bytes(own, storage.value_bytes, layout.tensor)
        size += kept * index_bytes(own, storage.value_bytes)
        cache += sequences * count * size
    sent, waits = _sent(arch, storage, layout, sequences)
    read = _weights_read(arch, storage, layout, sequences) + cache
    return StepWork(flops / layout.tensor, read, sent, waits, len(arch.layers))


def token_flops(arch: Architecture) -> float:
    """FLOPs of one token in the matrices of the layers, attention's own products apart."""
    found = 0.0
    for layer, count in layer_counts(arch).items():
        weights = (met(w, layer.feed, 1) for w in layer_weights(layer, arch.hidden))
        found += count * sum(2.0 * w.elements for w in weights if w.role in _MULTIPLIED)
    return found


def head_flops(arch: Architecture) -> float:
    """FLOPs of one token's logits."""
    return 2.0 * arch.vocabulary * arch.hidden


def pair_flops(own: Attention, *, latent: bool) -> float:
    """FLOPs of one query against one key and its value; decoding works on MLA's latent itself."""
    if own.latent and latent:
        return 2.0 * own.heads * (2 * own.latent + own.rope_dim)
    return 2.0 * own.heads * (own.qk_dim + own.v_dim)


def index_flops(own: Attention) -> float:
    """FLOPs of scoring one earlier token for the index of a layer."""
    return 2.0 * own.index.heads * own.index.width if own.index and own.index.own else 0.0


def prompt_pairs(tokens: int, window: int) -> float:
    """Pairs of query and key that a causal prompt has: half of the square, or a band of it."""
    if not window or tokens <= window:
        return tokens * (tokens + 1) / 2
    return window * (window + 1) / 2 + (tokens - window) * window


def sent_each_layer(arch: Architecture, storage: Storage, tensor: int) -> float:
    """Bytes that a device sends for one token in one layer: two all-reduces around a ring."""
    return 2 * 2 * (tensor - 1) / tensor * arch.hidden * storage.value_bytes


def _sent(arch: Architecture, storage: Storage, layout: Layout, tokens: int) -> tuple[float, int]:
    """Bytes sent for that many tokens, and how often they are waited for."""
    layers, hops = len(arch.layers), layout.pipeline - 1
    shared = layers * sent_each_layer(arch, storage, layout.tensor)
    handed = hops * arch.hidden * storage.value_bytes
    waits = (2 * layers if layout.tensor > 1 else 0) + hops
    return tokens * (shared + handed), waits


def _weights_read(arch: Architecture, storage: Storage, layout: Layout, tokens: int) -> float:
    """Bytes of weights that a step of `tokens` reads; of the embedding its rows alone count."""
    found = float(tokens * arch.hidden * storage.value_bytes)
    if arch.tied:  # the head reads the whole table
        found += arch.vocabulary * arch.hidden * storage.value_bytes / layout.tensor
    feeds = {w: layer for layer in layer_counts(arch) for w in layer_weights(layer, arch.hidden)}
    for stage in stages(arch, layout.pipeline):
        for weight, share in stage_weights(arch, stage, layout.tensor):
            if weight.role is Role.EMBEDDING:
                continue
            owner: Layer | None = feeds.get(weight)
            read = met(weight, owner.feed, tokens) if owner else weight
            found += storage.bytes_of(read) * share
    return found
