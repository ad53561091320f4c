"""One node at a time reads its inputs in 8 bits; the others see what they saw before."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from autoglm.errors import ModelError
from autoglm.rewrite.rounded import SWITCH, rounded


def two_products(opset: int) -> ir.Model:
    draw = np.random.default_rng(3)
    weights = [draw.normal(size=(8, 8)).astype(np.float32) for _ in range(2)]
    weights[0][:, 0] *= 1000
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["h"], name="first"),
        helper.make_node("MatMul", ["h", "w1"], ["y"], name="second"),
    ]
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4, 8]) for n in "xy"]
    held = [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)]
    graph = helper.make_graph(nodes, "g", info[:1], info[1:], held)
    opsets = [helper.make_opsetid("", opset)]
    return ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=8))


def run(model: ir.Model, x: np.ndarray, number: int) -> np.ndarray:
    import onnxruntime as ort

    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    found = session.run(None, {"x": x, SWITCH: np.array(number, np.int64)})
    return np.asarray(found[0])


def steps(x: np.ndarray, axis: int | None = None) -> np.ndarray:
    most, least = x.max(axis=axis, keepdims=True), x.min(axis=axis, keepdims=True)
    step = (np.maximum(most, 0) - np.minimum(least, 0)) / np.float32(255)
    return np.floor(x / step + np.float32(0.5)) * step


@pytest.mark.parametrize("opset", [9, 13, 18, 21])
def test_the_chosen_node_alone_reads_whole_steps(opset: int) -> None:
    model = two_products(opset)
    w0, w1 = (model.graph.initializers[n].const_value.numpy() for n in ("w0", "w1"))  # type: ignore[union-attr]
    x = np.random.default_rng(4).normal(size=(4, 8)).astype(np.float32)

    made = rounded(model, {"first": {0: None, 1: -1}, "second": {0: None}})

    np.testing.assert_allclose(run(made, x, -1), x @ w0 @ w1, rtol=1e-4)
    np.testing.assert_allclose(run(made, x, 0), steps(x) @ steps(w0, 0) @ w1, rtol=1e-3)
    np.testing.assert_allclose(run(made, x, 1), steps(x @ w0) @ w1, rtol=1e-3)


def test_zeros_stay_zeros() -> None:
    made = rounded(two_products(13), {"first": {0: None}})

    assert not run(made, np.zeros((4, 8), np.float32), 0).any()


def test_the_model_itself_is_not_changed() -> None:
    model = two_products(13)

    rounded(model, {"first": {0: None}})

    assert [v.name for v in model.graph.inputs] == ["x"]
    assert [n.op_type for n in model.graph] == ["MatMul", "MatMul"]


def test_an_unknown_node_is_named() -> None:
    with pytest.raises(ModelError, match="'third'"):
        rounded(two_products(13), {"third": {0: None}})
