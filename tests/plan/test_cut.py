"""The minimum cut, against every cut there is."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from autoglm.plan.cut import Network, sink_side


@st.composite
def networks(draw: st.DrawFn) -> tuple[list[int], list[int], list[tuple[int, int, int]]]:
    size = draw(st.integers(1, 7))
    some = st.integers(0, 12)
    supply = draw(st.lists(some, min_size=size, max_size=size))
    demand = draw(st.lists(some, min_size=size, max_size=size))
    ends = st.integers(0, size - 1)
    arcs = draw(st.lists(st.tuples(ends, ends, some).filter(lambda a: a[0] != a[1]), max_size=16))
    return supply, demand, arcs


def cost(
    side: tuple[bool, ...], supply: list[int], demand: list[int], arcs: list[tuple[int, int, int]]
) -> int:
    nodes = sum(supply[v] if sink else demand[v] for v, sink in enumerate(side))
    return nodes + sum(c for a, b, c in arcs if not side[a] and side[b])


@given(networks())
def test_no_cut_is_cheaper_and_no_cheapest_one_has_fewer_on_the_sinks_side(
    parts: tuple[list[int], list[int], list[tuple[int, int, int]]],
) -> None:
    supply, demand, arcs = parts
    network = Network()
    for s, d in zip(supply, demand, strict=True):
        place = network.node()
        network.supply[place], network.demand[place] = s, d
    for arc in arcs:
        network.link(*arc)

    found = tuple(sink_side(network))

    every = list(product((False, True), repeat=len(supply)))
    best = min(cost(side, *parts) for side in every)
    assert cost(found, *parts) == best
    assert sum(found) == min(sum(side) for side in every if cost(side, *parts) == best)


def test_a_long_chain_with_one_narrow_place_is_cut_there() -> None:
    size = 3000
    network = Network()
    for _ in range(size):
        network.node()
    network.supply[0], network.demand[size - 1] = 1000, 1000
    for v in range(size - 1):
        network.link(v, v + 1, 1 if v == 1234 else 10)

    side = sink_side(network)

    assert side.index(True) == 1235
    assert all(side[1235:])
