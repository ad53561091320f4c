"""The passes as a whole: same answers, valid graphs, names and sources that survive."""

from __future__ import annotations

import time

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from models import Builder, branch, chain, cnn, decoder, diamond, feeds, mlp, transformer

from autoglm.errors import ConfigError
from autoglm.rewrite.facts import model_digest, node_facts, sources
from autoglm.rewrite.prepare import PASSES, prepare

MODELS = {
    "mlp": mlp(),
    "cnn": cnn(batch="n"),
    "transformer": transformer(),
    "dynamic": transformer(batch="n", sequence="s"),
    "decoder": decoder(),
    "diamond": diamond(),
    "branch": branch(),
}


def run(model: ir.Model, given: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, given))


def kinds(model: ir.Model) -> list[str]:
    return [n.op_type for n in model.graph]


def changes(results: object) -> dict[str, int]:
    return {r.name: r.changes for r in results if r.changes}  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", MODELS)
def test_a_prepared_model_is_valid_gives_the_same_answers_and_keeps_its_ends(name: str) -> None:
    model = MODELS[name]
    digest = model_digest(model)

    prepared, _ = prepare(model)

    onnx.checker.check_model(ir.to_proto(prepared), full_check=True)
    assert model_digest(model) == digest
    for side in ("inputs", "outputs"):
        before, after = getattr(model.graph, side), getattr(prepared.graph, side)
        assert [v.name for v in before] == [v.name for v in after]
    given = feeds(model)
    for old, new in zip(run(model, given), run(prepared, given), strict=True):
        assert np.abs(old - new).max() <= 2e-6 * np.abs(old).max()


@pytest.mark.parametrize("name", MODELS)
def test_every_node_names_its_sources_and_they_cover_what_was_fused(name: str) -> None:
    model = MODELS[name]
    known = {n.name for n in model.graph}

    prepared, _ = prepare(model)

    assert all(set(sources(n)) <= known for n in prepared.graph)
    assert len({n.name for n in prepared.graph}) == len(prepared.graph)
    assert all(f.outputs[0].dtype for f in node_facts(prepared))


def test_fused_nodes_carry_the_union_of_sources() -> None:
    prepared, _ = prepare(transformer())
    gelu = next(n for n in prepared.graph if n.op_type == "Gelu")
    assert sources(gelu) == ("gelu/div", "gelu/erf", "gelu/add", "gelu/mul", "gelu/half")

    prepared, _ = prepare(cnn())
    assert sources(prepared.graph[0]) == ("conv0", "bn0")
    assert prepared.graph[0].name == "conv0"


def test_it_is_deterministic() -> None:
    first, second = (prepare(transformer())[0] for _ in range(2))
    assert model_digest(first) == model_digest(second)


def test_a_pass_can_be_switched_off_and_an_unknown_one_is_refused() -> None:
    off, results = prepare(cnn(), passes={"conv-batchnorm": False})
    assert "BatchNormalization" in kinds(off)
    assert "conv-batchnorm" not in changes(results)

    with pytest.raises(ConfigError, match="Unknown pass 'nope'; passes: inline, constants"):
        prepare(cnn(), passes={"nope": True})


def test_every_pass_has_a_purpose_and_all_off_changes_nothing() -> None:
    assert all(p.purpose.endswith(".") or "->" in p.purpose or p.purpose for p in PASSES.values())

    same, results = prepare(cnn(), passes=dict.fromkeys(PASSES, False))

    assert changes(results) == {}
    assert kinds(same) == kinds(cnn())


def test_an_uncertified_rule_runs_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from autoglm.rewrite import certificate

    monkeypatch.setattr(certificate, "certified", lambda: frozenset({"gelu-erf"}))

    assert "BatchNormalization" in kinds(prepare(cnn())[0])
    asked, _ = prepare(cnn(), passes={"conv-batchnorm": True})
    assert "BatchNormalization" not in kinds(asked)


def test_functions_are_inlined_with_the_calls_as_sources() -> None:
    text = """<ir_version: 10, opset_import: ["" : 20, "local" : 1]>
    main (float[2] x) => (float[2] y) { h = local.Twice(x)  z = local.Twice(h)  y = Relu(z) }
    <domain: "local", opset_import: ["" : 20]> Twice (a) => (b) { c = Add(a, a)  b = Sqrt(c) }"""
    model = ir.from_onnx_text(text)
    for i, node in enumerate(model.graph):
        node.name = f"n{i}"

    prepared, _ = prepare(model)

    assert kinds(prepared) == ["Add", "Sqrt", "Add", "Sqrt", "Relu"]
    assert [sources(n) for n in prepared.graph][:3] == [("n0",), ("n0",), ("n1",)]
    assert not prepared.functions


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.int32, np.float64])
def test_other_dtypes_come_through(dtype: type) -> None:
    b = Builder(dtype=dtype)
    x = b.input("x", ["n", 4])
    y = b.op("Mul", b.op("Add", x, b.constant(np.ones(4, dtype))), b.constant(np.ones(1, dtype)))
    model = b.model(b.op("Reshape", y, b.constant([-1, 2], np.int64)))

    prepared, results = prepare(model)

    onnx.checker.check_model(ir.to_proto(prepared), full_check=True)
    assert kinds(prepared) == ["Add", "Reshape"]
    assert changes(results)["no-op"] == 1


def test_bodies_are_rewritten_too_and_stay_valid() -> None:
    b = Builder()
    go, x = b.input("go", [], np.bool_), b.input("x", [2, 3])
    outer = b.op("Relu", x, name="outer")
    bodies = {}
    for side, last in (("then_branch", "Neg"), ("else_branch", "Abs")):
        nodes = [
            onnx.helper.make_node("Transpose", [outer], [f"{side}1"], perm=[1, 0]),
            onnx.helper.make_node("Transpose", [f"{side}1"], [f"{side}2"], perm=[1, 0]),
            onnx.helper.make_node(last, [f"{side}2"], [f"{side}3"]),
        ]
        out = onnx.helper.make_tensor_value_info(f"{side}3", onnx.TensorProto.FLOAT, [2, 3])
        bodies[side] = onnx.helper.make_graph(nodes, side, [], [out])
    model = b.model(b.op("If", go, name="if", **bodies))

    prepared, _ = prepare(model)

    onnx.checker.check_model(ir.to_proto(prepared), full_check=True)
    assert sorted(n.op for n in node_facts(prepared)[1].body) == ["Abs", "Neg"]
    given = {"go": np.array(True), "x": np.ones((2, 3), np.float32)}
    assert np.array_equal(run(model, given)[0], run(prepared, given)[0])


def test_two_thousand_nodes_take_linear_time() -> None:
    def seconds(count: int) -> float:
        model = chain(*["Relu", "Erf", "Abs", "Sigmoid"] * (count // 4))
        start = time.process_time()
        prepare(model)
        return time.process_time() - start

    small, large = seconds(500), seconds(2000)

    assert large < 4.0  # about 0.5 s on an idle machine
    assert large < 12 * small
