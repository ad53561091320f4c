"""Broken and hostile model files: name -> (builder, the error class that must come).

`HOSTILE[name].build(folder)` writes the file (and what it needs beside it) and returns its path.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from autoglm.errors import (
    AutoGLMError,
    FileMissingError,
    LimitError,
    ModelError,
    ModelSecurityError,
)

Build = Callable[[Path], Path]


@dataclass(frozen=True)
class Case:
    """One hostile source, and the class of the one error it must give."""

    build: Build
    error: type[AutoGLMError]


HOSTILE: dict[str, Case] = {}


def case(error: type[AutoGLMError] = ModelError) -> Callable[[Build], Build]:
    def add(build: Build) -> Build:
        HOSTILE[build.__name__] = Case(build, error)
        return build

    return add


def value(name: str, shape: Any = (2, 2), kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def graph(nodes: Any, inputs: Any = ("x",), outputs: Any = ("y",), weights: Any = ()) -> Any:
    return helper.make_graph(
        list(nodes), "g", [value(n) for n in inputs], [value(n) for n in outputs], list(weights)
    )


def model(nodes: Any = None, *, opset: int = 17, **parts: Any) -> onnx.ModelProto:
    nodes = [helper.make_node("Relu", ["x"], ["y"], name="relu")] if nodes is None else nodes
    return helper.make_model(
        graph(nodes, **parts), opset_imports=[helper.make_opsetid("", opset)], ir_version=9
    )


def write(folder: Path, proto: onnx.ModelProto | bytes, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(proto if isinstance(proto, bytes) else proto.SerializeToString())
    return path


def weight(name: str = "w", dims: Any = (2, 2), raw: bytes | None = b"\0" * 16) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=dims)
    if raw is not None:
        tensor.raw_data = raw
    return tensor


def with_weight(folder: Path, tensor: TensorProto) -> Path:
    return write(folder, model([helper.make_node("Add", ["x", "w"], ["y"])], weights=[tensor]))


def external(location: str, **entries: str) -> TensorProto:
    tensor = weight(raw=None)
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=text)
    return tensor


# ------------------------------------------------------------ files that are no model


@case()
def empty_file(folder: Path) -> Path:
    return write(folder, b"")


@case(FileMissingError)
def missing_file(folder: Path) -> Path:
    return folder / "model.onnx"


@case()
def a_folder(folder: Path) -> Path:
    path = folder / "model.onnx"
    path.mkdir()
    return path


@case()
def a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "model.onnx")
    return folder / "model.onnx"


@case()
def html_page(folder: Path) -> Path:
    return write(folder, b"<!DOCTYPE html>\n<html><body>404</body></html>")


@case()
def lfs_pointer(folder: Path) -> Path:
    return write(folder, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")


@case()
def text_file(folder: Path) -> Path:
    return write(folder, b"this is no model\n" * 40)


@case()
def json_file(folder: Path) -> Path:
    return write(folder, b'{"error": "not found"}')


@case()
def zip_file(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "model.onnx", "w") as opened:
        opened.writestr("model", "x")
    return folder / "model.onnx"


@case()
def gzip_file(folder: Path) -> Path:
    return write(folder, gzip.compress(model().SerializeToString()))


@case()
def safetensors_file(folder: Path) -> Path:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return write(folder, len(header).to_bytes(8, "little") + header + b"\0" * 4)


@case()
def pickle_file(folder: Path) -> Path:
    return write(folder, pickle.dumps({"w": 1}))


@case()
def random_bytes(folder: Path) -> Path:
    return write(folder, np.random.default_rng(0).bytes(4096))


@case()
def truncated(folder: Path) -> Path:
    data = model(
        [helper.make_node("Add", ["x", "w"], ["y"])], weights=[weight()]
    ).SerializeToString()
    return write(folder, data[: len(data) // 2])


@case()
def wrong_wire_type(folder: Path) -> Path:
    return write(folder, b"\x08\x09\x3f\x3f\x3f")


@case()
def no_graph(folder: Path) -> Path:
    return write(folder, onnx.ModelProto(ir_version=9))


@case()
def no_ir_version(folder: Path) -> Path:
    proto = model()
    proto.ClearField("ir_version")
    return write(folder, proto)


# ---------------------------------------------------------------------------- versions


@case()
def future_opset(folder: Path) -> Path:
    return write(folder, model(opset=9999))


@case()
def opset_zero(folder: Path) -> Path:
    return write(folder, model(opset=0))


@case()
def negative_opset(folder: Path) -> Path:
    return write(folder, model(opset=-3))


@case()
def future_ir_version(folder: Path) -> Path:
    proto = model()
    proto.ir_version = 99
    return write(folder, proto)


@case()
def two_opsets(folder: Path) -> Path:
    proto = model()
    proto.opset_import.add(domain="ai.onnx", version=12)
    return write(folder, proto)


@case()
def no_opset(folder: Path) -> Path:
    proto = model()
    del proto.opset_import[:]
    return write(folder, proto)


# ---------------------------------------------------------------------------- external data


@case(ModelSecurityError)
def external_parent(folder: Path) -> Path:
    (folder / "secret").write_bytes(b"\0" * 16)
    (folder / "inner").mkdir()
    return with_weight(folder / "inner", external("../secret"))


@case(ModelSecurityError)
def external_inner_parent(folder: Path) -> Path:
    (folder / "a").mkdir()
    (folder / "w").write_bytes(b"\0" * 16)
    return with_weight(folder, external("a/../w"))


@case(ModelSecurityError)
def external_absolute(folder: Path) -> Path:
    return with_weight(folder, external("/etc/passwd"))


@case(ModelSecurityError)
def external_backslash(folder: Path) -> Path:
    return with_weight(folder, external("..\\w"))


@case(ModelSecurityError)
def external_symlink(folder: Path) -> Path:
    (folder / "real").write_bytes(b"\0" * 16)
    (folder / "w").symlink_to("real")
    return with_weight(folder, external("w"))


@case(ModelSecurityError)
def external_parent_symlink(folder: Path) -> Path:
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "w").write_bytes(b"\0" * 16)
    (folder / "data").symlink_to("elsewhere", target_is_directory=True)
    return with_weight(folder, external("data/w"))


@case(ModelSecurityError)
def external_hardlink(folder: Path) -> Path:
    (folder / "real").write_bytes(b"\0" * 16)
    os.link(folder / "real", folder / "w")
    return with_weight(folder, external("w"))


@case(ModelSecurityError)
def external_fifo(folder: Path) -> Path:
    os.mkfifo(folder / "w")
    return with_weight(folder, external("w"))


@case(ModelSecurityError)
def external_unknown_key(folder: Path) -> Path:
    (folder / "w").write_bytes(b"\0" * 16)
    return with_weight(folder, external("w", __class__="x"))


@case(ModelSecurityError)
def external_repeated_key(folder: Path) -> Path:
    (folder / "w").write_bytes(b"\0" * 16)
    tensor = external("w")
    tensor.external_data.add(key="location", value="../w")
    return with_weight(folder, tensor)


@case(FileMissingError)
def external_missing(folder: Path) -> Path:
    return with_weight(folder, external("w"))


@case(ModelSecurityError)
def external_is_a_folder(folder: Path) -> Path:
    (folder / "w").mkdir()
    return with_weight(folder, external("w"))


@case()
def external_too_short(folder: Path) -> Path:
    (folder / "w").write_bytes(b"\0" * 8)
    return with_weight(folder, external("w"))


@case()
def external_wrong_length(folder: Path) -> Path:
    (folder / "w").write_bytes(b"\0" * 64)
    return with_weight(folder, external("w", length="64"))


@case()
def external_offset_beyond(folder: Path) -> Path:
    (folder / "w").write_bytes(b"\0" * 64)
    return with_weight(folder, external("w", offset=str(1 << 60), length="16"))


@case()
def external_negative_offset(folder: Path) -> Path:
    (folder / "w").write_bytes(b"\0" * 64)
    return with_weight(folder, external("w", offset="-4"))


@case()
def external_no_location(folder: Path) -> Path:
    tensor = weight(raw=None)
    tensor.data_location = TensorProto.EXTERNAL
    return with_weight(folder, tensor)


@case(ModelSecurityError)
def external_in_a_constant(folder: Path) -> Path:
    node = helper.make_node("Constant", [], ["w"], value=weight())
    node.attribute[0].t.CopyFrom(external("/etc/passwd"))
    return write(folder, model([node, helper.make_node("Add", ["x", "w"], ["y"])]))


# ---------------------------------------------------------------------------- tensors


@case()
def weight_too_short(folder: Path) -> Path:
    return with_weight(folder, weight(raw=b"\0" * 12))


@case()
def weight_without_values(folder: Path) -> Path:
    return with_weight(folder, weight(raw=None))


@case(LimitError)
def weight_of_2_to_50(folder: Path) -> Path:
    return with_weight(folder, weight(dims=(1 << 50,), raw=b"\0" * 16))


@case(LimitError)
def weight_whose_size_overflows(folder: Path) -> Path:
    return with_weight(folder, weight(dims=(1 << 62, 1 << 62), raw=b"\0" * 16))


@case()
def weight_with_negative_dims(folder: Path) -> Path:
    return with_weight(folder, weight(dims=(-2, -2)))


@case()
def weight_of_unknown_type(folder: Path) -> Path:
    tensor = weight()
    tensor.data_type = 99
    return with_weight(folder, tensor)


@case()
def weight_stored_twice(folder: Path) -> Path:
    tensor = weight()
    tensor.float_data.extend([0.0] * 4)
    return with_weight(folder, tensor)


@case()
def weight_in_the_wrong_field(folder: Path) -> Path:
    tensor = weight(raw=None)
    tensor.int64_data.extend([0] * 4)
    return with_weight(folder, tensor)


@case()
def weight_of_rank_1000(folder: Path) -> Path:
    return with_weight(folder, weight(dims=[1] * 1000, raw=b"\0" * 4))


@case()
def two_weights_of_one_name(folder: Path) -> Path:
    node = helper.make_node("Add", ["x", "w"], ["y"])
    return write(folder, model([node], weights=[weight(), weight()]))


@case(LimitError)
def sparse_weight_of_2_to_40(folder: Path) -> Path:
    proto = model([helper.make_node("Add", ["x", "w"], ["y"])])
    sparse = proto.graph.sparse_initializer.add(dims=[1 << 20, 1 << 20])
    sparse.values.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), "w"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.zeros(1, np.int64), "i"))
    return write(folder, proto)


@case()
def sparse_weight_out_of_range(folder: Path) -> Path:
    proto = model([helper.make_node("Add", ["x", "w"], ["y"])])
    sparse = proto.graph.sparse_initializer.add(dims=[2, 2])
    sparse.values.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), "w"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.array([9], np.int64), "i"))
    return write(folder, proto)


@case(LimitError)
def input_of_2_to_50(folder: Path) -> Path:
    proto = model()
    proto.graph.input[0].CopyFrom(value("x", (1 << 50, 4)))
    return write(folder, proto)


@case(LimitError)
def constant_of_shape_2_to_50(folder: Path) -> Path:
    shape = numpy_helper.from_array(np.array([1 << 50], np.int64), "s")
    proto = model([helper.make_node("ConstantOfShape", ["s"], ["y"])], weights=[shape])
    proto.graph.output[0].CopyFrom(value("y", None))
    return write(folder, proto)


@case()
def input_with_negative_dims(folder: Path) -> Path:
    proto = model()
    proto.graph.input[0].CopyFrom(value("x", (-1, 4)))
    return write(folder, proto)


@case()
def input_of_unknown_type(folder: Path) -> Path:
    proto = model()
    proto.graph.input[0].type.tensor_type.elem_type = 77
    return write(folder, proto)


# ---------------------------------------------------------------------------- graph structure


@case()
def a_cycle(folder: Path) -> Path:
    nodes = [
        helper.make_node("Add", ["x", "b"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="second"),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    return write(folder, model(nodes))


@case()
def a_node_that_reads_itself(folder: Path) -> Path:
    return write(folder, model([helper.make_node("Add", ["x", "y"], ["y"])]))


@case()
def dangling_input(folder: Path) -> Path:
    return write(folder, model([helper.make_node("Add", ["x", "ghost"], ["y"])]))


@case()
def dangling_output(folder: Path) -> Path:
    return write(folder, model([helper.make_node("Relu", ["x"], ["z"])]))


@case()
def dangling_in_a_body(folder: Path) -> Path:
    branch = helper.make_graph([helper.make_node("Relu", ["ghost"], ["t"])], "b", [], [value("t")])
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    proto = model([node])
    proto.graph.input.append(value("c", (), TensorProto.BOOL))
    return write(folder, proto)


@case()
def one_value_produced_twice(folder: Path) -> Path:
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Abs", ["x"], ["y"])]
    return write(folder, model(nodes))


@case()
def one_node_giving_a_name_twice(folder: Path) -> Path:
    return write(folder, model([helper.make_node("Split", ["x"], ["y", "y"], num_outputs=2)]))


@case()
def one_output_given_twice(folder: Path) -> Path:
    return write(folder, model(outputs=("y", "y")))


@case()
def one_input_named_twice(folder: Path) -> Path:
    return write(folder, model(inputs=("x", "x")))


@case()
def an_input_without_name(folder: Path) -> Path:
    return write(folder, model(inputs=("x", "")))


@case()
def a_node_without_operator(folder: Path) -> Path:
    proto = model()
    proto.graph.node[0].op_type = ""
    return write(folder, proto)


@case(LimitError)
def bodies_nested_28_deep(folder: Path) -> Path:
    return write(folder, _nested(28))


@case()
def bodies_nested_200_deep(folder: Path) -> Path:
    return write(folder, _nested(200))


def _field(number: int, payload: bytes) -> bytes:
    size, head = len(payload), bytearray([number << 3 | 2])
    while size > 127:
        head.append(size & 127 | 128)
        size >>= 7
    head.append(size)
    return bytes(head) + payload


def _nested(depth: int) -> bytes:
    """A Loop within a Loop within a Loop …, written by hand: protobuf itself stops at depth 100."""
    inner = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [], [value("y")])
    body = inner.SerializeToString()
    output = _field(12, value("y").SerializeToString())
    inputs = _field(1, b"") + _field(1, b"c")
    for _ in range(depth):
        attribute = _field(5, _field(1, b"body") + _field(6, body) + b"\xa0\x01\x05")
        node = inputs + _field(2, b"y") + _field(4, b"Loop") + attribute
        body = _field(1, node) + _field(2, b"g") + output
    graph_bytes = body + _field(11, value("x").SerializeToString())
    graph_bytes += _field(11, value("c", (), TensorProto.BOOL).SerializeToString())
    return b"\x08\x09" + _field(7, graph_bytes) + _field(8, b"\x10\x11")


@case(LimitError)
def a_million_empty_nodes(folder: Path) -> Path:
    return write(folder, b"\x08\x09" + _field(7, b"\x0a\x00" * 1_000_001) + _field(8, b"\x10\x11"))


# ------------------------------------------------------------ attributes, functions, text


@case()
def attribute_of_the_wrong_type(folder: Path) -> Path:
    return write(folder, model([helper.make_node("Concat", ["x"], ["y"], axis="one")]))


@case()
def attribute_given_twice(folder: Path) -> Path:
    node = helper.make_node("Concat", ["x"], ["y"], axis=0)
    node.attribute.append(helper.make_attribute("axis", 1))
    return write(folder, model([node]))


@case()
def attribute_missing(folder: Path) -> Path:
    return write(folder, model([helper.make_node("Concat", ["x"], ["y"])]))


@case()
def attribute_holding_another_type(folder: Path) -> Path:
    node = helper.make_node("Concat", ["x"], ["y"], axis=0)
    node.attribute[0].s = b"x"
    return write(folder, model([node]))


@case()
def too_many_inputs(folder: Path) -> Path:
    return write(folder, model([helper.make_node("Relu", ["x", "x", "x"], ["y"])]))


@case()
def split_on_which_onnx_itself_aborts(folder: Path) -> Path:
    names = [f"y{i}" for i in range(4)]
    node = helper.make_node("Split", ["x"], names, num_outputs=3)
    return write(folder, model([node], opset=18, outputs=names[:1]))


@case(LimitError)
def attribute_of_8_megabytes_of_text(folder: Path) -> Path:
    return write(
        folder,
        model([helper.make_node("Gelu", ["x"], ["y"], approximate="A" * (8 << 20))], opset=20),
    )


@case()
def attribute_strings_not_utf8(folder: Path) -> Path:
    node = helper.make_node("StringNormalizer", ["x"], ["y"], stopwords=["a"])
    node.attribute[0].strings[0] = b"\xff\xfe"
    return write(folder, model([node]))


@case()
def name_not_utf8(folder: Path) -> Path:
    data = model().SerializeToString()
    return write(folder, data.replace(b"relu", b"\xff\xfe\xfd\xfc"))


def function(name: str, calls: list[str]) -> onnx.FunctionProto:
    nodes = []
    last = "a"
    for index, call in enumerate(calls):
        nodes.append(helper.make_node(call, [last], [f"t{index}"], domain="f"))
        last = f"t{index}"
    nodes.append(helper.make_node("Relu", [last], ["b"]))
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    return helper.make_function("f", name, ["a"], ["b"], nodes, imports)


def with_functions(folder: Path, *functions: onnx.FunctionProto) -> Path:
    proto = model([helper.make_node("F0", ["x"], ["y"], domain="f")])
    proto.opset_import.add(domain="f", version=1)
    proto.functions.extend(functions)
    return write(folder, proto)


@case()
def functions_in_a_circle(folder: Path) -> Path:
    return with_functions(folder, function("F0", ["F1"]), function("F1", ["F0"]))


@case(LimitError)
def functions_that_multiply(folder: Path) -> Path:
    functions = [function(f"F{i}", [f"F{i + 1}"] * 10) for i in range(9)]
    return with_functions(folder, *functions, function("F9", []))


@case()
def function_that_reads_nothing(folder: Path) -> Path:
    broken = function("F0", [])
    broken.node[0].input[0] = "ghost"
    return with_functions(folder, broken)


# ---------------------------------------------------------------------------- PyTorch archives


class _Runs:
    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (os.mkdir, (self.marker,))


def evil_pickle(folder: Path) -> bytes:
    """A pickle that makes the folder `pwned` when it is loaded."""
    return pickle.dumps(_Runs(str(folder / "pwned")), protocol=2)


def archive(path: Path, records: dict[str, bytes], root: str = "m/") -> Path:
    with zipfile.ZipFile(path, "w") as opened:
        for name, data in records.items():
            opened.writestr(root + name, data)
    return path


@case(ModelSecurityError)
def pt_legacy_pickle(folder: Path) -> Path:
    return write(folder, evil_pickle(folder), "model.pt")


@case(ModelSecurityError)
def pt_state_dict(folder: Path) -> Path:
    return archive(folder / "model.pt", {"data.pkl": evil_pickle(folder), "version": b"3\n"})


@case(ModelSecurityError)
def pth_state_dict(folder: Path) -> Path:
    return archive(folder / "model.pth", {"data.pkl": evil_pickle(folder), "version": b"3\n"})


@case()
def pt_any_zip(folder: Path) -> Path:
    return archive(folder / "model.pt", {"readme.txt": b"hello"})


@case()
def pt_html(folder: Path) -> Path:
    return write(folder, b"<html>login</html>", "model.pt")


@case()
def pt_empty(folder: Path) -> Path:
    return write(folder, b"", "model.pt2")


@case(FileMissingError)
def pt_missing(folder: Path) -> Path:
    return folder / "model.pt2"


@case()
def pt_truncated_zip(folder: Path) -> Path:
    path = archive(folder / "model.pt", {"code/a.py": b"x" * 100, "constants.pkl": b"x" * 100})
    return write(folder, path.read_bytes()[:150], "short.pt")


@case(LimitError)
def pt_zip_bomb(folder: Path) -> Path:
    path = folder / "model.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("m/code/a.py", b"\0" * (64 << 20))
        opened.writestr("m/constants.pkl", b"x")
    return path


@case(ModelSecurityError)
def pt_zip_slip(folder: Path) -> Path:
    return archive(folder / "model.pt", {"../../evil": b"x", "constants.pkl": b"x"})


@case(ModelSecurityError)
def pt_absolute_record(folder: Path) -> Path:
    return archive(folder / "model.pt", {"/etc/evil": b"x"}, root="")


@case(ModelSecurityError)
def pt2_pickled_weights(folder: Path) -> Path:
    config = {"config": {"w": {"path_name": "weight_0", "is_param": True, "use_pickle": True}}}
    return _pt2(folder, {"data/weights/model_weights_config.json": json.dumps(config).encode()})


@case(ModelSecurityError)
def pt2_custom_object(folder: Path) -> Path:
    config = {
        "config": {"w": {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": False}}
    }
    return _pt2(folder, {"data/constants/model_constants_config.json": json.dumps(config).encode()})


@case(ModelSecurityError)
def pt2_evil_example_inputs(folder: Path) -> Path:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as inner:
        inner.writestr("archive/data.pkl", evil_pickle(folder))
        inner.writestr("archive/version", b"3\n")
    return _pt2(folder, {"data/sample_inputs/model.pt": buffer.getvalue()})


@case(ModelSecurityError)
def pt2_native_code(folder: Path) -> Path:
    return _pt2(folder, {"data/aotinductor/model/x.so": b"\x7fELF"})


@case(ModelSecurityError)
def pt2_evil_target(folder: Path) -> Path:
    return _pt2(folder, program={"nodes": [{"target": "torch.ops.load_library", "inputs": []}]})


@case(ModelSecurityError)
def pt2_evil_expression(folder: Path) -> Path:
    text = "__import__('os').mkdir('pwned')"
    return _pt2(folder, program={"sizes": [{"as_expr": {"expr_str": text}}]})


@case(ModelSecurityError)
def pt2_enum_import(folder: Path) -> Path:
    spec = json.dumps([1, {"context": json.dumps({"__enum__": True, "fqn": "antigravity:X"})}])
    return _pt2(folder, program={"in_spec": spec})


@case()
def pt2_broken_json(folder: Path) -> Path:
    return _pt2(folder, {"models/model.json": b"{"})


def _pt2(
    folder: Path, records: dict[str, bytes] | None = None, program: dict[str, Any] | None = None
) -> Path:
    base = {
        "archive_format": b"pt2",
        "archive_version": b"0",
        "models/model.json": json.dumps(program or {}).encode(),
    }
    return archive(folder / "model.pt2", {**base, **(records or {})})


# ---------------------------------------------------------------------------- Hugging Face folders

BERT = {
    "model_type": "bert",
    "vocab_size": 10,
    "hidden_size": 4,
    "num_hidden_layers": 0,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 8,
    "type_vocab_size": 2,
}


def safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def hf(folder: Path, weights: bytes | None = None, config: Any = None, **files: bytes) -> Path:
    path = folder / "hf"
    path.mkdir()
    (path / "config.json").write_bytes(json.dumps(BERT if config is None else config).encode())
    if weights is not None:
        (path / "model.safetensors").write_bytes(weights)
    for name, data in files.items():
        (path / name.replace("__", ".")).write_bytes(data)
    return path


def _entry(**changes: Any) -> dict[str, Any]:
    return {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}}


@case(ModelSecurityError)
def hf_pickle_weights(folder: Path) -> Path:
    return hf(folder, pytorch_model__bin=evil_pickle(folder))


@case(FileMissingError)
def hf_no_weights(folder: Path) -> Path:
    return hf(folder)


@case()
def hf_lfs_pointer(folder: Path) -> Path:
    return hf(folder, b"version https://git-lfs.github.com/spec/v1\n")


@case()
def hf_header_beyond_file(folder: Path) -> Path:
    return hf(folder, safetensors(b"{}", length=1 << 60))


@case()
def hf_header_not_json(folder: Path) -> Path:
    return hf(folder, safetensors(b"{{{{"))


@case()
def hf_header_deeply_nested(folder: Path) -> Path:
    return hf(folder, safetensors(b'{"a":' * 100_000 + b"1" + b"}" * 100_000))


@case()
def hf_key_twice(folder: Path) -> Path:
    entry = json.dumps(_entry()["w"])
    return hf(folder, safetensors(f'{{"w":{entry},"w":{entry}}}'.encode(), b"\0" * 8))


@case()
def hf_offsets_beyond(folder: Path) -> Path:
    return hf(folder, safetensors(_entry(data_offsets=[0, 1 << 40], shape=[1 << 38])))


@case()
def hf_offsets_do_not_match(folder: Path) -> Path:
    return hf(folder, safetensors(_entry(shape=[3]), b"\0" * 8))


@case()
def hf_overlap(folder: Path) -> Path:
    header = {**_entry(), "v": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}
    return hf(folder, safetensors(header, b"\0" * 12))


@case()
def hf_hole(folder: Path) -> Path:
    return hf(folder, safetensors(_entry(data_offsets=[4, 12]), b"\0" * 12))


@case()
def hf_unknown_dtype(folder: Path) -> Path:
    return hf(folder, safetensors(_entry(dtype="F33"), b"\0" * 8))


@case()
def hf_negative_shape(folder: Path) -> Path:
    return hf(folder, safetensors(_entry(shape=[-2]), b"\0" * 8))


@case()
def hf_weights_missing(folder: Path) -> Path:
    return hf(folder, safetensors(_entry(), b"\0" * 8))


@case()
def hf_config_not_json(folder: Path) -> Path:
    path = hf(folder)
    (path / "config.json").write_text("<html>")
    return path


@case()
def hf_config_is_a_list(folder: Path) -> Path:
    return hf(folder, config=[1])


@case()
def hf_heads_do_not_divide(folder: Path) -> Path:
    return hf(folder, safetensors({}), config={**BERT, "num_attention_heads": 3})


@case()
def hf_huge_layer_count(folder: Path) -> Path:
    return hf(folder, safetensors({}), config={**BERT, "num_hidden_layers": 10**12})


@case()
def hf_decoder(folder: Path) -> Path:
    return hf(folder, safetensors({}), config={**BERT, "is_decoder": True})


@case(ModelSecurityError)
def hf_shard_outside(folder: Path) -> Path:
    index = json.dumps({"weight_map": {"w": "../evil.safetensors"}}).encode()
    return hf(folder, model__safetensors__index__json=index)


@case(ModelSecurityError)
def hf_weights_link(folder: Path) -> Path:
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "w").write_bytes(safetensors(_entry(), b"\0" * 8))
    path = hf(folder)
    (path / "model.safetensors").symlink_to(folder / "elsewhere" / "w")
    return path
