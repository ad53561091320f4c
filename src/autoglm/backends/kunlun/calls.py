"""A model as plain data for the worker: `calls.json` and the weights' bytes beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from autoglm.errors import CompileError
from autoglm.rewrite.program import Call, constant_tensor, make_call
from autoglm.rewrite.save import input_infos, output_infos
from autoglm.spec import TensorInfo

if TYPE_CHECKING:
    import onnx_ir as ir

_ALIGN = 64
# Dtypes that Paddle's predictor does not pass at its edge (int16) or NumPy does not hold, and what
# carries their values exactly.
CARRIERS = {"int16": "int32", "bfloat16": "float32"}


def write_calls(model: ir.Model, folder: Path) -> None:
    """Write the model; CompileError for what plain data cannot say."""
    graph = model.graph
    _need_flat(graph)
    tensors = _constants(graph)
    with (folder / "weights.bin").open("wb") as stream:
        weights = _Weights(stream)
        rows = [_row(node, model, tensors, weights) for node in _nodes(graph)]
        for value in graph.outputs:
            weights.add(value, tensors)
    spec = {
        "inputs": [_edge(info) for info in input_infos(model)],
        "outputs": [_value(info) for info in output_infos(model)],
        "constants": weights.rows,
        "calls": rows,
    }
    (folder / "calls.json").write_text(json.dumps(spec), "utf-8")


def _nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    yield from (n for n in graph if n.op_type != "Constant" or n.domain not in ("", "ai.onnx"))


def _constants(graph: ir.Graph) -> dict[int, ir.TensorProtocol]:
    found = {
        id(value): value.const_value
        for value in graph.initializers.values()
        if value.const_value is not None
    }
    for node in graph:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            found[id(node.outputs[0])] = constant_tensor(node)
    return found


def _need_flat(graph: ir.Graph) -> None:
    import onnx_ir as ir

    for node in graph:
        if any(a.type is ir.AttributeType.GRAPH for a in node.attributes.values()):
            raise CompileError(
                "Node {node!r}: {op} holds a sub-graph, which is not mapped to Paddle.",
                node=node.name,
                op=node.op_type,
            )


def _edge(info: TensorInfo) -> dict[str, Any]:
    if info.kind != "tensor" or info.shape is None:
        raise CompileError(
            "Input {name!r} is a {kind} of {rank}; Paddle takes tensors whose rank is known.",
            name=info.name,
            kind=info.kind,
            rank="unknown rank" if info.shape is None else f"rank {len(info.shape)}",
        )
    shape = [d if isinstance(d, int) else None for d in info.shape]
    return {**_value(info), "shape": shape}


def _value(info: TensorInfo) -> dict[str, Any]:
    carrier = CARRIERS.get(info.dtype, info.dtype)
    return {"name": info.name, "dtype": info.dtype, "carrier": carrier}


class _Weights:
    """Writes each constant once, on a boundary that NumPy can map."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.rows: dict[str, dict[str, Any]] = {}

    def add(self, value: ir.Value | None, tensors: dict[int, ir.TensorProtocol]) -> None:
        """A value that nodes read, where it is a constant."""
        if value is not None and id(value) in tensors and value.name not in self.rows:
            self.write(str(value.name), tensors[id(value)].numpy())

    def write(self, name: str, array: Any) -> None:
        """One array under that name."""
        from autoglm.tensor.dtype import from_numpy

        dtype = from_numpy(array.dtype)
        data = b"" if dtype == "string" else array.tobytes()
        at = -(-self.stream.tell() // _ALIGN) * _ALIGN
        self.stream.seek(at)
        self.stream.write(data)
        self.rows[name] = {
            "dtype": dtype, "shape": list(array.shape), "offset": at, "bytes": len(data),
        }  # fmt: skip


def _row(
    node: ir.Node, model: ir.Model, tensors: dict[int, ir.TensorProtocol], weights: _Weights
) -> dict[str, Any]:
    call = make_call(node, model.opset_imports, tensors, {})
    for value in node.inputs:
        weights.add(value, tensors)
    return {
        "name": call.name,
        "op": call.op,
        "since": call.since,
        "attributes": dict(_attributes(call, weights)),
        "inputs": [v.name or "" if v is not None else "" for v in node.inputs],
        "results": [v.name or "" for v in node.outputs],
        "dtypes": list(call.inputs),
        "declared": list(call.outputs),
        "wanted": list(call.wanted),
    }


def _attributes(call: Call, weights: _Weights) -> Iterator[tuple[str, Any]]:
    import numpy as np

    for name, value in call.attributes.items():
        if isinstance(value, np.ndarray):
            key = f"{call.name}:{name}"  # no value of ONNX's own is written that way twice
            weights.write(key, value)
            yield name, {"constant": key}
        elif isinstance(value, (int, float, str, tuple)):
            yield name, value
        else:
            raise CompileError(
                "Node {node!r}: attribute {name} of {op} is not mapped to Paddle.",
                node=call.name,
                name=name,
                op=call.op,
            )
