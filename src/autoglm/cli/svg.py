"""The plan drawn: one inline SVG, boxes coloured by backend, with reasons and prices on hover."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from autoglm.cli.blocks import Block, blocks_of
from autoglm.cli.html import text
from autoglm.cli.layering import HEIGHT, Drawing, draw
from autoglm.cli.words import seconds, size
from autoglm.plan.graph import Graph
from autoglm.spec import Boundary, Plan

MARGIN = 16.0
_CHARACTER = 6.9
_PALETTE = 6


def colours(plan: Plan) -> dict[str, int]:
    """Backend -> number of its colour; the one asked for comes first."""
    names = dict.fromkeys([plan.backend, *(p.backend for p in plan.partitions)])
    used = [n for n in names if any(p.backend == n for p in plan.partitions)]
    return {name: i % _PALETTE for i, name in enumerate(used)}


def svg(graph: Graph, plan: Plan) -> str:
    """The graph by partition; every text in it is escaped."""
    blocks, edges = blocks_of(graph, plan)
    if not blocks:
        return ""
    widths = [max(54.0, len(_short(b.label)) * _CHARACTER + 22) for b in blocks]
    drawing = draw(widths, edges)
    hue, backend = colours(plan), {p.id: p.backend for p in plan.partitions}
    crossings = _crossings(plan)
    parts = [_edge(drawing, edge, blocks, crossings) for edge in sorted(set(edges))]
    parts += [
        _box(i, block, drawing, widths[i], hue.get(backend.get(block.partition, ""), -1), backend)
        for i, block in enumerate(blocks)
    ]
    width, height = drawing.width + 2 * MARGIN, drawing.height + 2 * MARGIN
    return (
        '<svg id="graph" xmlns="http://www.w3.org/2000/svg" role="img" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" '
        f'data-width="{width:.0f}" data-height="{height:.0f}" '
        f'data-first="{drawing.centres[0][0] + MARGIN:.0f}">'
        f'<g id="scene" transform="translate({MARGIN:.0f} {MARGIN:.0f})">{"".join(parts)}</g></svg>'
    )


def _short(label: str, most: int = 34) -> str:
    label = label.rpartition("::")[2]
    return label if len(label) <= most else label[: most - 1] + "…"


def _crossings(plan: Plan) -> dict[tuple[str, str], list[Boundary]]:
    found: dict[tuple[str, str], list[Boundary]] = {}
    for boundary in plan.boundaries:
        found.setdefault((boundary.producer, boundary.consumer), []).append(boundary)
    return found


def _edge(
    drawing: Drawing,
    edge: tuple[int, int],
    blocks: Sequence[Block],
    crossings: Mapping[tuple[str, str], Sequence[Boundary]],
) -> str:
    source, target = edge
    (x0, y0), (x1, y1) = drawing.centres[source], drawing.centres[target]
    points = [(x0, y0 + HEIGHT / 2), *drawing.bends[edge], (x1, y1 - HEIGHT / 2)]
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (ax, ay), (bx, by) in pairwise(points):
        middle = (ay + by) / 2
        path += f"C{ax:.1f} {middle:.1f} {bx:.1f} {middle:.1f} {bx:.1f} {by:.1f}"
    ends = (blocks[source].partition, blocks[target].partition)
    if ends[0] == ends[1]:
        return f'<path class="e" d="{path}"/>'
    title = "\n".join(
        f"{b.tensor}: {b.kind}, {size(b.bytes)}, {seconds(b.seconds)}"
        for b in crossings.get(ends, ())[:8]
    )
    return f'<path class="e cross" d="{path}"><title>{text(title)}</title></path>'


def _box(
    number: int,
    block: Block,
    drawing: Drawing,
    width: float,
    hue: int,
    backend: Mapping[str, str],
) -> str:
    x, y = drawing.centres[number]
    where = f"{block.partition} · {backend[block.partition]}" if block.partition in backend else "–"
    names = ", ".join(block.nodes[:4]) + ("…" if len(block.nodes) > 4 else "")
    title = "\n".join([f"{block.label}  {names}", where, *block.lines])
    css = f"n h{hue}" + (f" {block.alarm}" if block.alarm else "")
    return (
        f'<g class="{css}" data-p="{text(block.partition)}" data-i="{number}" '
        f'transform="translate({x - width / 2:.1f} {y - HEIGHT / 2:.1f})" tabindex="0">'
        f"<title>{text(title)}</title>"
        f'<rect width="{width:.1f}" height="{HEIGHT:.0f}" rx="6"/>'
        f'<text x="{width / 2:.1f}" y="{HEIGHT / 2 + 4:.1f}">{text(_short(block.label))}</text>'
        "</g>"
    )
