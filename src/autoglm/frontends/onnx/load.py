"""One ONNX source to one `ir.Model`: read, check, bring weights in, inline, raise, name, infer."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoglm.errors import ModelError
from autoglm.frontends import check_sizes, infer, name_nodes
from autoglm.frontends.onnx.external import ExternalFiles, Region

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

_PADDLE = "autoglm.paddle"


def load(source: object) -> ir.Model:
    """The model behind a path, serialized bytes, a ModelProto or an `ir.Model` (never changed)."""
    if isinstance(source, (str, os.PathLike)):
        return _from_path(Path(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _from_bytes(memoryview(source).cast("B"), ExternalFiles(None), "the given bytes")
    if type(source).__name__ == "ModelProto":
        return _from_proto(source)
    return _prepare(_own(source))


def _from_path(path: Path) -> ir.Model:
    from autoglm.frontends.onnx.source import open_model

    return _from_bytes(open_model(path), ExternalFiles(path.parent), str(path))


def _from_bytes(data: memoryview, files: ExternalFiles, where: str) -> ir.Model:
    from autoglm.frontends.onnx.source import refuse_foreign
    from autoglm.frontends.onnx.wire import split

    refuse_foreign(bytes(data[:1024]), len(data), where)
    skeleton = split(data)
    proto = _parse(skeleton.data, where)
    return _build(proto, {i: data[a:b] for i, (a, b) in skeleton.spans.items()}, files)


def _from_proto(source: Any) -> ir.Model:
    proto = type(source)()
    proto.CopyFrom(source)
    return _build(proto, {}, ExternalFiles(None))


def _parse(data: bytes, where: str) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise ModelError(
            "{where} is damaged, or nested deeper than any real model: {reason}.",
            hint="Download or export the model again.",
            where=where,
            reason=str(error)[:200],
        ) from error
    return proto


def _build(
    proto: onnx.ModelProto, weights: Mapping[int, memoryview], files: ExternalFiles
) -> ir.Model:
    import onnx_ir as ir

    from autoglm.frontends.onnx.header import check_header
    from autoglm.frontends.onnx.sparse import make_dense
    from autoglm.frontends.onnx.structure import check_structure, check_texts

    try:
        check_texts(proto)
        check_header(proto)
        check_structure(proto, {i: (0, len(data)) for i, data in weights.items()})
        names = [tensor.name for tensor in proto.graph.initializer]
        make_dense(proto)
        model = ir.from_proto(proto)
    except (UnicodeDecodeError, ir.serde.SerdeError, NotImplementedError) as error:
        raise ModelError(
            "The model cannot be read: {reason}.",
            hint="The file is damaged, or uses a part of ONNX that is not supported.",
            reason=_reason(error),
        ) from error
    for index, data in weights.items():
        _place(model.graph.initializers[names[index]], data)
    return _prepare(_bring_in(model, files))


def _reason(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).splitlines() or [""])[0][:200]


def _place(value: ir.Value, data: memoryview) -> None:
    from autoglm.frontends.onnx.tensors import mapped_tensor

    declared = value.const_value
    assert declared is not None
    dims = [int(d) for d in declared.shape.numpy()]
    value.const_value = mapped_tensor(data, int(declared.dtype), dims, value.name or "")


def _own(source: object) -> ir.Model:
    import onnx_ir as ir

    if not isinstance(source, ir.Model):
        raise ModelError(
            "Expected an ONNX path, bytes, ModelProto or onnx_ir.Model, found {kind}.",
            kind=type(source).__name__,
        )
    model = source.clone()
    folders = {
        str(t.base_dir)
        for t in _tensors(model)
        if isinstance(t, ir.ExternalTensor) and str(t.base_dir)
    }
    if len(folders) > 1:
        raise ModelError("The model's external data lies in several folders; one is allowed.")
    return _bring_in(model, ExternalFiles(Path(folders.pop()) if folders else None))


def _tensors(model: ir.Model) -> Iterator[Any]:
    for graph in model.graphs():
        yield from (v.const_value for v in graph.initializers.values())
        for node in graph:
            yield from (a.value for a in node.attributes.values() if a.type.name == "TENSOR")


def _bring_in(model: ir.Model, files: ExternalFiles) -> ir.Model:
    """Replace every external tensor by one over checked, mapped bytes."""
    import onnx_ir as ir

    graphs = [*model.graphs(), *(g for f in model.functions.values() for g in _graphs_of(f))]
    for graph in graphs:
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = _mapped(value.const_value, files)
        for node in graph:
            for name, attribute in list(node.attributes.items()):
                if isinstance(attribute.value, ir.ExternalTensor):
                    node.attributes[name] = ir.AttrTensor(name, _mapped(attribute.value, files))
    return model


def _graphs_of(function: ir.Function) -> Iterator[ir.Graph]:
    yield function.graph
    yield from function.subgraphs()


def _mapped(tensor: ir.ExternalTensor, files: ExternalFiles) -> ir.TensorProtocol:
    from autoglm.frontends.onnx.tensors import check_dims, mapped_tensor
    from autoglm.tensor.dtype import from_onnx, nbytes

    name = tensor.name or ""
    dims = [int(d) for d in tensor.shape.numpy()]
    need = nbytes(from_onnx(int(tensor.dtype)), check_dims(name, dims))
    region = Region(str(tensor.location), tensor.offset or 0, tensor.length)
    return mapped_tensor(files.read(region, need, name), int(tensor.dtype), dims, name)


def _prepare(model: ir.Model) -> ir.Model:
    from autoglm.frontends.onnx.functions import inline
    from autoglm.frontends.opset import raise_opset

    # Says which files may replace the model: the paddle frontend's word, never that of a source.
    model.metadata_props.pop(_PADDLE, None)
    _weights_are_not_inputs(model)
    name_nodes(model)
    inline(model)
    name_nodes(model)
    _infer(model)
    raised = raise_opset(model)
    if raised is not model:
        _infer(raised)
    name_nodes(raised)
    check_sizes(raised)
    return raised


def _infer(model: ir.Model) -> None:
    from autoglm.frontends.onnx.guard import survive

    survive("onnx's shape inference", lambda: infer(model))
    infer(model)


def _weights_are_not_inputs(model: ir.Model) -> None:
    # Before IR version 4 every weight had to be listed as an input too.
    graph = model.graph
    if model.ir_version < 4:
        given = [v for v in graph.inputs if v.name not in graph.initializers]
        graph.inputs.clear()
        graph.inputs.extend(given)
