"""Damaged bytes give an AutoGLMError or a model, never anything else, and quickly."""

from __future__ import annotations

import time

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from autoglm.errors import AutoGLMError
from autoglm.frontends.huggingface.safetensors import read_file
from autoglm.frontends.onnx import Onnx
from autoglm.frontends.onnx.wire import split


def info(name: str, shape: object, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def a_model(opset: int) -> bytes:
    """Weights small and large, a body, a local function, attributes of most types."""
    rng = np.random.default_rng(0)
    large = numpy_helper.from_array(rng.normal(size=(8, 3, 8, 8)).astype(np.float32), "w")
    small = numpy_helper.from_array(rng.normal(size=8).astype(np.float32), "b")
    branch = helper.make_graph(
        [helper.make_node("Neg", ["r"], ["t"])], "then", [], [info("t", None)]
    )
    other = helper.make_graph(
        [helper.make_node("Abs", ["r"], ["e"])], "else", [], [info("e", None)]
    )
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1], kernel_shape=[8, 8]),
        helper.make_node("F", ["c"], ["r"], domain="f"),
        helper.make_node("If", ["go"], ["i"], then_branch=branch, else_branch=other),
        helper.make_node("Softmax", ["i"], ["s"], axis=1),
        helper.make_node("Pad", ["s"], ["p"], pads=[0] * 8)
        if opset < 11
        else helper.make_node("Identity", ["s"], ["p"]),
        helper.make_node(
            "Constant", [], ["k"], value=numpy_helper.from_array(np.ones(1, np.float32))
        ),
        helper.make_node("Add", ["p", "k"], ["y"], name="last"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [info("x", ("n", 3, 16, 16)), info("go", (), TensorProto.BOOL)],
        [info("y", None)],
        [large, small],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("f", 1)]
    function = helper.make_function(
        "f", "F", ["a"], ["o"], [helper.make_node("Relu", ["a"], ["o"])], imports[:1]
    )
    proto = helper.make_model(graph, opset_imports=imports, functions=[function], ir_version=9)
    return proto.SerializeToString()


MODELS = [a_model(9), a_model(17)]
QUICK = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


def only_clear_errors(data: bytes) -> None:
    started = time.monotonic()
    text = ""
    try:
        Onnx().load(data)
    except AutoGLMError as error:
        text = str(error)
    assert "\n" not in text
    assert time.monotonic() - started < 5


def test_the_model_that_is_damaged_loads_whole() -> None:
    for data in MODELS:
        model = Onnx().load(data)

        assert model.opset_imports[""] >= 17
        assert [n.op_type for n in model.graph][:2] == ["Conv", "Relu"]


@QUICK
@given(st.sampled_from(MODELS), st.data())
def test_truncation_is_a_clear_error(data: bytes, draw: st.DataObject) -> None:
    only_clear_errors(data[: draw.draw(st.integers(0, len(data)))])


@QUICK
@given(st.sampled_from(MODELS), st.data())
def test_flipped_bytes_are_a_clear_error_or_a_model(data: bytes, draw: st.DataObject) -> None:
    damaged = bytearray(data)
    graph = [i for i in range(len(data)) if not 6200 > i > 60]  # mostly outside the large weight
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.sampled_from(graph))
        damaged[at] = draw.draw(st.integers(0, 255))

    only_clear_errors(bytes(damaged))


@QUICK
@given(st.binary(max_size=300))
def test_random_bytes_are_a_clear_error(data: bytes) -> None:
    only_clear_errors(b"\x08\x09" + data)


@QUICK
@given(st.binary(max_size=200))
def test_the_wire_reader_agrees_with_protobuf_or_refuses(data: bytes) -> None:
    try:
        skeleton = split(memoryview(data))
    except AutoGLMError:
        return
    ours, theirs = onnx.ModelProto(), onnx.ModelProto()
    try:
        theirs.ParseFromString(data)
    except Exception:
        with pytest.raises(Exception):  # noqa: B017
            ours.ParseFromString(skeleton.data)
        return
    ours.ParseFromString(skeleton.data)
    assert ours == theirs


@QUICK
@given(st.data())
def test_damaged_safetensors_are_a_clear_error_or_arrays(
    tmp_path_factory: pytest.TempPathFactory, draw: st.DataObject
) -> None:
    header = b'{"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}'
    data = bytearray(len(header).to_bytes(8, "little") + header + bytes(24))
    for _ in range(draw.draw(st.integers(1, 3))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "fuzz.safetensors"
    path.write_bytes(bytes(data[: draw.draw(st.integers(0, len(data)))]))

    try:
        weights = read_file(path)
    except AutoGLMError:
        return
    assert all(array.nbytes <= 24 for array in weights.values())
