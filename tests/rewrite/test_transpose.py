"""Transposes of channels-last models meet and cancel, through residuals, branches, reductions."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from autoglm.rewrite.cases import Case
from autoglm.rewrite.certificate import build
from autoglm.rewrite.prepare import prepare

IN, OUT = "Transpose<perm = [0, 3, 1, 2]>", "Transpose<perm = [0, 2, 3, 1]>"


def conv(x: str, y: str, weight: str = "w") -> str:
    """A convolution of a channels-last tensor, as TensorFlow's converter writes it."""
    return f"{y}_a = {IN}({x}) {y}_b = Conv({y}_a, {weight}) {y} = {OUT}({y}_b) "


BODIES = {
    "residual": conv("x", "a") + "r = Relu(a) " + conv("r", "b") + "y = Add(b, r)",
    "bias and scale": conv("x", "a") + "s = Mul(a, c) y = Add(s, c)",
    "clip": conv("x", "a") + "k = Clip(a, low, high) " + conv("k", "y"),
    "branches": conv("x", "a") + conv("a", "b") + conv("a", "d") + "y = Concat<axis = -1>(a, b, d)",
    "squeeze and excite": conv("x", "a")
    + "m = ReduceMean(a, axes) "
    + conv("m", "g")
    + "s = Sigmoid(g) y = Mul(a, s)",
    "gate": conv("x", "a") + "s = Sigmoid(a) g = Mul(a, s) " + conv("g", "y"),
    "padding": conv("x", "a") + "p = Pad(a, pads) " + conv("p", "y"),
    "crop": conv("x", "a") + "p = Slice(a, from, to, axes) " + conv("p", "y"),
    "softmax": conv("x", "a") + "y = Softmax<axis = -1>(a)",
    "quantised": conv("x", "a")
    + "q = QuantizeLinear(a, step, zero) d = DequantizeLinear(q, step, zero) "
    + conv("d", "y"),
}


def model(body: str) -> ir.Model:
    rng = np.random.default_rng(3)
    constants = {
        "w": rng.standard_normal((3, 3, 1, 1)).astype(np.float32),
        "c": rng.standard_normal(3).astype(np.float32),
        "low": np.float32(0),
        "high": np.float32(1),
        "axes": np.array([1, 2]),
        "from": np.array([1, 0]),
        "to": np.array([4, 3]),
        "pads": np.array([0, 1, 2, 0, 0, 1, 0, 0]),
        "step": np.float32(0.05),
        "zero": np.uint8(128),
    }
    feeds = {"x": rng.standard_normal((2, 4, 5, 3)).astype(np.float32)}
    return build(Case(body, feeds, {k: np.asarray(v) for k, v in constants.items()}, 20))


def transposes(model: ir.Model) -> int:
    return sum(node.op_type == "Transpose" for node in model.graph)


def answer(model: ir.Model) -> np.ndarray:
    proto: onnx.ModelProto = ir.to_proto(model)
    x = np.random.default_rng(4).standard_normal((2, 4, 5, 3)).astype(np.float32)
    (y,) = ReferenceEvaluator(proto).run(None, {"x": x})
    return np.asarray(y)


@pytest.mark.parametrize("name", BODIES)
def test_only_the_edges_keep_their_transpose(name: str) -> None:
    before = model(BODIES[name])

    after, _ = prepare(before)

    assert transposes(after) == 2 <= transposes(before)
    assert np.allclose(answer(after), answer(before), rtol=1e-5, atol=1e-6)


def test_a_reduction_to_a_vector_needs_no_transpose_at_the_end() -> None:
    body = conv("x", "a") + "y = ReduceMean<keepdims = 0>(a, axes)"

    after, _ = prepare(model(body))

    assert transposes(after) == 1


def test_a_transpose_that_others_read_stays_for_them() -> None:
    before = model(conv("x", "y0") + "t = Transpose<perm = [0, 3, 1, 2]>(y0) y1 = Neg(t)")

    after, _ = prepare(before)

    assert transposes(after) == 2
    assert [v.name for v in after.graph.outputs] == ["y0", "y1"]
    assert after.graph.outputs[0].producer() is not None
