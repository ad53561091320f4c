"""What a loaded ONNX model is like: names, shapes, weights, functions, custom operators."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from autoglm.errors import LimitError, ModelError
from autoglm.frontends.onnx import Onnx
from autoglm.frontends.onnx.guard import survive
from autoglm.spec import Frontend

RNG = np.random.default_rng(3)


def info(name: str, shape: Any = (2, 3), kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: list[onnx.NodeProto],
    *,
    opset: int = 20,
    inputs: Any = None,
    outputs: Any = None,
    weights: Any = (),
    functions: Any = (),
    domains: Any = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        inputs or [info("x")],
        outputs or [info("y", None)],
        [numpy_helper.from_array(a, n) for n, a in weights],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=9)


def run(loaded: ir.Model | onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    proto = ir.to_proto(loaded) if isinstance(loaded, ir.Model) else loaded
    return list(ort.InferenceSession(proto.SerializeToString()).run(None, feeds))


def test_the_frontend_keeps_the_protocol() -> None:
    assert isinstance(Onnx(), Frontend)
    assert Onnx.name == "onnx"


def test_detection_takes_onnx_and_nothing_else(tmp_path: Path) -> None:
    proto = model([helper.make_node("Relu", ["x"], ["y"])])
    renamed = tmp_path / "model.bin"
    renamed.write_bytes(proto.SerializeToString())
    text = tmp_path / "notes.txt"
    text.write_text("hello")

    takes = [
        s
        for s in ("m.onnx", "m.ONNX", Path("m.onnx"), renamed, proto, b"\x08", ir.from_proto(proto))
        if Onnx().detect(s)
    ]

    assert len(takes) == 7
    assert not any(Onnx().detect(s) for s in (text, tmp_path, "m.pt", 3, None, object()))


def test_every_kind_of_source_gives_the_same_model(tmp_path: Path) -> None:
    proto = model([helper.make_node("Relu", ["x"], ["y"])])
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    data = path.read_bytes()

    sources = (
        path,
        str(path),
        data,
        bytearray(data),
        memoryview(data),
        proto,
        ir.from_proto(proto),
    )
    texts = [ir.to_proto(Onnx().load(source)).SerializeToString() for source in sources]

    assert len(set(texts)) == 1


def test_the_caller_s_objects_are_not_changed() -> None:
    proto = model([helper.make_node("Softmax", ["x"], ["y"])], opset=9)
    before = proto.SerializeToString()
    given = ir.from_proto(proto)

    Onnx().load(proto)
    Onnx().load(given)

    assert proto.SerializeToString() == before
    assert ir.to_proto(given).SerializeToString() == before


def test_unnamed_and_repeated_nodes_get_stable_unique_names() -> None:
    body = helper.make_graph([helper.make_node("Abs", ["a"], ["t"])], "b", [], [info("t", None)])
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Neg", ["a"], ["b"], name="same"),
        helper.make_node("Neg", ["b"], ["d"], name="same"),
        helper.make_node("If", ["c"], ["e"], then_branch=body, else_branch=body),
        helper.make_node("Add", ["d", "e"], ["y"], name="with, comma"),
    ]
    proto = model(nodes, inputs=[info("x"), info("c", (), TensorProto.BOOL)])

    first, second = Onnx().load(proto), Onnx().load(proto)

    names = [n.name for n in first.graph.all_nodes()]
    assert names == [n.name for n in second.graph.all_nodes()]
    assert len(set(names)) == len(names)
    assert {"Relu_0", "same", "Neg_2", "If_3", "with_ comma"} <= set(names)
    for node in first.graph.all_nodes():
        assert node.metadata_props["autoglm.source"] == node.name


def test_shapes_are_inferred_and_weights_of_old_models_are_no_inputs() -> None:
    weight = RNG.normal(size=(4, 3)).astype(np.float32)
    proto = model(
        [helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)],
        opset=13,
        inputs=[info("x", ("n", 3)), info("w", (4, 3))],
        weights=[("w", weight)],
    )
    proto.ir_version = 3

    loaded = Onnx().load(proto)

    assert [v.name for v in loaded.graph.inputs] == ["x"]
    assert str(loaded.graph.outputs[0].shape) == "[n,4]"
    assert loaded.ir_version >= 8


def test_nodes_out_of_order_are_sorted() -> None:
    nodes = [helper.make_node("Neg", ["a"], ["y"]), helper.make_node("Relu", ["x"], ["a"])]

    loaded = Onnx().load(model(nodes))

    assert [n.op_type for n in loaded.graph] == ["Relu", "Neg"]


def test_custom_operators_and_domains_load() -> None:
    nodes = [
        helper.make_node("Magic", ["x"], ["a"], domain="acme", power=3),
        helper.make_node("NotAnOnnxOperator", ["a"], ["b"]),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    loaded = Onnx().load(model(nodes, domains=["acme"]))
    old = Onnx().load(model(nodes, opset=11, domains=["acme"]))

    assert [n.op_type for n in loaded.graph] == ["Magic", "NotAnOnnxOperator", "Relu"]
    assert old.opset_imports[""] == 11
    assert "NotAnOnnxOperator" in old.metadata_props["autoglm.opset_note"]


def test_a_model_without_nodes_loads() -> None:
    loaded = Onnx().load(model([], outputs=[info("x")]))

    assert len(loaded.graph) == 0
    assert [v.name for v in loaded.graph.outputs] == ["x"]


def test_the_default_domain_has_one_name() -> None:
    proto = model([helper.make_node("Relu", ["x"], ["y"], domain="ai.onnx")])
    proto.opset_import[0].domain = "ai.onnx"

    loaded = Onnx().load(proto)

    assert dict(loaded.opset_imports) == {"": 20}
    assert loaded.graph[0].domain == ""


def test_sparse_weights_become_dense() -> None:
    proto = model([helper.make_node("Add", ["x", "w"], ["y"])])
    sparse = proto.graph.sparse_initializer.add(dims=[2, 3])
    sparse.values.CopyFrom(numpy_helper.from_array(np.array([5, 7], np.float32), "w"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.array([[0, 1], [1, 2]], np.int64), "i"))

    (y,) = run(Onnx().load(proto), {"x": np.zeros((2, 3), np.float32)})

    np.testing.assert_array_equal(y, [[0, 5, 0], [0, 0, 7]])


# ---------------------------------------------------------------------------- functions


def scale_function(opset: int, name: str = "Scale") -> onnx.FunctionProto:
    nodes = [
        helper.make_node("Constant", [], ["two"], value_float=2.0),
        helper.make_node("Mul", ["a", "two"], ["b"], name="double"),
    ]
    return helper.make_function("f", name, ["a"], ["b"], nodes, [helper.make_opsetid("", opset)])


def test_local_functions_are_inlined_under_their_call_s_name() -> None:
    outer = helper.make_function(
        "f",
        "Twice",
        ["a"],
        ["c"],
        [
            helper.make_node("Scale", ["a"], ["b"], domain="f"),
            helper.make_node("Scale", ["b"], ["c"], domain="f"),
        ],
        [helper.make_opsetid("", 20), helper.make_opsetid("f", 1)],
    )
    nodes = [
        helper.make_node("Twice", ["x"], ["m"], domain="f", name="first"),
        helper.make_node("Scale", ["m"], ["y"], domain="f", name="second"),
    ]
    proto = model(nodes, functions=[scale_function(20), outer], domains=["f"])
    x = RNG.normal(size=(2, 3)).astype(np.float32)

    loaded = Onnx().load(proto)

    names = [n.name for n in loaded.graph]
    assert not loaded.functions
    assert len(set(names)) == len(names) == 6
    assert all(str(n).startswith(("first/", "second/")) for n in names)
    assert "second/double" in {str(n)[:13] for n in names}
    assert [n.metadata_props["autoglm.source"] for n in loaded.graph] == names
    assert [v.name for v in loaded.graph.outputs] == ["y"]
    np.testing.assert_allclose(run(loaded, {"x": x})[0], x * 8, 1e-6)


@pytest.mark.parametrize(("outer", "inner"), [(13, 12), (12, 13), (17, 18), (20, 18)])
def test_functions_of_another_opset_are_moved_to_the_model_s(outer: int, inner: int) -> None:
    body = [helper.make_node("Softmax", ["a"], ["b"], axis=1 if inner < 13 else -1)]
    function = helper.make_function("f", "S", ["a"], ["b"], body, [helper.make_opsetid("", inner)])
    nodes = [
        helper.make_node("S", ["x"], ["m"], domain="f", name="call"),
        helper.make_node("Softmax", ["m"], ["y"], axis=1),
    ]
    proto = model(nodes, opset=outer, functions=[function], domains=["f"])
    x = RNG.normal(size=(2, 3)).astype(np.float32)

    (y,) = run(Onnx().load(proto), {"x": x})

    def softmax(v: Any) -> Any:
        return np.exp(v) / np.exp(v).sum(-1, keepdims=True)

    np.testing.assert_allclose(y, softmax(softmax(x)), 1e-5)


def test_a_function_s_attribute_reaches_its_body() -> None:
    node = helper.make_node("Softmax", ["a"], ["b"])
    reference = onnx.AttributeProto(
        name="axis", ref_attr_name="where", type=onnx.AttributeProto.INT
    )
    node.attribute.append(reference)
    function = helper.make_function(
        "f", "S", ["a"], ["b"], [node], [helper.make_opsetid("", 20)], attributes=["where"]
    )
    proto = model(
        [helper.make_node("S", ["x"], ["y"], domain="f", where=0)],
        functions=[function],
        domains=["f"],
    )
    x = RNG.normal(size=(2, 3)).astype(np.float32)

    (y,) = run(Onnx().load(proto), {"x": x})

    np.testing.assert_allclose(y.sum(0), np.ones(3), 1e-5)


# ---------------------------------------------------------------------------- weights


def big_model(folder: Path, *, external: bool) -> tuple[Path, Any]:
    weight = RNG.normal(size=(64, 64)).astype(np.float32)
    proto = model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        inputs=[info("x", (1, 64))],
        weights=[("w", weight)],
    )
    path = folder / "m.onnx"
    if external:
        (folder / "data").mkdir()
        onnx.save(proto, path, save_as_external_data=True, location="data/w.bin", size_threshold=0)
    else:
        onnx.save(proto, path)
    return path, weight


@pytest.mark.parametrize("external", [False, True], ids=["inside", "external"])
def test_large_weights_are_mapped_not_copied(tmp_path: Path, external: bool) -> None:
    path, weight = big_model(tmp_path, external=external)

    tensor = Onnx().load(path).graph.initializers["w"].const_value

    assert tensor is not None
    array = tensor.numpy()
    np.testing.assert_array_equal(array, weight)
    assert not array.flags.owndata
    assert not array.flags.writeable
    assert not isinstance(tensor, ir.ExternalTensor)  # checked bytes, not a path to be opened again


@pytest.mark.parametrize(
    "kind", ["bfloat16", "float8_e4m3fn", "int4", "uint2", "float16", "bool", "int64"]
)
@pytest.mark.parametrize("external", [False, True], ids=["inside", "external"])
def test_weights_of_every_width_keep_their_values(
    tmp_path: Path, kind: str, external: bool
) -> None:
    import ml_dtypes

    dtype = np.dtype(getattr(ml_dtypes, kind, None) or kind)
    values = RNG.integers(0, 2, size=(99, 101)).astype(dtype)
    tensor = ir.to_proto(ir.Tensor(values, name="w"))
    proto = model([helper.make_node("Identity", ["w"], ["y"])])
    proto.graph.initializer.append(tensor)
    path = tmp_path / "m.onnx"
    onnx.save(proto, path, save_as_external_data=external, location="w.bin", size_threshold=0)

    loaded = Onnx().load(path).graph.initializers["w"].const_value

    assert loaded is not None
    np.testing.assert_array_equal(loaded.numpy().astype(np.float32), values.astype(np.float32))


def test_a_proto_with_external_data_and_no_folder_is_refused(tmp_path: Path) -> None:
    path, _ = big_model(tmp_path, external=True)

    with pytest.raises(ModelError) as caught:
        Onnx().load(onnx.load(path, load_external_data=False))

    assert "path" in caught.value.hint


def test_an_ir_model_brings_its_own_folder(tmp_path: Path) -> None:
    path, weight = big_model(tmp_path, external=True)

    tensor = Onnx().load(ir.load(path)).graph.initializers["w"].const_value

    assert tensor is not None
    np.testing.assert_array_equal(tensor.numpy(), weight)


def test_a_model_of_three_gigabytes_loads_in_little_memory(tmp_path: Path) -> None:
    size = 3 << 30
    with (tmp_path / "w.bin").open("wb") as stream:
        stream.truncate(size)  # sparse: takes no disk
    proto = model([helper.make_node("Slice", ["w", "s", "e"], ["y"])])
    weight = proto.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[size // 4])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="w.bin")
    proto.graph.initializer.extend(
        numpy_helper.from_array(np.array([i], np.int64), n) for n, i in (("s", 0), ("e", 9))
    )
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    script = (
        "import re, sys; from autoglm.frontends.onnx import Onnx;"
        "m = Onnx().load(sys.argv[1]);"
        "status = open('/proc/self/status').read();"
        "print(m.graph.outputs[0].shape, re.search(r'VmHWM:\\s*(\\d+)', status)[1])"
    )

    output = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "m.onnx")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()

    assert output[0] == "[9]"
    assert int(output[1]) < 600_000  # KiB


# ---------------------------------------------------------------------------- the guard


def test_native_code_that_aborts_is_an_error_not_the_end() -> None:
    with pytest.raises(ModelError, match="SIGABRT"):
        survive("inference", os.abort)


def test_a_signal_without_a_name_is_said_by_its_number() -> None:
    number = signal.SIGRTMIN + 5

    with pytest.raises(ModelError, match=rf"\({number}\)"):
        survive("inference", lambda: os.kill(os.getpid(), number))


def test_native_code_that_does_not_end_is_stopped() -> None:
    def forever() -> None:
        while True:
            pass

    with pytest.raises(LimitError):
        survive("inference", forever, seconds=0.3)
