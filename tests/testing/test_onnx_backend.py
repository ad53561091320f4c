"""`AutoBackend`: onnx's own interface over `backend="auto"`."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.backend.test.runner import Runner

from autoglm.testing.cases import suite
from autoglm.testing.onnx_backend import AutoBackend
from autoglm.testing.onnx_suite import run_case, suite_cases

SOME = (
    "relu",
    "softmax_axis_0",
    "lstm_defaults",
    "cast_FLOAT_to_BFLOAT16",
    "string_concat",
    "loop11",
    "dequantizelinear",
)


@pytest.mark.parametrize("name", SOME)
def test_a_suite_case_passes_and_says_who_ran_it(name: str) -> None:
    case = next(c for c in suite() if c.name == name)
    rep = AutoBackend.prepare(case.proto())

    for inputs, outputs in case.data:
        Runner.assert_similar_outputs(
            list(outputs), list(rep.run(list(inputs))), rtol=1e-3, atol=1e-7
        )

    assert rep.engines
    assert "reference" not in rep.engines
    assert AutoBackend.tally[rep.engines] >= 1


def test_a_node_runs_alone() -> None:
    node = onnx.helper.make_node("Add", ["a", "b"], ["c"])

    (c,) = AutoBackend.run_node(node, [np.float32([1, 2]), np.float32([3, 4])])

    np.testing.assert_array_equal(c, [4, 6])


def test_only_the_cpu_is_supported() -> None:
    assert AutoBackend.supports_device("CPU")
    assert not AutoBackend.supports_device("CUDA")


def test_the_suite_s_files_are_read_and_judged() -> None:
    cases = {c.name: c for c in suite_cases(("simple", "pytorch-operator"))}

    outcome = run_case(cases["simple/test_expand_shape_model1"])

    assert outcome.status == "pass"
    assert outcome.engines
    assert len(cases) > 40
