"""Cutting a model and marking intermediates."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from models import Builder, branch, cnn, diamond, feeds, mlp, transformer
from onnx.reference import ReferenceEvaluator

from autoglm.errors import ModelError
from autoglm.rewrite.extract import extract, outputs_all
from autoglm.rewrite.facts import model_digest


def names(values: object) -> list[str]:
    return [v.name for v in values]  # type: ignore[attr-defined]


def run(model: ir.Model, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    engine = ReferenceEvaluator(ir.to_proto(model))
    return dict(zip(names(model.graph.outputs), engine.run(None, given), strict=True))


def test_a_piece_takes_and_gives_what_crosses_its_border() -> None:
    piece = extract(diamond(), ["left", "join"])

    assert names(piece.graph.inputs) == ["top_out", "right_out"]
    assert names(piece.graph.outputs) == ["join_out"]
    assert piece.graph.inputs[0].type == ir.TensorType(ir.DataType.FLOAT)


def test_a_value_used_inside_and_outside_is_an_output() -> None:
    piece = extract(diamond(), ["top", "left"])

    assert names(piece.graph.outputs) == ["top_out", "left_out"]


def test_weights_are_shared_and_the_original_is_untouched() -> None:
    model = mlp()
    before = model_digest(model)

    piece = extract(model, ["gemm1"])

    assert sorted(piece.graph.initializers) == ["w2", "w3"]
    assert piece.graph.initializers["w2"].const_value is model.graph.initializers["w2"].const_value
    piece.graph.inputs[0].name = "renamed"
    assert model_digest(model) == before


def test_values_read_only_inside_a_body_become_inputs() -> None:
    piece = extract(branch(), ["if", "after"])

    assert sorted(names(piece.graph.inputs)) == ["go", "outer_out"]
    given = {"go": np.array(True), "outer_out": np.ones((2, 4), np.float32)}
    assert np.allclose(run(piece, given)["after_out"], -1 / (1 + np.exp(-1)))


def test_a_value_read_outside_only_by_a_body_is_an_output() -> None:
    assert names(extract(branch(), ["outer"]).graph.outputs) == ["outer_out"]


def test_a_constant_node_comes_along() -> None:
    b = Builder()
    x = b.input("x", [2, 3])
    shape = b.op("Constant", name="shape", value_ints=[3, 2])
    model = b.model(b.op("Reshape", b.op("Relu", x), shape, name="reshape"))

    piece = extract(model, ["reshape"])

    assert [n.op_type for n in piece.graph] == ["Constant", "Reshape"]
    assert names(piece.graph.inputs) == ["relu_1_out"]


def test_all_nodes_give_the_same_model() -> None:
    model = cnn()
    whole = extract(model, [n.name for n in model.graph])

    given = feeds(model)
    assert names(whole.graph.inputs) == names(model.graph.inputs)
    assert np.array_equal(run(whole, given)["head_out"], run(model, given)["head_out"])


@pytest.mark.parametrize("cut", [3, 10, 17])
def test_two_halves_run_as_the_whole(cut: int) -> None:
    model = transformer(batch="n", sequence="s")
    order = [n.name for n in model.graph]
    given = feeds(model)
    want = run(model, given)

    values = dict(given)
    for part in (order[:cut], order[cut:]):
        piece = extract(model, part)
        values |= run(piece, {n: values[n] for n in names(piece.graph.inputs)})

    assert all(np.array_equal(values[k], v) for k, v in want.items())


def test_functions_that_are_called_come_along() -> None:
    text = """<ir_version: 10, opset_import: ["" : 20, "local" : 1]>
    main (float[2] x) => (float[2] y) { h = local.Twice(x)  y = Relu(h) }
    <domain: "local", opset_import: ["" : 20]> Twice (a) => (b) { b = Add(a, a) }"""
    model = ir.from_onnx_text(text)
    for i, node in enumerate(model.graph):
        node.name = f"n{i}"

    assert len(extract(model, ["n0"]).functions) == 1
    assert len(extract(model, ["n0"]).opset_imports) == 2


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ModelError, match="no node named 'nope'"):
        extract(mlp(), ["nope"])
    with pytest.raises(ModelError, match="no value named 'nope'"):
        outputs_all(mlp(), ["nope"])


def test_intermediates_are_given_out_after_the_models_own_outputs() -> None:
    model = diamond()
    wide = outputs_all(model, ["left_out", "top_out", "join_out"])

    assert names(wide.graph.outputs) == ["join_out", "left_out", "top_out"]
    assert names(model.graph.outputs) == ["join_out"]
    assert run(wide, feeds(model))["left_out"].shape == (2, 4)
