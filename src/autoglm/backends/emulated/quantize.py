"""int8 as a chip with calibrated static ranges computes it: the factors of every product are
rounded to 255 symmetric steps (activations a tensor, weights an output channel), sums stay wide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from autoglm.backends.emulated.engine import create, run_all
from autoglm.backends.emulated.rounding import array_of, insert
from autoglm.rewrite.facts import node_name, sources
from autoglm.spec import CompileOptions

# Operator -> the axis of its weight that output channels lie on.
_PRODUCTS = {"Conv": 0, "ConvTranspose": 1, "MatMul": -1, "Gemm": -1}
_STEPS = 127.0


def quantize(model: ir.Model, options: CompileOptions) -> None:
    """Round, in place, what products read; CompileError without calibration data."""
    nodes = [
        n
        for n in model.graph
        if n.op_type in _PRODUCTS
        and not n.domain
        and not {node_name(n), *sources(n)} & options.keep_high
    ]
    factors = [v for n in nodes for v in n.inputs[:2] if v is not None and array_of(v) is None]
    ranges = _ranges(model, list(dict.fromkeys(factors)), options)
    for node in nodes:
        for index, value in enumerate(node.inputs[:2]):
            if value is None or value.dtype != ir.DataType.FLOAT:
                continue
            array = array_of(value)
            if array is not None:
                _round_weight(model.graph, node, index, array)
            elif ranges.get(value, 0.0) > 0.0:
                _round_activation(model.graph, node, value, ranges[value] / _STEPS)


def _ranges(
    model: ir.Model, values: Sequence[ir.Value], options: CompileOptions
) -> Mapping[ir.Value, float]:
    """The largest magnitude of each value over the calibration data."""
    names = [v.name or "" for v in values]
    given = {v.name for v in model.graph.inputs}
    computed = [n for n in dict.fromkeys(names) if n not in given]
    found: dict[str, float] = dict.fromkeys(names, 0.0)
    engine = create(model, computed)
    for feeds in options.calibration:
        seen = {**feeds, **run_all(engine, computed, feeds)}
        for name in found:
            found[name] = max(found[name], float(np.abs(seen[name]).max(initial=0.0)))
    return {v: found[v.name or ""] for v in values}


def _round_weight(graph: ir.Graph, node: ir.Node, index: int, array: Any) -> None:
    axis = _PRODUCTS[node.op_type]
    if node.op_type == "Gemm" and node.attributes.get_int("transB"):
        axis = 0
    axes = tuple(i for i in range(array.ndim) if i != axis % max(array.ndim, 1))
    scale = np.maximum(np.abs(array).max(axis=axes, keepdims=True), 1e-30) / _STEPS
    rounded = (np.rint(array / scale) * scale).astype(np.float32)
    value = ir.Value(
        name=f"{node_name(node)}/{index}/int8",
        shape=ir.Shape(array.shape),
        type=ir.TensorType(ir.DataType.FLOAT),
        const_value=ir.tensor(rounded, name=f"{node_name(node)}/{index}/int8"),
    )
    graph.register_initializer(value)
    node.replace_input_with(index, value)


def _round_activation(graph: ir.Graph, node: ir.Node, value: ir.Value, scale: float) -> None:
    stem = f"{node_name(node)}/{value.name}"
    step = _constant(graph, f"{stem}/scale", np.array(scale, np.float32))
    zero = _constant(graph, f"{stem}/zero", np.array(0, np.int8))
    low = ir.node("QuantizeLinear", [value, step, zero], name=f"{stem}/quantized")
    high = ir.node("DequantizeLinear", [low.outputs[0], step, zero], name=f"{stem}/widened")
    insert(graph, value, [low, high], before=node, users=[node])
    for made in (low, high):
        made.outputs[0].name = made.name


def _constant(graph: ir.Graph, name: str, array: Any) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    value = ir.Value(
        name=name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value
