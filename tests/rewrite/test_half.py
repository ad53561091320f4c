"""A float32 model written in half precision: same edges, answers within its rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from models import Builder, cnn, feeds, transformer

from autoglm.errors import CompileError
from autoglm.rewrite.half import to_half


def numbers(model: ir.Model, given: Any) -> dict[str, np.ndarray]:
    import onnxruntime as ort

    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = ort.InferenceSession(proto.SerializeToString())
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(None, dict(given)), strict=True))


def edges(model: ir.Model) -> list[tuple[str | None, Any]]:
    return [(v.name, v.dtype) for v in (*model.graph.inputs, *model.graph.outputs)]


@pytest.mark.parametrize("make", [cnn, transformer])
def test_a_model_in_fp16_answers_within_its_rounding(make: Any) -> None:
    model = make()
    given = feeds(model)

    half = to_half(model, "fp16")

    assert edges(half) == edges(model)
    inner = {
        n.op_type for n in half.graph if any(v.dtype == ir.DataType.FLOAT16 for v in n.outputs)
    }
    assert inner & {"Conv", "MatMul", "Gemm"}
    expected = numbers(model, given)
    for name, array in numbers(half, given).items():
        # 2^-11 each way through a chain of this length, with room for sums in float16.
        scale = np.abs(expected[name]).max()
        assert np.abs(array - expected[name]).max() <= 2e-2 * scale
        assert (array != expected[name]).any()  # it really was rounded


def test_what_a_schema_has_in_float32_only_stays_so() -> None:
    b = Builder(opset=18)
    x = b.input("x", (1, 1, 2, 2))
    scales = b.constant(np.array([1, 1, 1.3333334, 2], np.float32))
    model = b.model(b.op("Resize", x, "", scales, mode="nearest"))

    half = to_half(model, "fp16")

    (node,) = [n for n in half.graph if n.op_type == "Resize"]
    held = node.inputs[2]
    assert held is not None
    assert held.const_value is not None
    np.testing.assert_array_equal(
        held.const_value.numpy(), np.array([1, 1, 1.3333334, 2], np.float32)
    )
    given = {"x": np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)}
    (found,), (expected,) = numbers(half, given).values(), numbers(model, given).values()
    np.testing.assert_array_equal(found, expected)


def test_an_operator_without_half_precision_runs_between_casts() -> None:
    b = Builder(opset=18)
    boxes, scores = b.input("boxes", (1, 3, 4)), b.input("scores", (1, 1, 3))
    most = b.constant(np.array([2], np.int64))
    model = b.model(b.op("NonMaxSuppression", b.op("Relu", boxes), scores, most))
    given = {
        "boxes": np.array([[[0, 0, 1, 1], [0, 0, 1, 1.1], [5, 5, 6, 6]]], np.float32),
        "scores": np.array([[[0.9, 0.8, 0.7]]], np.float32),
    }

    half = to_half(model, "fp16")

    (found,), (expected,) = numbers(half, given).values(), numbers(model, given).values()
    np.testing.assert_array_equal(found, expected)


def test_large_weights_stay_finite_and_infinities_stay() -> None:
    b = Builder(opset=18)
    mask = b.constant(np.array([1e9, -np.inf, -1e9], np.float32))
    model = b.model(b.op("Add", b.input("x", (3,)), mask))

    half = to_half(model, "fp16")

    (found,) = numbers(half, {"x": np.zeros(3, np.float32)}).values()
    assert found.tolist() == [65504, -np.inf, -65504]


def test_a_cast_to_float32_becomes_a_cast_to_half() -> None:
    b = Builder(opset=18)
    x = b.op("Cast", b.input("x", (3,), np.int64), to=1)
    model = b.model(b.op("Mul", x, b.constant([0.5, 0.5, 0.5])))

    half = to_half(model, "bf16")

    kinds = [n.attributes["to"].value for n in half.graph if n.op_type == "Cast"]
    assert kinds == [int(ir.DataType.BFLOAT16), int(ir.DataType.FLOAT)]
    onnx.checker.check_model(ir.to_proto(half), full_check=True)


def test_an_output_that_is_an_input_and_is_used_again_keeps_its_name() -> None:
    b = Builder(opset=18)
    y = b.op("Relu", b.input("x", (2,)))
    model = b.model(y, b.op("Neg", y))

    half = to_half(model, "fp16")

    assert edges(half) == edges(model)
    found = numbers(half, {"x": np.array([1.5, -2], np.float32)})
    assert [v.tolist() for v in found.values()] == [[1.5, 0], [-1.5, 0]]


def test_a_branch_of_an_if_is_written_in_half_precision_too() -> None:
    def branch(op: str) -> onnx.GraphProto:
        node = onnx.helper.make_node(op, ["y"], [f"{op}_out"], name=op)
        out = onnx.helper.make_tensor_value_info(f"{op}_out", onnx.TensorProto.FLOAT, [2])
        return onnx.helper.make_graph([node], op, [], [out])

    nodes = [
        onnx.helper.make_node("Relu", ["x"], ["y"], name="relu"),
        onnx.helper.make_node(
            "If", ["c"], ["z"], name="if", then_branch=branch("Neg"), else_branch=branch("Abs")
        ),
    ]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [value("x", onnx.TensorProto.FLOAT, [2]), value("c", onnx.TensorProto.BOOL, [])],
        [value("z", onnx.TensorProto.FLOAT, [2])],
    )
    proto = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9
    )
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))

    half = to_half(model, "fp16")

    given = {"x": np.array([1, -2], np.float32), "c": np.array(True)}
    assert numbers(half, given)["z"].tolist() == [-1, 0]


def test_a_compiler_ahead_of_the_model_s_opset_takes_what_newer_schemas_take() -> None:
    b = Builder(opset=18)
    model = b.model(b.op("Conv", b.input("x", (1, 2, 4, 4)), b.weight(2, 2, 3, 3)))

    (own,) = [n for n in to_half(model, "bf16").graph if n.op_type == "Conv"]
    (ahead,) = [n for n in to_half(model, "bf16", opset=25).graph if n.op_type == "Conv"]

    assert own.outputs[0].dtype == ir.DataType.FLOAT  # Conv has bfloat16 from opset 22 on
    assert ahead.outputs[0].dtype == ir.DataType.BFLOAT16


def test_an_operator_that_is_not_onnx_s_own_is_refused() -> None:
    b = Builder(opset=18)
    model = b.model(b.op("vendor::Magic", b.input("x", (2,)), name="magic"), check=False)

    with pytest.raises(CompileError, match="'magic': Magic is not ONNX's own"):
        to_half(model, "fp16")


@pytest.mark.parametrize(
    ("op", "given", "attributes"),
    [
        ("ConstantOfShape", np.array([3], np.int64), {}),
        ("ConstantOfShape", np.array([3], np.int64), {"value": 0.5}),
        ("HannWindow", np.array(3, np.int64), {}),
        ("MelWeightMatrix", None, {}),
        ("RandomUniform", None, {"shape": [3]}),
        ("RandomNormal", None, {"shape": [3]}),
        ("Constant", None, {"value_floats": [0.5, 1.0, 2.0]}),
        ("Constant", None, {"value_float": 0.5}),
    ],
)
@pytest.mark.parametrize(("precision", "opset"), [("fp16", 18), ("bf16", 18), ("bf16", 22)])
def test_a_float32_that_is_only_implied_becomes_half_precision_too(
    op: str, given: Any, attributes: dict[str, Any], precision: str, opset: int
) -> None:
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    if "value" in attributes:
        attributes = {"value": helper.make_tensor("v", float32, [1], [attributes["value"]])}
    numbers_of = {"MelWeightMatrix": [4, 16, 8000, 0, 4000]}.get(op, [])
    held = [onnx.numpy_helper.from_array(np.array(n, np.int64), f"c{n}") for n in numbers_of]
    if op == "MelWeightMatrix":
        held[3:] = [
            onnx.numpy_helper.from_array(np.array(n, np.float32), f"c{n}") for n in (0, 4000)
        ]
    if given is not None:
        held = [onnx.numpy_helper.from_array(given, "given")]
    nodes = [
        helper.make_node(op, [t.name for t in held], ["made"], name="made", **attributes),
        helper.make_node("Add", ["x", "made"], ["y"], name="add"),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value("x", float32, [1])], [value("y", float32, None)], held
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))

    half = to_half(model, precision)

    made = ir.to_proto(half)
    onnx.checker.check_model(made, full_check=True)
    del made.graph.value_info[:]  # what the nodes themselves give, not what was written beside them
    typed = onnx.shape_inference.infer_shapes(made, check_type=True, strict_mode=True)
    kinds = {v.name: v.type.tensor_type.elem_type for v in typed.graph.value_info}
    (add,) = [n for n in made.graph.node if n.op_type == "Add"]
    wanted = {"fp16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16}[precision]
    assert {kinds[name] for name in add.input} == {wanted}


def test_a_mean_that_is_stashed_in_float32_is_cast_and_not_only_called_half() -> None:
    node = onnx.helper.make_node("LayerNormalization", ["x", "scale"], ["y", "mean"], name="norm")
    value, float32 = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    scale = onnx.numpy_helper.from_array(np.ones(4, np.float32), "scale")
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [value("x", float32, [2, 4])],
        [value("y", float32, [2, 4]), value("mean", float32, [2, 1])],
        [scale],
    )
    opsets = [onnx.helper.make_opsetid("", 18)]
    model = ir.from_proto(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10))

    half = to_half(model, "bf16")

    onnx.checker.check_model(ir.to_proto(half), full_check=True)
    (norm,) = [n for n in half.graph if n.op_type == "LayerNormalization"]
    assert [v.dtype for v in norm.outputs] == [ir.DataType.BFLOAT16, ir.DataType.FLOAT]
