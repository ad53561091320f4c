"""Cases: what is asked, in which order, and that the answers are right."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from autoglm.testing import formulas
from autoglm.testing.cases import Case, dynamic, plain_first, suite, with_constants
from autoglm.testing.generate import OLDEST, build, generated, schema_dtypes, versions
from autoglm.testing.operators import SPECS
from autoglm.testing.patterns import patterns
from autoglm.testing.restamp import restamped
from autoglm.testing.special import special


def spec(op: str, tag: str = ""):  # type: ignore[no-untyped-def]
    return next(s for s in SPECS if s.op == op and s.tag == tag)


def test_the_suite_leaves_expanded_functions_out() -> None:
    names = [case.name for case in suite()]

    assert len(names) > 1000
    assert not [name for name in names if "_expanded" in name]


def test_generated_cases_have_unique_names_and_valid_models() -> None:
    cases = [*generated(), *special()]

    assert len({case.name for case in cases}) == len(cases)
    for case in cases[::40]:
        onnx.checker.check_model(case.proto())


def test_two_generations_are_the_same() -> None:
    first, second = (build(spec("Conv", "strided"), 11, "float32") for _ in range(2))

    assert first is not None
    assert second is not None
    assert first.model == second.model
    np.testing.assert_array_equal(first.data[0][0][0], second.data[0][0][0])


@pytest.mark.parametrize("op", ["Add", "Conv", "Gather", "Softmax", "Cast", "LSTM", "Resize"])
def test_every_dtype_of_the_schema_that_we_make_is_measured_at_the_oldest_version(op: str) -> None:
    oldest = versions(op)[0]
    names = {c.name for c in (*generated(), *special()) if c.name.startswith(f"{op}@{oldest}:")}

    for dtype in ("float32", "float16"):
        assert dtype in schema_dtypes(op, oldest)
        assert any(name.startswith(f"{op}@{oldest}:{dtype}") for name in names)


def test_versions_are_those_a_raised_model_can_name() -> None:
    assert versions("Softmax")[0] == 13
    assert versions("ReduceMean")[0] == OLDEST


def test_constants_move_every_input_but_the_first_into_the_model() -> None:
    case = next(c for c in suite() if c.name == "add")

    moved = with_constants(case)

    assert moved is not None
    assert [i.name for i in moved.proto().graph.input] == ["x"]
    assert len(moved.proto().graph.initializer) == 1


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_what_lies_beyond_a_sequence_is_zero_and_its_state_is_its_last_step(op: str) -> None:
    case = next(c for c in special() if c.name.startswith(f"{op}_lengths_forward"))
    (inputs, (y, h, *_)) = case.data[0]

    assert inputs[1].tolist() == [4, 2]
    assert (y[2:, 0, 1] == 0).all()
    assert (y[3, 0, 0] != 0).all()
    np.testing.assert_array_equal(h[0, 1], y[1, 0, 1])
    np.testing.assert_array_equal(h[0, 0], y[3, 0, 0])


def test_open_dimensions_leave_the_answers_alone() -> None:
    case = next(c for c in suite() if c.name == "add")

    loose = dynamic(case)

    assert loose is not None
    assert loose.data == case.data
    (first, *_) = loose.proto().graph.input
    assert [d.dim_param for d in first.type.tensor_type.shape.dim] == ["x_0", "x_1", "x_2"]


def test_the_plainest_use_of_every_operator_comes_first_and_then_float32() -> None:
    wanted = ("add", "add_uint8", "add_bcast", "relu", "and2d", "and3d")
    given = sorted((c for c in suite() if c.name in wanted), key=lambda c: c.name, reverse=True)

    found = [case.name for case in plain_first(given)]

    assert sorted(found) == sorted(wanted)
    assert set(found[:3]) == {"add_bcast", "relu", "and3d"}  # the first given of each
    assert found[3] == "add"
    assert set(found[4:]) == {"add_uint8", "and2d"}


def test_a_case_moves_to_an_older_version_only_where_it_means_the_same() -> None:
    cases = [c for c in suite() if c.name in ("quantizelinear", "gridsample_bilinear", "relu")]

    moved = {c.name for c in restamped(cases, {"Relu"})}

    assert "quantizelinear@13" in moved
    assert "gridsample_bilinear@16" not in moved  # its default mode had another name
    assert not [name for name in moved if name.startswith("relu")]


def test_lrn_sums_over_channels() -> None:
    x = np.ones((1, 4, 1, 1))

    found = formulas.lrn(x, size=3, alpha=3.0, beta=1.0, bias=0.0)

    np.testing.assert_allclose(found.reshape(-1), [1 / 2, 1 / 3, 1 / 3, 1 / 2])


def test_lp_pool_counts_what_is_inside() -> None:
    x = np.full((1, 1, 3, 3), -1.0)

    found = formulas.lp_pool(x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)

    np.testing.assert_allclose(found[0, 0], [[2, 2**0.5], [2**0.5, 1]])


def test_lp_normalization_takes_absolute_values_and_global_max_pool_all_axes() -> None:
    np.testing.assert_allclose(
        formulas.lp_normalization(np.array([[-1.0, 3.0]]), p=1), [[-0.25, 0.75]]
    )
    assert formulas.global_max_pool(np.arange(24.0).reshape(1, 2, 3, 2, 2)).shape == (1, 2, 1, 1, 1)


def test_patterns_are_valid_and_their_answers_are_the_model_s() -> None:
    for case in patterns():
        onnx.checker.check_model(case.proto())
        ((inputs, outputs),) = case.data
        (found,) = ReferenceEvaluator(case.proto()).run(None, {"x": inputs[0]})
        np.testing.assert_allclose(found, outputs[0], rtol=1e-4, atol=1e-5)


def test_a_case_is_data() -> None:
    assert Case("a", b"", ()) == Case("a", b"", ())
