"""Memory of one device: weights, key-value cache and workspace; what fits beside what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autoglm.llm.architecture import Architecture, Attention, Dense, Layer
from autoglm.llm.split import Layout, Stage, kv_heads, stage_bytes, stages
from autoglm.llm.storage import Storage

# Share of a device's memory that an engine takes: vLLM's gpu_memory_utilization is 0.9; the rest
# is the driver's, the runtime's and fragmentation's.
USABLE = 0.9
BLOCK = 16  # tokens that a paged cache hands out at once (vLLM's block_size on most devices)
CHUNK = 2048  # tokens of one prefill step; longer prompts go in chunks of it
MOST_SEQUENCES = 1 << 16


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked: `sequences` at a time, each of at most `context` tokens."""

    context: int
    sequences: int


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes on the fullest device."""

    weights: int
    cache: int
    workspace: int

    @property
    def total(self) -> int:
        """All together."""
        return self.weights + self.cache + self.workspace


@dataclass(frozen=True, slots=True)
class Held:
    """What one device of a stage holds: fixed, for each token kept, for each token of a step."""

    weights: int
    caches: tuple[tuple[int, Attention], ...]  # bytes that a kept token takes, by kind of layer
    step_bytes: int  # of activations, for each token of a prefill step
    logits_bytes: int  # for each sequence

    def need(self, load: Load) -> Need:
        """Bytes under that load."""
        kept = sum(size * cached_tokens(own, load.context) for size, own in self.caches)
        step = self.step_bytes * min(load.context, CHUNK)
        logits = self.logits_bytes * load.sequences
        return Need(self.weights, kept * load.sequences, step + logits)


def held(arch: Architecture, storage: Storage, layout: Layout) -> tuple[Held, ...]:
    """What a device of each stage holds."""
    return tuple(
        _held(arch, stage, storage, layout.tensor) for stage in stages(arch, layout.pipeline)
    )


def need(each: tuple[Held, ...], load: Load) -> Need:
    """What the fullest device holds under that load."""
    return max((one.need(load) for one in each), key=lambda found: found.total)


def room(memory_bytes: int) -> int:
    """Bytes that an engine takes of a device's memory."""
    return int(memory_bytes * USABLE)


def largest_context(each: tuple[Held, ...], sequences: int, free: int, most: int) -> int:
    """Tokens that each of `sequences` may have, `most` at most; 0 where none."""
    return _largest(lambda n: need(each, Load(n, sequences)).total <= free, most)


def largest_concurrency(each: tuple[Held, ...], context: int, free: int) -> int:
    """Sequences of `context` tokens that fit at once; 0 where none."""
    return _largest(lambda n: need(each, Load(context, n)).total <= free, MOST_SEQUENCES)


def cache_bytes(own: Attention, value_bytes: int, tensor: int = 1) -> int:
    """Bytes of the cache that one token adds in one layer, on one device; an index's apart."""
    if own.latent:  # every device of the group keeps the whole latent
        return (own.latent + own.rope_dim) * value_bytes
    return kv_heads(own, tensor) * (own.qk_dim + own.v_dim) * value_bytes


def index_bytes(own: Attention, value_bytes: int) -> int:
    """Bytes that one token adds for the index of a layer."""
    return own.index.width * value_bytes if own.index and own.index.own else 0


def cached_tokens(own: Attention, context: int) -> int:
    """Tokens of a sequence that one layer keeps, in whole blocks."""
    kept = min(context, own.window) if own.window else context
    return -(-kept // BLOCK) * BLOCK


def sequence_bytes(arch: Architecture, context: int, value_bytes: int) -> int:
    """Bytes of the whole cache of one sequence, on one device without a split."""
    return sum(
        _kept(layer.attention, value_bytes) * cached_tokens(layer.attention, context)
        for layer in arch.layers
    )


def token_bytes(arch: Architecture, value_bytes: int) -> int:
    """Bytes of the cache that one token adds, before any window is full."""
    return sum(_kept(layer.attention, value_bytes) for layer in arch.layers)


def _kept(own: Attention, value_bytes: int, tensor: int = 1) -> int:
    return cache_bytes(own, value_bytes, tensor) + index_bytes(own, value_bytes)


def step_bytes(arch: Architecture, layer: Layer, value_bytes: int, tensor: int = 1) -> int:
    """Activations of one token in a prefill step, on one device; attention needs no square.

    The residual stream and its normed copy stay; beside them lie the inputs and outputs of the
    widest part of the layer.
    """
    own, feed = layer.attention, layer.feed
    attention = own.heads * (own.qk_dim + own.v_dim) // tensor
    attention += kv_heads(own, tensor) * (own.qk_dim + own.v_dim)
    width = feed.width if isinstance(feed, Dense) else feed.active * feed.width + feed.shared_width
    return (4 * arch.hidden + max(attention, 3 * width // tensor)) * value_bytes


def _held(arch: Architecture, stage: Stage, storage: Storage, tensor: int) -> Held:
    size = storage.value_bytes
    caches = tuple(
        (count * _kept(layer.attention, size, tensor), layer.attention)
        for layer, count in stage.layers
    )
    # Logits are kept once in the model's precision and once in fp32.
    logits = arch.vocabulary * (size + 4) // tensor if stage.last else 0
    return Held(
        round(stage_bytes(arch, stage, storage, tensor)),
        caches,
        max(step_bytes(arch, layer, size, tensor) for layer, _ in stage.layers),
        logits,
    )


def _largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest number from 1 to `most` that fits, where fewer always fit too; 0 = none."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low
