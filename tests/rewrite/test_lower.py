"""Stamping a model with an older opset."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from models import Builder, cnn, transformer

from autoglm.errors import CompileError
from autoglm.rewrite.lower import lower_opset


def numbers(model: ir.Model, x: np.ndarray) -> list[np.ndarray]:
    """By onnx's own evaluator, which has one kernel for every revision: equal means equal bits."""
    from onnx.reference import ReferenceEvaluator

    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    return list(ReferenceEvaluator(proto).run(None, {proto.graph.input[0].name: x}))


def test_a_model_stamped_older_checks_and_answers_the_same() -> None:
    b = Builder(opset=22)
    x = b.op("Cast", b.input("x", (2, 3, 8, 8)), to=1, saturate=1)
    x = b.op("AveragePool", b.op("Conv", x, b.weight(4, 3, 3, 3)), kernel_shape=[2, 2])
    model = b.model(b.op("Reshape", x, b.constant(np.array([2, -1]))))
    given = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)

    lowered = lower_opset(model, 18)

    assert lowered.opset_imports[""] == 18
    assert model.opset_imports[""] == 22
    for found, expected in zip(numbers(lowered, given), numbers(model, given), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_model_that_is_old_enough_is_left_alone() -> None:
    model = cnn()

    assert lower_opset(model, 30) is model


def test_the_node_whose_meaning_would_change_is_named() -> None:
    with pytest.raises(CompileError, match="has no equal in opset 12"):
        lower_opset(transformer(), 12)
