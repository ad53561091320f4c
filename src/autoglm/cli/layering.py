"""A layered drawing of a directed acyclic graph: ranks, order within a rank, then coordinates.

The classical recipe (Sugiyama): long edges get a bend per rank, the mean position of neighbours
orders each rank, and a few sweeps straighten the edges. Pure and deterministic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

GAP_X = 18.0
STEP_Y = 52.0
HEIGHT = 28.0
_SWEEPS = 8
_BEND = 6.0


@dataclass(frozen=True, slots=True)
class Drawing:
    """Centres of nodes, the bends of each edge, and the size of it all."""

    centres: Mapping[int, tuple[float, float]]
    bends: Mapping[tuple[int, int], tuple[tuple[float, float], ...]]
    width: float
    height: float


def draw(widths: Sequence[float], edges: Sequence[tuple[int, int]]) -> Drawing:
    """Place nodes 0..n-1 of the given widths; every edge goes from a lower to a higher number."""
    edges = sorted(set(edges))
    ranks = _ranks(len(widths), edges)
    wide = list(widths)
    links, chains = _with_bends(wide, edges, ranks)
    layers: list[list[int]] = [[] for _ in range(max(ranks, default=0) + 1)]
    for node, rank in enumerate(ranks):
        layers[rank].append(node)
    up, down = _neighbours(len(wide), links)
    _order(layers, up, down)
    xs = _straighten(layers, up, down, wide)
    left = min((x - w / 2 for x, w in zip(xs, wide, strict=True)), default=0.0)
    xs = [x - left for x in xs]
    ys = [rank * STEP_Y + HEIGHT / 2 for rank in ranks]
    return Drawing(
        centres={n: (xs[n], ys[n]) for n in range(len(widths))},
        bends={e: tuple((xs[b], ys[b]) for b in chain) for e, chain in chains.items()},
        width=max((x + w / 2 for x, w in zip(xs, wide, strict=True)), default=0.0),
        height=max(ys, default=0.0) + HEIGHT / 2,
    )


def _ranks(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    ranks = [0] * count
    for source, target in edges:  # sorted by source, so a source's rank is final when it is read
        ranks[target] = max(ranks[target], ranks[source] + 1)
    # A source node moves down to just above what reads it: constants do not pile up at the top.
    nearest: dict[int, int] = {}
    fed = {target for _, target in edges}
    for source, target in edges:
        nearest[source] = min(nearest.get(source, ranks[target]), ranks[target])
    return [nearest[n] - 1 if n in nearest and n not in fed else r for n, r in enumerate(ranks)]


def _with_bends(
    wide: list[float], edges: Sequence[tuple[int, int]], ranks: list[int]
) -> tuple[list[tuple[int, int]], dict[tuple[int, int], list[int]]]:
    """Split edges over several ranks; appends the bends to `wide` and `ranks`."""
    links: list[tuple[int, int]] = []
    chains: dict[tuple[int, int], list[int]] = {}
    for source, target in edges:
        chain, last = [], source
        for rank in range(ranks[source] + 1, ranks[target]):
            bend = len(wide)
            wide.append(_BEND)
            ranks.append(rank)
            links.append((last, bend))
            chain.append(bend)
            last = bend
        links.append((last, target))
        chains[(source, target)] = chain
    return links, chains


def _neighbours(
    count: int, links: Sequence[tuple[int, int]]
) -> tuple[list[list[int]], list[list[int]]]:
    up: list[list[int]] = [[] for _ in range(count)]
    down: list[list[int]] = [[] for _ in range(count)]
    for source, target in links:
        down[source].append(target)
        up[target].append(source)
    return up, down


def _order(layers: list[list[int]], up: list[list[int]], down: list[list[int]]) -> None:
    place = {node: float(i) for layer in layers for i, node in enumerate(layer)}
    for sweep in range(_SWEEPS):
        near = down if sweep % 2 else up
        for layer in reversed(layers) if sweep % 2 else layers:
            mean = {
                n: sum(place[m] for m in near[n]) / len(near[n]) if near[n] else place[n]
                for n in layer
            }
            layer.sort(key=lambda n: mean[n])
            place.update((n, float(i)) for i, n in enumerate(layer))


def _straighten(
    layers: list[list[int]], up: list[list[int]], down: list[list[int]], wide: Sequence[float]
) -> list[float]:
    xs = [0.0] * len(wide)
    for layer in layers:
        at = 0.0
        for node in layer:
            xs[node] = at + wide[node] / 2
            at += wide[node] + GAP_X
    for sweep in range(_SWEEPS):
        near = down if sweep % 2 else up
        for layer in reversed(layers) if sweep % 2 else layers:
            wish = [_mean(near[n], xs, wide) if near[n] else xs[n] for n in layer]
            for node, x in zip(layer, _spread(layer, wish, wide), strict=True):
                xs[node] = x
    return xs


def _weight(width: float) -> float:
    # Bends give way to boxes, or a long edge would push the chain beside it aside at every rank.
    return 1.0 if width <= _BEND else 50.0


def _mean(nodes: Sequence[int], xs: Sequence[float], wide: Sequence[float]) -> float:
    total = sum(_weight(wide[n]) for n in nodes)
    return sum(xs[n] * _weight(wide[n]) for n in nodes) / total


def _spread(layer: Sequence[int], wish: Sequence[float], wide: Sequence[float]) -> list[float]:
    """Positions nearest to the wishes (least squares) that keep the order and do not overlap."""
    offsets = [0.0] if layer else []
    for left, right in pairwise(layer):
        offsets.append(offsets[-1] + (wide[left] + wide[right]) / 2 + GAP_X)
    blocks: list[tuple[float, float, int]] = []
    for node, x, offset in zip(layer, wish, offsets, strict=True):
        mean, weight, count = x - offset, _weight(wide[node]), 1
        while blocks and blocks[-1][0] > mean:
            before, heavy, size = blocks.pop()
            mean = (mean * weight + before * heavy) / (weight + heavy)
            weight, count = weight + heavy, count + size
        blocks.append((mean, weight, count))
    starts = [mean for mean, _, count in blocks for _ in range(count)]
    return [start + offset for start, offset in zip(starts, offsets, strict=True)]
