"""Every rule has a certificate that ships, and proving it again says the same."""

from __future__ import annotations

import json

import numpy as np
import onnx_ir as ir
import pytest
from models import cnn

from autoglm.errors import AutoGLMError
from autoglm.rewrite.cases import CASES, Case
from autoglm.rewrite.certificate import FILE, build, certificates, certified, certify_rule, rewrite
from autoglm.rewrite.decompose import DECOMPOSITIONS
from autoglm.rewrite.expand import expand
from autoglm.rewrite.prepare import PASSES

RULES = [p.name for p in PASSES.values() if p.rule is not None]
PARTS = sorted({d.name for rules in DECOMPOSITIONS.values() for d in rules})


@pytest.mark.parametrize("rule", sorted(CASES))
def test_proving_a_rule_again_agrees_with_its_certificate(rule: str) -> None:
    shipped = certificates()[rule]

    again = certify_rule(rule, limit=12)

    assert again.passed
    assert shipped["passed"]
    assert shipped["cases"] >= again.cases > 0
    for dtype, error in again.max_relative_error.items():
        # Another build of the engine may round otherwise, by a few units in the last place.
        assert error <= 4 * shipped["max_relative_error"][dtype] + 2 * np.finfo(
            dtype if dtype.startswith("float") else "float32"
        ).eps * (not shipped["exact"])


def test_every_rule_and_every_decomposition_is_certified() -> None:
    assert set(RULES) | set(PARTS) == set(CASES) == set(certificates())
    assert certified() == set(CASES)


def test_rules_are_proven_on_edge_values_empty_tensors_and_several_ranks() -> None:
    with_edges = {r for r, c in certificates().items() if c["edge_cases"]}
    assert {r for r in RULES if not CASES[r].finite} <= with_edges
    assert {"gelu-erf", "layer-norm", "transpose-binary", "Softmax-last-axis"} <= with_edges
    assert all(c["note"] for r, c in certificates().items() if CASES[r].finite)


def test_fused_operators_are_no_further_from_the_truth_than_what_they_replace() -> None:
    for rule in RULES:
        shipped = certificates()[rule]
        for dtype, error in shipped["error_of_rewritten"].items():
            eps = float(np.finfo(dtype).eps)
            # Folded weights are rounded once more; it shows where the original is the truth itself.
            assert error <= 2 * shipped["error_of_original"][dtype] + 4 * eps, rule


def test_the_file_is_sorted_json_with_nothing_infinite() -> None:
    text = FILE.read_text("utf-8")

    def refuse(word: str) -> None:
        raise AssertionError(word)

    found = json.loads(text, parse_constant=refuse)
    assert list(found) == sorted(found)


def test_a_case_in_which_the_rule_does_not_apply_is_an_error() -> None:
    model = build(Case("y = Neg(x)", {"x": np.ones(2, np.float32)}))
    with pytest.raises(AutoGLMError, match="gelu-erf does not apply"):
        rewrite("gelu-erf", model)


def near_misses() -> list[tuple[str, str, dict[str, np.ndarray]]]:
    one, half, three = np.float32(1), np.float32(0.5), np.float32(3)
    root = np.float32(np.sqrt(2.0))
    gelu = "i = Div(x, r) e = Erf(i) t = Add(e, one) p = Mul(x, t) y = Mul(p, half)"
    norm = (
        "m = ReduceMean(x, a) d = Sub(x, m) q = Mul(d, d) v = ReduceMean(q, a) s = Add(v, eps) "
        "r = Sqrt(s) n = Div(d, r) g = Mul(n, w) y = Add(g, b)"
    )
    known = {"a": np.array([-1]), "eps": np.float32(1e-5)}
    vector = np.ones(4, np.float32)
    moved = "t = Transpose<perm = [1, 0]>(x) y = Add(t, c)"
    both = "q = MatMul(x, w) t = Transpose<perm = [1, 0]>(q) v = MatMul(t, q) u = MatMul(v, t)"
    eye = np.eye(4, dtype=np.float32)
    gemm, scaled = "p = MatMul(x, w) y = Add(p, c)", "p = MatMul(x, w) y = Mul(p, c)"
    return [
        ("gelu-erf", gelu, {"r": np.float32(1.5), "one": one, "half": half}),
        ("gelu-erf", gelu, {"r": root, "one": np.float32(1.01), "half": half}),
        ("gelu-erf", gelu, {"r": root, "one": one, "half": np.float32(0.25)}),
        ("gelu-erf", gelu, {"r": root, "one": one, "half": np.float32([[[0.5]]])}),
        ("layer-norm", norm, {**known, "w": vector, "b": np.ones((2, 1, 4), np.float32)}),
        ("layer-norm", norm, {**known, "w": vector[:1], "b": vector}),
        ("layer-norm", norm, {**known, "a": np.array([0]), "w": vector, "b": vector}),
        ("hardswish", "g = HardSigmoid(x) y = Mul(x, g)", {}),
        (
            "hardswish",
            "s = Add(x, k) g = Clip(s, l, h) p = Mul(x, g) y = Div(p, h)",
            {"k": three, "l": np.float32(0), "h": np.float32(5)},
        ),
        ("cast-cast", "h = Cast<to = 10>(x) y = Cast<to = 1>(h)", {}),
        ("cast-cast", "h = Cast<to = 7>(x) y = Cast<to = 1>(h)", {}),
        ("transpose-scalar", moved, {"c": np.float32([1, 2])}),
        ("transpose-scalar", moved, {"c": np.float32([[[1.0]]])}),
        ("transpose-constant", moved, {"c": np.ones((3, 1, 1), np.float32)}),
        ("transpose-concat", "t = Transpose(x) u = Neg(t) y = Concat<axis = 0>(t, u)", {}),
        ("transpose-concat", f"{both} y = Sum(t, u)", {"w": eye}),
        ("transpose-reduce", "t = Transpose(x) y = ReduceSum(t)", {}),
        ("transpose-gate", "t = Transpose(x) g = Sigmoid(t) m = Mul(t, g) y = Add(m, t)", {}),
        ("reshape-transpose", "r = Reshape(x, s) y = Transpose(r)", {"s": np.array([4, 2])}),
        ("transpose-reshape", "t = Transpose(x) y = Reshape(t, s)", {"s": np.array([-1])}),
        ("matmul-add-gemm", gemm, {"w": eye, "c": np.ones((3, 1, 1), np.float32)}),
        ("matmul-add-gemm", gemm, {"w": np.ones((4, 1), np.float32), "c": vector}),
        ("matmul-scale", scaled, {"w": eye, "c": np.float32(np.inf)}),
        ("matmul-scale", scaled, {"w": eye, "c": vector}),
        (
            "squeeze-unsqueeze",
            "u = Unsqueeze(x, a) v = Squeeze(u, b) y = Neg(v)",
            {"a": np.array([0, 1]), "b": np.array([0])},
        ),
        (
            "reshape-reshape",
            "u = Reshape(x, a) y = Reshape(u, b)",
            {"a": np.array([-1]), "b": np.array([0])},
        ),
        (
            "softmax-guard",
            "z = Add(x, k) w = Softmax(z) n = IsNaN(w) y = Where(n, o, w)",
            {"k": np.full(4, -np.inf, np.float32), "o": np.float32(0)},
        ),
    ]


@pytest.mark.parametrize(("rule", "body", "constants"), near_misses())
def test_what_only_looks_like_the_pattern_is_left_alone(
    rule: str, body: str, constants: dict[str, np.ndarray]
) -> None:
    constants = {k: np.asarray(v) for k, v in constants.items()}
    shape = (0, 4) if rule == "reshape-reshape" else (2, 4)
    model = build(Case(body, {"x": np.ones(shape, np.float32)}, constants, 20))
    if rule == "reshape-reshape":
        model.graph.outputs[0].shape = None

    with pytest.raises(AutoGLMError, match="does not apply"):
        rewrite(rule, model)


def test_a_value_that_is_read_elsewhere_is_not_fused_away() -> None:
    body = "v = Conv(x, w) y0 = BatchNormalization(v, s, s, s, s) y1 = Neg(v)"
    known = {"w": np.ones((2, 3, 1, 1), np.float32), "s": np.ones(2, np.float32)}
    model = build(Case(body, {"x": np.ones((1, 3, 4, 4), np.float32)}, known, 20))

    with pytest.raises(AutoGLMError, match="does not apply"):
        rewrite("conv-batchnorm", model)


def test_batchnorm_in_training_mode_is_not_folded() -> None:
    body = "v = Conv(x, w) y, m, n = BatchNormalization<training_mode = 1>(v, s, s, s, s)"
    known = {"w": np.ones((2, 3, 1, 1), np.float32), "s": np.ones(2, np.float32)}
    model = build(Case(body, {"x": np.ones((1, 3, 4, 4), np.float32)}, known, 20))

    with pytest.raises(AutoGLMError, match="does not apply"):
        rewrite("conv-batchnorm", model)


def test_a_weight_that_can_be_fed_is_not_folded() -> None:
    model = cnn()
    weight = model.graph.initializers["w0"]
    model.graph.inputs.append(weight)
    assert isinstance(weight, ir.Value)

    after = rewrite("conv-batchnorm", model)

    assert [n.op_type for n in after.graph].count("BatchNormalization") == 1


def test_expanding_by_an_unknown_rule_gives_nothing() -> None:
    model = cnn()
    assert expand(model, model.graph[0], "nope") is None
