"""Sparse weights made dense, within a size limit: no engine here takes them sparse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autoglm.errors import LimitError, ModelError
from autoglm.frontends import shown
from autoglm.frontends.onnx.attributes import subgraphs
from autoglm.frontends.onnx.tensors import check_dims, check_tensor, dtype_of

if TYPE_CHECKING:
    import onnx

_MAX_DENSE_BYTES = 1 << 30


def make_dense(proto: onnx.ModelProto) -> None:
    """Replace sparse initializers and sparse `Constant` values by dense ones, in place."""
    _graph(proto.graph)
    for function in proto.functions:
        _nodes(function)


def _graph(graph: onnx.GraphProto) -> None:
    for sparse in graph.sparse_initializer:
        graph.initializer.append(dense(sparse))
    del graph.sparse_initializer[:]
    _nodes(graph)


def _nodes(graph: onnx.GraphProto | onnx.FunctionProto) -> None:
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == attribute.SPARSE_TENSOR:
                attribute.t.CopyFrom(dense(attribute.sparse_tensor))
                attribute.ClearField("sparse_tensor")
                attribute.type = attribute.TENSOR
                if attribute.name == "sparse_value":
                    attribute.name = "value"
            elif attribute.type == attribute.SPARSE_TENSORS:
                raise ModelError(
                    "Attribute {name} holds sparse tensors, which are not supported.",
                    name=shown(attribute.name),
                )
        for body in subgraphs(node):
            _graph(body)


def dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    """The dense tensor; refuses indices out of range and shapes that would fill memory."""
    import numpy as np
    from onnx import numpy_helper

    from autoglm.tensor.dtype import bits

    name = sparse.values.name
    for part in (sparse.values, sparse.indices):
        check_tensor(part)
        if part.data_location == part.EXTERNAL:
            raise ModelError(
                "Sparse tensor {name}: external data is not supported.", name=shown(name)
            )
    dims = list(sparse.dims)
    count = check_dims(name, dims)
    size = count * (bits(dtype_of(sparse.values, name)) or 64) // 8
    if size > _MAX_DENSE_BYTES:
        raise LimitError(
            "Sparse tensor {name} of shape {dims} takes {size} bytes once dense; limit {limit}.",
            name=shown(name),
            dims=dims,
            size=size,
            limit=_MAX_DENSE_BYTES,
        )
    values = numpy_helper.to_array(sparse.values)
    where = _places(numpy_helper.to_array(sparse.indices), dims, values.size, name)
    array: Any = np.zeros(count, values.dtype)
    array[where] = values.reshape(-1)
    return numpy_helper.from_array(array.reshape(dims), name)


def _places(indices: Any, dims: list[int], count: int, name: str) -> Any:
    # Indices are linear, or one row of coordinates per value (onnx.proto, SparseTensorProto).
    import numpy as np

    rows = indices.reshape(count, -1) if count and indices.size % count == 0 else indices
    coordinates = rows.ndim == 2 and rows.shape[1] == len(dims) and indices.ndim == 2
    limits = np.array(dims if coordinates else [int(np.prod(dims, dtype=np.int64))])
    fits = indices.dtype == np.int64 and indices.size == count * len(limits)
    if not fits or (count and ((rows < 0) | (rows >= limits)).any()):
        raise ModelError(
            "Sparse tensor {name}: its indices do not fit the shape {dims}.",
            name=shown(name),
            dims=dims,
        )
    if not coordinates:
        return rows.reshape(-1)
    return np.ravel_multi_index(tuple(rows.T), dims) if count else np.zeros(0, np.int64)
