"""A model over several devices: what divides it, and what each device then holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from autoglm.llm.architecture import Architecture, Attention, Dense, Experts, Layer
from autoglm.llm.storage import Storage
from autoglm.llm.weights import Split, Weight, embedding, head, layer_counts, layer_weights
from autoglm.messages import tr


@dataclass(frozen=True, slots=True)
class Layout:
    """`tensor` devices share every layer; `pipeline` groups of them take the layers in turn."""

    tensor: int = 1
    pipeline: int = 1

    def __str__(self) -> str:
        return f"{self.tensor}×{self.pipeline}"


@dataclass(frozen=True, slots=True)
class Stage:
    """Consecutive layers of one pipeline group, by kind, and whether it has the model's ends."""

    layers: tuple[tuple[Layer, int], ...]
    first: bool
    last: bool


def layouts(devices: int) -> Iterator[Layout]:
    """Every way to arrange that many devices, the most sharing first."""
    for tensor in range(devices, 0, -1):
        if devices % tensor == 0:
            yield Layout(tensor, devices // tensor)


def obstacle(arch: Architecture, layout: Layout) -> str:
    """Why the model cannot be split so; "" where it can."""
    n = layout.tensor
    if layout.pipeline > len(arch.layers):
        return tr(
            "{layers} layers do not fill {n} stages", layers=len(arch.layers), n=layout.pipeline
        )
    for layer in layer_counts(arch):
        own, feed = layer.attention, layer.feed
        if own.heads % n:
            return tr("{n} devices do not divide {heads} heads", n=n, heads=own.heads)
        if not own.latent and own.kv_heads % n and n % own.kv_heads:
            return tr("{n} devices do not divide {heads} key-value heads", n=n, heads=own.kv_heads)
        if isinstance(feed, Experts) and feed.count % n and feed.width % n:
            return tr("{n} devices do not divide {count} experts", n=n, count=feed.count)
        if isinstance(feed, Dense) and feed.width % n:
            return tr("{n} devices do not divide the width {width}", n=n, width=feed.width)
    return ""


def stages(arch: Architecture, pipeline: int) -> tuple[Stage, ...]:
    """The layers in `pipeline` runs of nearly equal length."""
    total = len(arch.layers)
    cuts = [total * i // pipeline for i in range(pipeline + 1)]
    return tuple(
        Stage(tuple(Counter(arch.layers[start:end]).items()), first=start == 0, last=end == total)
        for start, end in pairwise(cuts)
    )


def stage_weights(arch: Architecture, stage: Stage, tensor: int) -> Iterator[tuple[Weight, float]]:
    """Every weight of a stage, and how often one of its `tensor` devices holds it."""
    if stage.first:
        yield embedding(arch), 1 / tensor
    if stage.last:
        if arch.tied and not stage.first:
            yield embedding(arch), 1 / tensor
        for weight in head(arch):
            yield weight, _share(weight, None, tensor)
    for layer, count in stage.layers:
        for weight in layer_weights(layer, arch.hidden):
            yield weight, count * _share(weight, layer.attention, tensor)


def stage_bytes(arch: Architecture, stage: Stage, storage: Storage, tensor: int) -> float:
    """Bytes of the weights that one device of a stage holds."""
    return sum(storage.bytes_of(w) * share for w, share in stage_weights(arch, stage, tensor))


def kv_heads(own: Attention, tensor: int) -> int:
    """Key-value heads that one of `tensor` devices keeps; fewer heads than devices are copied."""
    return -(-own.kv_heads // tensor)


def _share(weight: Weight, own: Attention | None, tensor: int) -> float:
    if weight.split is Split.WHOLE:
        return 1.0
    if weight.split is Split.KV_HEADS and own is not None:
        return kv_heads(own, tensor) / own.kv_heads
    return 1 / tensor
