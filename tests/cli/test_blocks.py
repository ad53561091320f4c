"""Few nodes are drawn each; many as runs, then as partitions."""

from __future__ import annotations

from sample_report import chain, layers, report

from autoglm.cli.blocks import blocks_of


def test_few_nodes_are_drawn_one_by_one_with_reason_and_price() -> None:
    found = report(layers(2))

    blocks, edges = blocks_of(found.graph, found.plan)

    assert [b.nodes for b in blocks] == [(n.name,) for n in found.graph.nodes]
    erf = next(b for b in blocks if b.nodes == ("layer.0/erf",))
    assert erf.alarm == "fallback"
    assert any("not in npu toolkit 7.1's table" in line for line in erf.lines)
    assert any("fallback to onnxruntime, price" in line for line in erf.lines)
    assert len(edges) >= len(blocks) - 1


def test_long_runs_become_one_box() -> None:
    found = report(chain(2000))

    blocks, edges = blocks_of(found.graph, found.plan)

    assert (len(blocks), edges) == (1, [])
    assert blocks[0].label == "2000 × Add"


def test_large_graphs_are_drawn_by_partition_and_keep_every_node() -> None:
    found = report(layers(60))

    blocks, edges = blocks_of(found.graph, found.plan)

    drawn = [name for block in blocks for name in block.nodes]
    assert sorted(drawn) == sorted(n.name for n in found.graph.nodes)
    assert len(blocks) < len(found.graph.nodes)
    assert all(a < b for a, b in edges)


def test_a_node_that_nothing_takes_is_marked() -> None:
    found = report(layers(1), policy="error")

    blocks, _ = blocks_of(found.graph, found.plan)

    marked = {b.nodes[0] for b in blocks if b.alarm == "unplaced"}
    assert marked == set(found.plan.unplaced)
    assert marked
