"""The reference evaluator: right where it used to be wrong, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from models import Builder, chain, mlp
from onnx import helper

from autoglm.backends.reference import Reference
from autoglm.errors import CompileError, ConfigError, ExecutionError
from autoglm.spec import CompileOptions, RunOptions

Open = Callable[..., Any]


@pytest.fixture
def open_model(tmp_path: Path) -> Open:
    def opened(model: ir.Model, **options: Any) -> Any:
        folder = tmp_path / f"artifact{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        artifact = Reference().compile(model, CompileOptions(**options), folder)
        return Reference().open(artifact, folder, RunOptions())

    return opened


def batch_normalization(opset: int, **attributes: Any) -> ir.Model:
    b = Builder(opset)
    names = [b.input("x", (2, 3, 4)), *(b.input(n, (3,)) for n in ("s", "b", "m", "v"))]
    return ir.from_proto(
        b.proto(b.op("BatchNormalization", *names, epsilon=0.01, **attributes), check=False)
    )


@pytest.mark.parametrize("opset", [7, 8, 9, 13, 14, 15, 20])
def test_batch_normalization_is_in_inference_mode_in_every_opset(
    open_model: Open, opset: int
) -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((2, 3, 4)).astype(np.float32)
    s, b, m, v = (random.uniform(0.5, 2, 3).astype(np.float32) for _ in range(4))

    (found,) = (
        open_model(batch_normalization(opset))
        .run({"x": x, "s": s, "b": b, "m": m, "v": v})
        .values()
    )

    wide = [w.astype(np.float64)[:, None] for w in (s, b, m, v)]
    expected = wide[0] * (x - wide[2]) / np.sqrt(wide[3] + 0.01) + wide[1]
    assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize(("opset", "attributes"), [(6, {}), (7, {"spatial": 0})])
def test_batch_normalization_that_it_ignores_is_refused(
    open_model: Open, opset: int, attributes: dict[str, int]
) -> None:
    with pytest.raises(CompileError, match="answer wrongly"):
        open_model(batch_normalization(opset, **attributes))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_sequence_lengths_are_refused_where_they_are_ignored(open_model: Open, kind: str) -> None:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    b = Builder()
    x = b.input("x", (3, 2, 4))
    w, r = b.weight(1, gates * 5, 4), b.weight(1, gates * 5, 5)
    lengths = b.input("lengths", (2,), np.int32)
    outputs = {"LSTM": 3, "GRU": 2, "RNN": 2}[kind]

    def model(*more: str) -> ir.Model:
        b.nodes.clear()
        return b.model(b.op(kind, x, w, r, *more, outputs=outputs, hidden_size=5)[0])

    open_model(model())
    with pytest.raises(CompileError, match="sequence_lens"):
        open_model(model("", lengths))


def test_only_fp32_is_taken(open_model: Open) -> None:
    with pytest.raises(ConfigError, match="int8"):
        open_model(mlp(), precision="int8")


def test_bfloat16_is_computed_as_bfloat16(open_model: Open) -> None:
    x = np.array([1.0, 2.5, -3.0], ml_dtypes.bfloat16)

    (y,) = open_model(chain("Neg", shape=("n",), dtype=ml_dtypes.bfloat16)).run({"x": x}).values()

    assert y.dtype == ml_dtypes.bfloat16
    assert np.array_equal(y, -x)


def test_sequences_and_absent_optionals(open_model: Open) -> None:
    sequence = helper.make_tensor_sequence_value_info("s", 1, None)
    optional = helper.make_value_info(
        "o", helper.make_optional_type_proto(helper.make_tensor_type_proto(1, [2]))
    )
    count = helper.make_tensor_value_info("n", 7, [])
    there = helper.make_tensor_value_info("t", 9, [])
    nodes = [
        helper.make_node("SequenceLength", ["s"], ["n"]),
        helper.make_node("OptionalHasElement", ["o"], ["t"]),
    ]
    graph = helper.make_graph(nodes, "g", [sequence, optional], [count, there])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = open_model(ir.from_proto(model))

    answer = session.run({"s": [np.ones(2, np.float32)] * 3, "o": None})

    assert answer["n"] == 3
    assert not answer["t"]


def test_an_answer_of_another_shape_than_declared_is_an_error(open_model: Open) -> None:
    b = Builder()
    proto = b.proto(b.op("Relu", b.input("x", (2, 4))))
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 5

    with pytest.raises(ExecutionError, match=r"\[2, 5\]"):
        open_model(ir.from_proto(proto)).run({"x": np.zeros((2, 4), np.float32)})


def test_no_plan_prefers_it() -> None:
    assert Reference().capabilities().speed <= 0.01
