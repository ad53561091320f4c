"""The drawing's geometry: edges point down, nothing overlaps, and it is the same every time."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.cli.layering import HEIGHT, draw


@st.composite
def graphs(draw_: st.DrawFn) -> tuple[list[float], list[tuple[int, int]]]:
    count = draw_(st.integers(1, 25))
    widths = draw_(st.lists(st.floats(20, 200), min_size=count, max_size=count))
    pairs = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1))
    edges = draw_(st.lists(pairs, max_size=40))
    return widths, [(min(e), max(e)) for e in edges if e[0] != e[1]]


@given(graphs())
def test_edges_point_down_and_boxes_do_not_overlap(
    graph: tuple[list[float], list[tuple[int, int]]],
) -> None:
    widths, edges = graph

    drawing = draw(widths, edges)

    for source, target in edges:
        assert drawing.centres[source][1] < drawing.centres[target][1]
    for a, b in combinations(range(len(widths)), 2):
        (ax, ay), (bx, by) = drawing.centres[a], drawing.centres[b]
        apart = abs(ax - bx) - (widths[a] + widths[b]) / 2
        assert abs(ay - by) >= HEIGHT or apart > 1
    for node, (x, y) in drawing.centres.items():
        assert widths[node] / 2 - 0.01 <= x <= drawing.width - widths[node] / 2 + 0.01
        assert 0 <= y <= drawing.height
    assert draw(widths, edges) == drawing


def test_a_long_edge_bends_around_what_is_between() -> None:
    drawing = draw([50.0] * 4, [(0, 1), (1, 2), (2, 3), (0, 3)])

    bends = drawing.bends[(0, 3)]
    assert len(bends) == 2
    for x, y in bends:
        assert all(abs(x - cx) > 25 for cx, cy in drawing.centres.values() if cy == y)


def test_a_chain_beside_long_edges_stays_straight() -> None:
    edges = [(i, i + 1) for i in range(40)] + [(i, i + 3) for i in range(0, 37, 3)]

    drawing = draw([60.0] * 41, edges)

    xs = [x for x, _ in drawing.centres.values()]
    assert max(xs) - min(xs) < 30


def test_nothing_is_drawn_of_nothing() -> None:
    assert draw([], []).width == pytest.approx(0.0)
