"""Facts of nodes, names that survive, and the digest."""

from __future__ import annotations

import time

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from models import Builder, branch, chain, cnn, mlp

from autoglm.rewrite.facts import model_digest, node_facts, sources


def test_facts_come_in_topological_order_even_where_the_file_is_not() -> None:
    proto = ir.to_proto(chain("Relu", "Erf", "Abs"))
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(reversed(nodes))

    facts = node_facts(ir.from_proto(proto))

    assert [f.name for f in facts] == ["relu_0", "erf_1", "abs_2"]


def test_a_node_says_op_since_version_dtype_shape_and_what_is_constant() -> None:
    conv = node_facts(cnn(batch="n"))[0]

    assert (conv.op, conv.since) == ("Conv", 11)
    assert conv.inputs[0].dtype == "float32"
    assert conv.inputs[0].shape == ("n", 3, 8, 8)
    assert [v.constant for v in conv.inputs] == [False, True]
    assert conv.outputs[0].shape == ("n", 4, 8, 8)
    assert conv.attributes == {"pads": (1, 1, 1, 1)}


def test_what_a_constant_node_gives_is_constant() -> None:
    b = Builder()
    axes = b.op("Constant", value_ints=[1])
    model = b.model(b.op("ReduceSum", b.input("x", [2, 3]), axes, keepdims=0))

    by_op = {f.op: f for f in node_facts(model)}

    assert [v.constant for v in by_op["ReduceSum"].inputs] == [False, True]
    assert [v.constant for v in by_op["ReduceSum"].outputs] == [False]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int32", "bool", "float8_e4m3fn", "int4"])
def test_dtypes_have_the_names_of_numpy_and_ml_dtypes(dtype: str) -> None:
    b = Builder()
    x = b.input("x", [2], getattr(ml_dtypes, dtype, None) or np.dtype(dtype))

    facts = node_facts(b.model(b.op("Identity", x), check=False))

    assert facts[0].inputs[0].dtype == dtype


def test_bodies_are_flattened_with_their_own_types() -> None:
    facts = {f.name: f for f in node_facts(branch())}

    assert sorted(n.op for n in facts["if"].body) == ["Sigmoid", "Tanh"]
    assert facts["if"].body[0].inputs[0].shape == (2, 4)


def test_an_operator_of_another_domain_is_named_with_it() -> None:
    b = Builder()
    y = b.op("com.acme::Twist", b.input("x", [2]))

    facts = node_facts(b.model(y, check=False))

    assert (facts[0].op, facts[0].since) == ("com.acme::Twist", 1)
    assert facts[0].outputs[0].shape is None


def test_an_untouched_node_is_its_own_source_and_metadata_wins() -> None:
    node = mlp().graph[0]

    assert sources(node) == ("gemm0",)
    node.metadata_props["autoglm.source"] = "a,b"
    assert sources(node) == ("a", "b")


def test_two_thousand_nodes_take_a_moment() -> None:
    model = chain(*["Relu", "Abs"] * 1000)

    start = time.process_time()
    facts = node_facts(model)

    assert len(facts) == 2000
    assert time.process_time() - start < 0.6


def test_the_digest_knows_weights_attributes_names_and_opset_but_not_documentation() -> None:
    proto = ir.to_proto(mlp())
    digest = model_digest(ir.from_proto(proto))

    def changed(edit: object) -> bool:
        other = onnx.ModelProto()
        other.CopyFrom(proto)
        edit(other)  # type: ignore[operator]
        return model_digest(ir.from_proto(other)) != digest

    def weight(p: onnx.ModelProto) -> None:
        raw = bytearray(p.graph.initializer[0].raw_data)
        raw[0] ^= 1
        p.graph.initializer[0].raw_data = bytes(raw)

    def attribute(p: onnx.ModelProto) -> None:
        p.graph.node[0].attribute.append(onnx.helper.make_attribute("alpha", 0.5))

    def documentation(p: onnx.ModelProto) -> None:
        p.doc_string, p.producer_name = "words", "someone"
        p.graph.node[0].doc_string = "more words"
        p.metadata_props.add(key="a", value="b")

    def opset(p: onnx.ModelProto) -> None:
        p.opset_import[0].version = 19

    def name(p: onnx.ModelProto) -> None:
        p.graph.node[0].name = "other"

    assert [changed(e) for e in (weight, attribute, opset, name)] == [True] * 4
    assert not changed(documentation)
    assert not changed(lambda p: p.graph.initializer.reverse())  # the order of weights in the file


def test_the_digest_is_the_same_for_weights_in_a_file_beside_the_model(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = mlp(width=64)
    before = model_digest(model)

    ir.save(model.clone(), tmp_path / "m.onnx", external_data="m.bin", size_threshold_bytes=0)
    loaded = ir.load(tmp_path / "m.onnx")

    assert isinstance(loaded.graph.initializers["w0"].const_value, ir.ExternalTensor)
    assert model_digest(loaded) == before
