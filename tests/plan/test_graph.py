"""The planner's view of real models: edges, weights, captured values, and what was assumed."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from plan.graphs import node, value

from autoglm.errors import ModelError
from autoglm.plan import Graph, Wiring, graph_of, make_graph


def model(text: str, **weights: np.ndarray) -> ir.Model:
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}')
    for name, array in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for i, item in enumerate(proto.graph.node):
        item.name = f"{item.op_type}_{i}"
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def tensor(graph: Graph, name: str):  # type: ignore[no-untyped-def]
    return next(t for t in graph.tensors if t.name == name)


def test_edges_weights_and_bytes() -> None:
    graph = graph_of(
        model(
            "g (float[4, 8] x) => (float[4, 3] z) { y = MatMul(x, w) h = Relu(y) z = Add(h, y) }",
            w=np.ones((8, 3), np.float32),
        )
    )

    assert [n.name for n in graph.nodes] == ["MatMul_0", "Relu_1", "Add_2"]
    assert graph.nodes[0].inputs == ("x",)
    assert graph.nodes[0].weights == ("w",)
    assert graph.weight_bytes == 8 * 3 * 4
    assert tensor(graph, "y").producer == "MatMul_0"
    assert tensor(graph, "y").consumers == ("Relu_1", "Add_2")
    assert tensor(graph, "y").bytes == 4 * 3 * 4
    assert tensor(graph, "x").producer == ""
    assert graph.inputs == ("x",)
    assert graph.outputs == ("z",)
    assert graph.nodes[0].flops == 2 * 4 * 8 * 3
    assert graph.notes == ()


def test_open_dimensions_are_bound_or_assumed_and_said() -> None:
    open_model = model("g (float[batch, 8] x) => (float[batch, 8] y) { y = Relu(x) }")

    assumed = graph_of(open_model, default_dim=3)
    bound = graph_of(open_model, dims={"batch": 5})

    assert tensor(assumed, "y").bytes == 3 * 8 * 4
    assert assumed.notes == ("Costs take dimension 'batch' as 3.",)
    assert tensor(bound, "y").bytes == 5 * 8 * 4
    assert bound.notes == ()


def test_what_a_body_captures_is_an_input_of_its_node() -> None:
    text = """g (bool c, float[4] x) => (float[4] z) {
        y = Relu(x)
        z = If(c) <
            then_branch = t () => (float[4] a) { a = Add(y, w) },
            else_branch = e () => (float[4] b) { b = Neg(x) }
        >
    }"""
    graph = graph_of(model(text, w=np.ones(4, np.float32)))
    branch = next(n for n in graph.nodes if n.op == "If")

    assert set(branch.inputs) == {"c", "y", "x"}
    assert branch.weights == ("w",)
    assert tensor(graph, "y").consumers == (branch.name,)


def test_loops_are_priced_for_one_trip_and_say_so() -> None:
    text = """g (int64 n, bool c, float[4] x) => (float[4] y) {
        y = Loop(n, c, x) <body = b (int64 i, bool k, float[4] v) => (bool k2, float[4] v2) {
            k2 = Identity(k) v2 = Add(v, v) }>
    }"""

    assert any("Loop" in note for note in graph_of(model(text)).notes)


def test_image_tensors_carry_a_layout() -> None:
    graph = graph_of(model("g (float[1, 3, 8, 8] x) => (float[1, 3, 8, 8] y) { y = Relu(x) }"))

    assert tensor(graph, "y").layout == "NCHW"


def test_two_nodes_of_one_name_are_refused_by_name() -> None:
    twin = node("n", "Relu", [value(1)], value(1))

    with pytest.raises(ModelError, match="'n'"):
        make_graph([twin, twin], [Wiring(("x",), ("a",)), Wiring(("a",), ("b",))], inputs=["x"])


def test_a_node_that_reads_a_later_one_is_refused() -> None:
    first, second = (node(n, "Relu", [value(1)], value(1)) for n in "ab")

    with pytest.raises(ModelError, match="before it is made"):
        make_graph([first, second], [Wiring(("t",), ("s",)), Wiring(("x",), ("t",))], inputs=["x"])


def test_a_graph_without_nodes_is_a_graph() -> None:
    assert make_graph([], [], inputs=["x"], outputs=["x"]).nodes == ()
