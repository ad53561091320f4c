"""Nodes that do nothing go; nodes that do something stay."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from models import Builder

from autoglm.rewrite.facts import sources
from autoglm.rewrite.prepare import prepare


def kinds(model: ir.Model) -> list[str]:
    return [n.op_type for n in model.graph]


def one(
    kind: str, shape: object, *inputs: object, dtype: object = np.float32, **attributes: object
) -> list[str]:
    """Prepared operators of Relu -> kind -> Neg."""
    b = Builder(dtype=dtype)
    x = b.op("Abs", b.input("x", shape))  # type: ignore[arg-type]
    given = [b.constant(i) if not isinstance(i, str) else i for i in inputs]
    return kinds(prepare(b.model(b.op("Neg", b.op(kind, x, *given, **attributes))))[0])


@pytest.mark.parametrize(
    ("kind", "inputs", "attributes"),
    [
        ("Identity", (), {}),
        ("Dropout", (), {}),
        ("Cast", (), {"to": 1}),
        ("Transpose", (), {"perm": [0, 1]}),
        ("Reshape", (np.array([2, 3]),), {}),
        ("Reshape", (np.array([0, -1]),), {}),
        ("Expand", (np.array([1, 3]),), {}),
        ("Pad", (np.array([0, 0, 0, 0]),), {}),
        ("Slice", (np.array([0]), np.array([99]), np.array([1])), {}),
        ("Mul", (np.float32([[1.0]]),), {}),
        ("Div", (np.float32([1, 1, 1]),), {}),
        ("Sub", (np.float32(0.0),), {}),
        ("Add", (np.float32(-0.0),), {}),
        ("Pow", (np.float32(1.0),), {}),
        ("Concat", (), {"axis": 0}),
        ("Clip", (), {}),
    ],
)
def test_what_does_nothing_goes(
    kind: str, inputs: tuple[object, ...], attributes: dict[str, object]
) -> None:
    assert one(kind, [2, 3], *inputs, **attributes) == ["Abs", "Neg"]


@pytest.mark.parametrize(
    ("kind", "shape", "inputs", "attributes"),
    [
        ("Cast", [2, 3], (), {"to": 11}),
        ("Reshape", [2, 3], (np.array([3, 2]),), {}),
        ("Expand", [2, 3], (np.array([2, 1, 1]),), {}),
        ("Pad", [2, 3], (np.array([0, 0, 0, 1]),), {}),
        ("Slice", [2, 3], (np.array([-1]), np.array([-9]), np.array([1]), np.array([-1])), {}),
        ("Mul", [2, 3], (np.float32([[[1.0]]]),), {}),  # raises the rank
        ("Mul", ["n", 3], (np.ones((2, 3), np.float32),), {}),  # may broadcast n = 1
        ("Mul", [2, 3], (np.float32([1, 1, 2]),), {}),
        ("Add", [2, 3], (np.float32(0.0),), {}),  # turns -0.0 into 0.0
        ("Sub", [2, 3], (np.float32(-0.0),), {}),
        ("Clip", [2, 3], (np.float32(0.0),), {}),
    ],
)
def test_what_changes_dtype_shape_or_value_stays(
    kind: str, shape: object, inputs: tuple[object, ...], attributes: dict[str, object]
) -> None:
    b = Builder()
    x = b.op("Abs", b.input("x", shape))  # type: ignore[arg-type]
    y = b.op(kind, x, *(b.constant(i) for i in inputs), **attributes)
    assert kind in kinds(prepare(b.model(b.op("Identity", y)))[0])


def test_dropout_in_training_stays() -> None:
    b = Builder()
    x = b.input("x", [2])
    y = b.op("Dropout", x, b.constant(np.float32(0.5)), b.constant(np.array(True)))
    assert "Dropout" in kinds(prepare(b.model(b.op("Neg", y)))[0])


def test_outputs_keep_their_names_when_an_identity_ends_the_graph() -> None:
    b = Builder()
    x = b.input("x", [2])
    relu = b.op("Relu", x)
    model = b.model(relu, b.op("Identity", relu), b.op("Identity", x))

    prepared, _ = prepare(model)

    assert [v.name for v in prepared.graph.outputs] == [
        "relu_0_out",
        "identity_1_out",
        "identity_2_out",
    ]
    onnx.checker.check_model(ir.to_proto(prepared), full_check=True)


def test_equal_nodes_become_one_that_names_both() -> None:
    b = Builder()
    x = b.input("x", [2])
    y = b.op("Add", b.op("Exp", x, name="a"), b.op("Exp", x, name="b"), name="sum")

    prepared, _ = prepare(b.model(y))

    assert kinds(prepared) == ["Exp", "Add"]
    assert sources(prepared.graph[0]) == ("a", "b")


@pytest.mark.parametrize("kind", ["com.acme::State", "Bernoulli"])
def test_nodes_that_may_differ_each_time_are_not_shared(kind: str) -> None:
    b = Builder()
    x = b.input("x", [2])
    y = b.op("Add", b.op(kind, x), b.op(kind, x))

    assert len(prepare(b.model(y, check=False))[0].graph) == 3


def test_nodes_with_other_attributes_are_not_shared() -> None:
    b = Builder()
    x = b.input("x", [2, 3])
    y = b.op("Add", b.op("Elu", x, alpha=0.5), b.op("Elu", x, alpha=0.7))

    assert len(prepare(b.model(y))[0].graph) == 3


def test_unread_nodes_and_weights_go() -> None:
    b = Builder()
    x = b.input("x", [2])
    b.op("Add", x, b.constant(np.ones(2, np.float32), name="unread"))

    prepared, _ = prepare(b.model(b.op("Relu", x)))

    assert kinds(prepared) == ["Relu"]
    assert not prepared.graph.initializers


def test_a_cast_to_the_dtype_of_another_value_becomes_a_plain_one() -> None:
    b = Builder()
    x, half = b.input("x", [2]), b.input("h", [2], np.float16)
    y = b.op("CastLike", b.op("Abs", x), half, name="like")
    prepared, _ = prepare(b.model(b.op("Neg", y), b.op("Neg", b.op("CastLike", x, x))))

    assert kinds(prepared) == ["Abs", "Cast", "Neg", "Neg"]
    assert prepared.graph[1].name == "like"
    assert prepared.graph[1].attributes["to"].as_int() == onnx.TensorProto.FLOAT16
