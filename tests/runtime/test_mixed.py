"""Segments: cut where little crosses, in about equal work, and never lose a node."""

from __future__ import annotations

from autoglm.plan import Wiring, make_graph
from autoglm.runtime.mixed import segments
from autoglm.spec import NodeFacts, ValueFacts

SHAPE = (8, 64, 64)


def chain(length: int, *, skip: bool = False) -> object:
    value = ValueFacts("float32", SHAPE)
    weight = ValueFacts("float32", (64, 64), constant=True)
    facts, wiring = [], []
    for i in range(length):
        facts.append(NodeFacts(f"n{i}", "MatMul", 13, (value, weight), (value,)))
        reads = (f"t{i - 1}" if i else "x", *(("t0",) if skip and i > 1 else ()))
        wiring.append(Wiring(reads, (f"t{i}",), (f"w{i}",)))
    weights = {f"w{i}": 64 * 64 * 4 for i in range(length)}
    return make_graph(
        facts, wiring, inputs={"x": value}, outputs=[f"t{length - 1}"], weights=weights
    )


def test_every_node_is_in_exactly_one_segment_in_order() -> None:
    pieces = segments(chain(20))

    assert [n for p in pieces for n in p.nodes] == [f"n{i}" for i in range(20)]
    assert len(pieces) == 6


def test_what_crosses_a_cut_is_named() -> None:
    pieces = segments(chain(12))

    for piece in pieces[:-1]:
        last = int(piece.nodes[-1][1:])
        assert piece.leaves == (f"t{last}",)
    assert pieces[-1].leaves == ()


def test_a_tensor_read_by_all_later_nodes_crosses_every_cut() -> None:
    pieces = segments(chain(12, skip=True))

    assert all("t0" in p.leaves for p in pieces[1:-1])


def test_a_single_node_is_one_segment() -> None:
    assert len(segments(chain(1))) == 1
