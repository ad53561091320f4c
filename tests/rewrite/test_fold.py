"""Folding is bounded, and the arithmetic of shapes is exact."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from models import Builder
from onnx.reference import ReferenceEvaluator

from autoglm.rewrite.prepare import prepare
from autoglm.rewrite.values import constant


def kinds(model: ir.Model) -> list[str]:
    return [n.op_type for n in model.graph]


def test_arithmetic_on_constants_is_done_beforehand() -> None:
    b = Builder()
    c = b.op("Mul", b.constant([1.0, 2.0]), b.constant([3.0, 4.0]))
    model = b.model(b.op("Add", b.input("x", [2]), b.op("Sqrt", c)))

    prepared, _ = prepare(model)

    assert kinds(prepared) == ["Add"]
    folded = constant(prepared.graph[0].inputs[1])
    assert np.allclose(folded, np.sqrt([3.0, 8.0]))


@pytest.mark.parametrize("kind", ["ConstantOfShape", "Expand", "Tile", "Range"])
def test_a_constant_that_only_describes_a_huge_tensor_is_not_made(kind: str) -> None:
    b = Builder()
    huge = b.constant([1 << 40], np.int64)
    if kind == "ConstantOfShape":
        y = b.op(kind, huge)
    elif kind == "Range":
        y = b.op(kind, *(b.constant(v, np.int64) for v in (0, 1 << 40, 1)))
    else:
        y = b.op(kind, b.constant([1.0]), huge)
    model = b.model(b.op("Gather", y, b.input("i", [2], np.int64)), check=False)

    prepared, _ = prepare(model)

    assert kinds(prepared) == [kind, "Gather"]


def test_a_small_growth_is_folded_and_one_above_a_megabyte_is_not() -> None:
    for size, folded in ((1 << 10, True), (1 << 19, False)):
        b = Builder()
        y = b.op("Expand", b.constant([1.0]), b.constant([size], np.int64))
        model = b.model(b.op("Add", b.input("x", [size]), y))
        assert (len(prepare(model)[0].graph) == 1) is folded


def test_random_numbers_are_never_folded_or_shared() -> None:
    b = Builder()
    first, second = (b.op("RandomNormal", shape=[2]) for _ in range(2))
    model = b.model(b.op("Add", first, second))

    assert kinds(prepare(model)[0]) == ["RandomNormal", "RandomNormal", "Add"]


def test_weights_stored_as_integers_stay_quantised() -> None:
    b = Builder()
    w = b.op("DequantizeLinear", b.constant(np.ones((4, 4), np.int8)), b.constant(np.float32(0.5)))
    model = b.model(b.op("MatMul", b.input("x", [2, 4]), w))

    assert kinds(prepare(model)[0]) == ["DequantizeLinear", "MatMul"]


def view(batch: int | str, *, extra: int | str = 6) -> ir.Model:
    """Reshape(x, Concat(Shape(x)[0], Shape(x)[1] * 2, -)) as torch writes `x.view(...)`."""
    b = Builder()
    x = b.input("x", [batch, extra, 4])
    shape = b.op("Shape", x)
    first = b.op("Gather", shape, b.constant([0], np.int64))
    second = b.op("Gather", shape, b.constant([1], np.int64))
    half = b.op("Mul", second, b.constant([2], np.int64))
    target = b.op("Concat", first, half, b.constant([2], np.int64), axis=0)
    return b.model(b.op("Reshape", x, target, name="view"))


def test_a_static_shape_chain_becomes_a_constant() -> None:
    prepared, _ = prepare(view(3))

    assert kinds(prepared) == ["Reshape"]
    assert list(constant(prepared.graph[0].inputs[1])) == [3, 12, 2]  # type: ignore[arg-type]


def test_a_symbol_at_the_same_place_is_copied() -> None:
    prepared, _ = prepare(view("n"))

    assert kinds(prepared) == ["Reshape"]
    assert list(constant(prepared.graph[0].inputs[1])) == [0, 12, 2]  # type: ignore[arg-type]
    for batch in (0, 1, 5):
        x = np.arange(batch * 24, dtype=np.float32).reshape(batch, 6, 4)
        got = ReferenceEvaluator(ir.to_proto(prepared)).run(None, {"x": x})[0]
        assert np.array_equal(got, x.reshape(batch, 12, 2))


def test_what_two_unknowns_leave_open_stays_as_it_is() -> None:
    prepared, _ = prepare(view("n", extra="m"))

    # One copied dimension beside a computed one would be ambiguous for an empty tensor.
    assert "Mul" in kinds(prepared)
    for batch, length in ((2, 3), (0, 3)):
        x = np.ones((batch, length, 4), np.float32)
        got = ReferenceEvaluator(ir.to_proto(prepared)).run(None, {"x": x})[0]
        assert got.shape == (batch, 2 * length, 2)


def test_a_symbol_at_another_place_is_not_copied() -> None:
    b = Builder()
    x = b.input("x", ["n", "m", 4])
    shape = b.op("Shape", x)
    swapped = [b.op("Gather", shape, b.constant([i], np.int64)) for i in (1, 0)]
    target = b.op("Concat", *swapped, b.constant([4], np.int64), axis=0)

    prepared, _ = prepare(b.model(b.op("Reshape", x, target)))

    given = {"x": np.ones((2, 3, 4), np.float32)}
    assert ReferenceEvaluator(ir.to_proto(prepared)).run(None, given)[0].shape == (3, 2, 4)


def test_an_open_dimension_beside_a_copied_one_stays_computed() -> None:
    b = Builder()
    x = b.input("x", ["n", "m", 4])
    first = b.op("Gather", b.op("Shape", x), b.constant([0], np.int64))
    twice = b.op("Mul", first, b.constant([2], np.int64))
    target = b.op("Concat", twice, b.constant([0, 2], np.int64), axis=0)

    prepared, _ = prepare(b.model(b.op("Reshape", x, target)))

    for length in (3, 0):
        given = {"x": np.ones((2, length, 4), np.float32)}
        got = ReferenceEvaluator(ir.to_proto(prepared)).run(None, given)[0]
        assert got.shape == (4, length, 2)


def test_a_graph_output_is_never_turned_into_a_weight() -> None:
    b = Builder()
    b.input("x", [2])
    model = b.model(b.op("Sqrt", b.constant([4.0])))

    prepared, _ = prepare(model)

    assert [v.name for v in prepared.graph.outputs] == ["sqrt_0_out"]
    assert kinds(prepared) == ["Sqrt"]
