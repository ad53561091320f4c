"""FLOPs and bytes, against figures worked out by hand."""

from __future__ import annotations

import pytest
from plan.graphs import node, value

from autoglm.catalog.work import Work, value_bytes, work_of
from autoglm.spec import NodeFacts, ValueFacts


def work(facts: NodeFacts, trips: int = 1) -> Work:
    return work_of(
        facts, lambda v: tuple(d for d in v.shape or () if isinstance(d, int)), trips=trips
    )


@pytest.mark.parametrize(
    ("facts", "flops"),
    [
        (
            node("m", "MatMul", [value(2, 8, 16), value(16, 32)], value(2, 8, 32)),
            2 * 2 * 8 * 16 * 32,
        ),
        (node("g", "Gemm", [value(4, 8), value(8, 3)], value(4, 3)), 2 * 4 * 8 * 3 + 12),
        (node("g", "Gemm", [value(8, 4), value(8, 3)], value(4, 3), transA=1), 2 * 4 * 8 * 3 + 12),
        # ResNet-50's first layer: 118.0 million multiply-adds.
        (
            node("c", "Conv", [value(1, 3, 224, 224), value(64, 3, 7, 7)], value(1, 64, 112, 112)),
            2 * 118_013_952,
        ),
        # Depthwise: 32 groups of one channel each.
        (
            node(
                "d", "Conv", [value(1, 32, 8, 8), value(32, 1, 3, 3)], value(1, 32, 8, 8), group=32
            ),
            2 * 32 * 64 * 9,
        ),
        (
            node("t", "ConvTranspose", [value(1, 4, 5, 5), value(4, 2, 3, 3)], value(1, 2, 7, 7)),
            2 * 4 * 25 * 2 * 9,
        ),
        (
            node(
                "l", "LSTM", [value(7, 2, 5), value(1, 12, 5), value(1, 12, 3)], value(7, 1, 2, 3)
            ),
            2 * 7 * 2 * 12 * (5 + 3),
        ),
        (
            node(
                "e",
                "Einsum",
                [value(2, 3, 4), value(2, 4, 5)],
                value(2, 3, 5),
                equation="bij, bjk -> bik",
            ),
            2 * 2 * 3 * 4 * 5,
        ),
        (node("p", "MaxPool", [value(1, 2, 8, 8)], value(1, 2, 4, 4), kernel_shape=(2, 2)), 32 * 4),
        (node("a", "Add", [value(10), value(10)], value(10)), 10),
        (node("x", "Exp", [value(10)], value(10)), 100),
        (node("r", "ReduceSum", [value(4, 5)], value(4)), 20),
        (node("s", "Reshape", [value(4, 5), value(1)], value(20)), 0),
        (node("n", "NotAnOperatorYet", [value(3)], value(6)), 6),
    ],
    ids=lambda v: v.op if isinstance(v, NodeFacts) else "",
)
def test_flops(facts: NodeFacts, flops: float) -> None:
    assert work(facts).flops == flops


def test_bytes_are_inputs_read_and_outputs_written() -> None:
    found = work(node("m", "MatMul", [value(8, 16), value(16, 32)], value(8, 32)))

    assert (found.bytes_read, found.bytes_written) == (4 * (128 + 512), 4 * 256)
    assert found.gemm


def test_a_view_moves_nothing_and_a_gather_reads_what_it_gives() -> None:
    table, chosen = value(30_000, 384), value(1, 128, 384)

    assert work(node("v", "Reshape", [table], table)).bytes_read == 0
    assert work(node("g", "Gather", [table, value(1, 128, dtype="int64")], chosen)).bytes_read < (
        4 * 30_000 * 384 / 10
    )


def test_four_bit_values_are_packed() -> None:
    assert value_bytes("int4", (3, 3)) == 5
    assert value_bytes("float8_e4m3fn", (3, 3)) == 9
    assert value_bytes("bfloat16", ()) == 2
    assert value_bytes("", (2,)) == 8


def test_control_flow_costs_its_bodies_times_its_trips() -> None:
    inner = node("m", "MatMul", [value(4, 4), value(4, 4)], value(4, 4))
    loop = NodeFacts("loop", "Loop", 16, (), (value(4, 4),), {}, (inner, inner))

    assert work(loop, trips=5).flops == 5 * 2 * work(inner).flops
    assert work(loop).gemm


def test_a_nested_body_counts_once() -> None:
    inner = node("m", "MatMul", [value(4, 4), value(4, 4)], value(4, 4))
    nested = NodeFacts("if", "If", 16, (), (value(4, 4),), {}, (inner,))
    # rewrite.facts flattens: the nested If and its nodes stand side by side.
    loop = NodeFacts("loop", "Loop", 16, (), (value(4, 4),), {}, (nested, inner))

    assert work(loop).flops == work(inner).flops


@pytest.mark.parametrize(
    "op", ["MatMul", "Gemm", "Conv", "LSTM", "Einsum", "Attention", "TopK", "DFT"]
)
def test_a_node_of_unknown_rank_still_has_a_cost(op: str) -> None:
    blank = ValueFacts("float32", None)

    assert work(NodeFacts("n", op, 13, (blank, None), (blank,))).flops >= 0
