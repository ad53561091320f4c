"""Tiny models with seeded random weights that the tests of every room share.

`from models import cnn` works in any test: pyproject puts `tests` on the path.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

Shape = Sequence[int | str | None]


class Builder:
    """Writes an ONNX graph one operator at a time; every node and value has a stable name."""

    def __init__(self, opset: int = 20, seed: int = 0, dtype: Any = np.float32) -> None:
        self.opset = opset
        self.dtype = np.dtype(dtype)
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.domains: dict[str, int] = {}

    def input(self, name: str, shape: Shape | None, dtype: Any = None) -> str:
        """Declare a graph input."""
        element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype or self.dtype))
        self.inputs.append(helper.make_tensor_value_info(name, element, shape))
        return name

    def constant(self, value: Any, dtype: Any = None, name: str = "") -> str:
        """An initializer with this value; floats take the builder's dtype."""
        array = np.asarray(value)
        if dtype is not None:
            array = array.astype(dtype)
        elif array.dtype == np.float64:
            array = array.astype(self.dtype)
        name = name or f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, *shape: int, scale: float | None = None) -> str:
        """A random initializer, scaled so that a chain of layers keeps its magnitude."""
        fan_in = int(np.prod(shape[1:])) if len(shape) > 2 else shape[0]
        scale = scale if scale is not None else 1.0 / np.sqrt(max(fan_in, 1))
        return self.constant(
            self.random.standard_normal(shape) * scale, name=f"w{len(self.weights)}"
        )

    def op(
        self, kind: str, *inputs: str, name: str = "", outputs: int = 1, **attributes: Any
    ) -> Any:
        """Append a node; returns its output name, or a list where it has several."""
        domain, _, short = kind.rpartition("::")
        name = name or f"{short.lower()}_{len(self.nodes)}"
        given = [f"{name}:{i}" if outputs > 1 else f"{name}_out" for i in range(outputs)]
        node = helper.make_node(short, inputs, given, name=name, domain=domain, **attributes)
        self.nodes.append(node)
        if domain:
            self.domains.setdefault(domain, 1)
        return given[0] if outputs == 1 else given

    def proto(self, *outputs: str, check: bool = True) -> onnx.ModelProto:
        """The finished model; output types come from shape inference."""
        graph = helper.make_graph(
            self.nodes,
            "tiny",
            self.inputs,
            [onnx.ValueInfoProto(name=o) for o in outputs],
            self.weights,
        )
        imports = [helper.make_opsetid("", self.opset)]
        imports += [helper.make_opsetid(d, v) for d, v in self.domains.items()]
        model = helper.make_model(graph, opset_imports=imports, ir_version=10)
        model = onnx.shape_inference.infer_shapes(model)
        if check:
            onnx.checker.check_model(model)
        return model

    def model(self, *outputs: str, check: bool = True) -> ir.Model:
        """The finished model as onnx_ir."""
        return ir.from_proto(self.proto(*outputs, check=check))


def mlp(*, batch: int | str = 2, width: int = 16, layers: int = 2, opset: int = 20) -> ir.Model:
    """Gemm and Relu, `layers` times; input `x` [batch, width], output `y`-like [batch, width]."""
    b = Builder(opset)
    x = b.input("x", [batch, width])
    for i in range(layers):
        x = b.op("Gemm", x, b.weight(width, width), b.weight(width), name=f"gemm{i}")
        x = b.op("Relu", x, name=f"relu{i}")
    return b.model(x)


def cnn(
    *, batch: int | str = 1, channels: int = 4, size: int = 8, classes: int = 5, opset: int = 20
) -> ir.Model:
    """Conv, BatchNormalization, Relu, MaxPool, residual, global mean, Gemm; input `image`."""
    b = Builder(opset)
    x = b.input("image", [batch, 3, size, size])
    for i, inside in enumerate((3, channels)):
        y = b.op("Conv", x, b.weight(channels, inside, 3, 3), name=f"conv{i}", pads=[1] * 4)
        variance = b.constant(b.random.uniform(0.5, 2.0, channels))
        rest = [b.weight(channels, scale=0.5) for _ in range(3)]
        y = b.op("BatchNormalization", y, *rest, variance, name=f"bn{i}")
        y = b.op("Relu", y, name=f"relu{i}")
        x = (
            b.op("Add", x, y, name="residual")
            if i
            else b.op("MaxPool", y, name="pool", kernel_shape=[2, 2], strides=[2, 2])
        )
    x = b.op("GlobalAveragePool", x, name="mean")
    x = b.op("Flatten", x, name="flat")
    return b.model(b.op("Gemm", x, b.weight(channels, classes), b.weight(classes), name="head"))


def _layer_norm(b: Builder, x: str, width: int, name: str) -> str:
    scale = b.constant(1.0 + 0.1 * b.random.standard_normal(width))
    return str(b.op("LayerNormalization", x, scale, b.weight(width), name=name, axis=-1))


def _linear(b: Builder, x: str, inside: int, outside: int, name: str) -> str:
    y = b.op("MatMul", x, b.weight(inside, outside), name=f"{name}/matmul")
    return str(b.op("Add", y, b.weight(outside), name=f"{name}/bias"))


def _heads(b: Builder, x: str, heads: int, size: int, name: str) -> str:
    shape = b.constant([0, 0, heads, size], np.int64)
    x = b.op("Reshape", x, shape, name=f"{name}/split")
    return str(b.op("Transpose", x, name=f"{name}/transpose", perm=[0, 2, 1, 3]))


def _attention(b: Builder, x: str, width: int, heads: int, mask: str = "") -> str:
    size = width // heads
    q, k, v = (_heads(b, _linear(b, x, width, width, n), heads, size, n) for n in "qkv")
    k = b.op("Transpose", k, name="k/last", perm=[0, 1, 3, 2])
    scores = b.op("MatMul", q, k, name="scores")
    scores = b.op("Mul", scores, b.constant(1.0 / np.sqrt(size)), name="scale")
    if mask:
        scores = b.op("Add", scores, mask, name="mask")
    weights = b.op("Softmax", scores, name="softmax", axis=-1)
    y = b.op("MatMul", weights, v, name="context")
    y = b.op("Transpose", y, name="merge/transpose", perm=[0, 2, 1, 3])
    y = b.op("Reshape", y, b.constant([0, 0, width], np.int64), name="merge")
    return _linear(b, str(y), width, width, "out")


def _gelu(b: Builder, x: str) -> str:
    y = b.op("Div", x, b.constant(np.sqrt(2.0)), name="gelu/div")
    y = b.op("Erf", y, name="gelu/erf")
    y = b.op("Add", y, b.constant(1.0), name="gelu/add")
    y = b.op("Mul", x, y, name="gelu/mul")
    return str(b.op("Mul", y, b.constant(0.5), name="gelu/half"))


def transformer(
    *,
    batch: int | str = 1,
    sequence: int | str = 6,
    width: int = 16,
    heads: int = 2,
    opset: int = 20,
    seed: int = 0,
) -> ir.Model:
    """One post-norm encoder block with decomposed Gelu; input `x` [batch, sequence, width]."""
    b = Builder(opset, seed)
    x = b.input("x", [batch, sequence, width])
    x = b.op("Add", x, _attention(b, x, width, heads), name="residual1")
    x = _layer_norm(b, x, width, "norm1")
    y = _gelu(b, _linear(b, x, width, 4 * width, "up"))
    x = b.op("Add", x, _linear(b, y, 4 * width, width, "down"), name="residual2")
    return b.model(_layer_norm(b, x, width, "norm2"))


def decoder(*, batch: int = 1, sequence: int = 6, width: int = 16, heads: int = 2) -> ir.Model:
    """One pre-norm decoder block: decomposed RMSNorm, causal mask, gated SiLU; input `x`."""
    b = Builder(20)
    x = b.input("x", [batch, sequence, width])
    mask = b.constant(np.triu(np.full((sequence, sequence), -1e9), 1).astype(np.float32))
    y = _attention(b, _rms_norm(b, x, width, "rms1"), width, heads, mask)
    x = b.op("Add", x, y, name="residual1")
    y = _rms_norm(b, x, width, "rms2")
    gate = b.op("MatMul", y, b.weight(width, 2 * width), name="gate")
    gate = b.op("Mul", gate, b.op("Sigmoid", gate, name="sigmoid"), name="silu")
    up = b.op("MatMul", y, b.weight(width, 2 * width), name="up")
    y = b.op("Mul", gate, up, name="gated")
    y = b.op("MatMul", y, b.weight(2 * width, width), name="down")
    return b.model(b.op("Add", x, y, name="residual2"))


def _rms_norm(b: Builder, x: str, width: int, name: str) -> str:
    y = b.op("Pow", x, b.constant(2.0), name=f"{name}/pow")
    y = b.op("ReduceMean", y, b.constant([-1], np.int64), name=f"{name}/mean", keepdims=1)
    y = b.op("Add", y, b.constant(1e-6), name=f"{name}/eps")
    y = b.op("Reciprocal", b.op("Sqrt", y, name=f"{name}/sqrt"), name=f"{name}/rsqrt")
    y = b.op("Mul", x, y, name=f"{name}/normal")
    return str(b.op("Mul", y, b.constant(np.ones(width)), name=f"{name}/scale"))


def chain(*kinds: str, shape: Shape = (2, 4), dtype: Any = np.float32, opset: int = 20) -> ir.Model:
    """Unary operators in a row: `chain("Relu", "Erf")` has nodes `relu_0`, `erf_1`; input `x`."""
    b = Builder(opset, dtype=dtype)
    x = b.input("x", shape)
    for kind in kinds:
        x = b.op(kind, x)
    return b.model(x)


def diamond(shape: Shape = (2, 4)) -> ir.Model:
    """x -> top (Relu) -> left (Sigmoid), right (Tanh) -> join (Add)."""
    b = Builder()
    x = b.op("Relu", b.input("x", shape), name="top")
    left, right = b.op("Sigmoid", x, name="left"), b.op("Tanh", x, name="right")
    return b.model(b.op("Add", left, right, name="join"))


def branch(shape: Shape = (2, 4)) -> ir.Model:
    """An If whose bodies read a value of the main graph; inputs `x` and the bool `go`."""
    b = Builder()
    x, go = b.input("x", shape), b.input("go", [], np.bool_)
    outer = b.op("Relu", x, name="outer")
    bodies = {}
    for name, kind in (("then_branch", "Sigmoid"), ("else_branch", "Tanh")):
        node = helper.make_node(kind, [outer], [f"{name}_out"], name=f"{name}/{kind.lower()}")
        out = helper.make_tensor_value_info(f"{name}_out", onnx.TensorProto.FLOAT, shape)
        bodies[name] = helper.make_graph([node], name, [], [out])
    y = b.op("If", go, name="if", **bodies)
    return b.model(b.op("Neg", y, name="after"))


def feeds(model: ir.Model, seed: int = 0, symbols: int = 3) -> dict[str, np.ndarray]:
    """Seeded random inputs: normal floats, 0 or 1 else; a symbolic dimension is `symbols`."""
    random = np.random.default_rng(seed)
    made = {}
    for value in model.graph.inputs:
        assert value.shape is not None
        assert value.dtype is not None
        assert value.name is not None
        shape = [d if isinstance(d, int) else symbols for d in value.shape]
        kind = value.dtype.numpy()
        if value.dtype.is_floating_point():
            made[value.name] = np.asarray(random.standard_normal(shape)).astype(kind)
        else:
            made[value.name] = np.asarray(random.integers(0, 2, shape)).astype(kind)
    return made
