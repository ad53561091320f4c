"""An encoder's graph from its weights: embeddings, layers of attention and feed-forward, pooler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from autoglm.errors import ModelError
from autoglm.frontends import shown
from autoglm.frontends.huggingface.builder import OPSET, Builder, declare, graph_input
from autoglm.frontends.huggingface.families import Encoder
from autoglm.frontends.huggingface.safetensors import Weights

# Large enough that exp() of it is 0 in float32, small enough that float16 holds it.
_MASKED = -10_000.0
_PARAMETERS = {"weight": "gamma", "bias": "beta"}  # old TensorFlow names of LayerNorm's


class EncoderGraph:
    """Builds one encoder; `prefix` is what the checkpoint puts before every name."""

    def __init__(self, shape: Encoder, weights: Weights) -> None:
        self.shape = shape
        self.build = Builder()
        self._weights = weights
        prefixes = (shape.family.prefix, "")
        word = "embeddings.word_embeddings.weight"
        self._prefix = next((p for p in prefixes if p + word in weights), "")
        self.ids = graph_input("input_ids")
        self.mask = graph_input("attention_mask")
        self.types = graph_input("token_type_ids")
        self.bias: ir.Value | None = None

    def inputs(self) -> list[ir.Value]:
        """The graph's inputs, in the order that tokenizers give them."""
        types = [self.types] if self.shape.family.token_types == "input" else []
        return [self.ids, self.mask, *types]

    def run(self) -> ir.Value:
        """last_hidden_state."""
        self._attention_bias()
        hidden = self._embeddings()
        for index in range(self.shape.layers):
            hidden = self._layer(self.shape.family.layers.format(i=index), hidden)
        return self.build.op("last_hidden_state", "Identity", hidden)

    def pooler(self, hidden: ir.Value) -> ir.Value | None:
        """pooler_output, where the checkpoint has its weights."""
        if not self._has("pooler.dense.weight"):
            return None
        first = self.build.op(
            "pooler.first_token", "Gather", hidden, self.build.weight("zero", np.int64(0)), axis=1
        )
        size = self.shape.hidden
        dense = self.linear("pooler.dense", first, size, size)
        return self.build.op("pooler_output", "Tanh", dense)

    def linear(self, name: str, value: ir.Value, width_in: int, width_out: int) -> ir.Value:
        """x W^T + b; the transposed weight is a view of the mapped file."""
        weight = self._array(f"{name}.weight", (width_out, width_in))
        made = self.build.op(name, "MatMul", value, self.build.weight(f"{name}.weight", weight.T))
        bias = self._array(f"{name}.bias", (width_out,))
        return self.build.op(
            f"{name}.bias_add", "Add", made, self.build.weight(f"{name}.bias", bias)
        )

    def _has(self, name: str) -> bool:
        return self._prefix + name in self._weights

    def _array(self, name: str, shape: Sequence[int]) -> Any:
        array = self._weights.get(self._prefix + name)
        if array is None:
            stem, _, last = name.rpartition(".")
            array = self._weights.get(f"{self._prefix}{stem}.{_PARAMETERS.get(last, last)}")
        if array is None:
            raise ModelError(
                "The weights lack {name}.",
                hint="The folder does not hold the encoder that its config.json describes.",
                name=self._prefix + name,
            )
        if array.shape != tuple(shape):
            raise ModelError(
                "Weight {name} has shape {found}; config.json asks for {expected}.",
                hint="The weights and config.json do not belong together.",
                name=shown(name),
                found=list(array.shape),
                expected=list(shape),
            )
        return array if array.dtype == np.float32 else array.astype(np.float32)

    def _weight(self, name: str, *shape: int) -> ir.Value:
        return self.build.weight(name, self._array(name, shape))

    def _norm(self, name: str, value: ir.Value, size: int) -> ir.Value:
        return self.build.op(
            name,
            "LayerNormalization",
            value,
            self._weight(f"{name}.weight", size),
            self._weight(f"{name}.bias", size),
            axis=-1,
            epsilon=self.shape.epsilon,
        )

    def _embeddings(self) -> ir.Value:
        build, shape, size = self.build, self.shape, self.shape.embedding
        words = self._weight("embeddings.word_embeddings.weight", shape.vocabulary, size)
        total = build.op("embeddings.word_embeddings", "Gather", words, self.ids)
        if shape.family.token_types != "none":
            total = build.op("embeddings.add_types", "Add", total, self._token_types(size))
        total = build.op("embeddings.add_positions", "Add", total, self._positions(size))
        total = self._norm("embeddings.LayerNorm", total, size)
        if size != shape.hidden:
            total = self.linear("embeddings_project", total, size, shape.hidden)
        return total

    def _token_types(self, size: int) -> ir.Value:
        name = "embeddings.token_type_embeddings"
        found = self._weights.get(f"{self._prefix}{name}.weight")
        table = self._array(f"{name}.weight", (len(found) if found is not None else 1, size))
        if self.shape.family.token_types == "zero":
            return self.build.weight(f"{name}.first", table[0])
        return self.build.op(name, "Gather", self.build.weight(f"{name}.weight", table), self.types)

    def _positions(self, size: int) -> ir.Value:
        build, name = self.build, "embeddings.position_embeddings"
        table = self._weight(f"{name}.weight", self.shape.positions, size)
        if self.shape.family.positions == "absolute":
            length = build.op(f"{name}.length", "Shape", self.ids, start=1, end=2)
            start = build.ints("start", 0)
            taken = build.op(name, "Slice", table, start, length, build.ints("axis_0", 0))
            # Inference cannot see that this length is the input's.
            declare(taken, ir.DataType.FLOAT, ["sequence", size])
            return taken
        pad = build.weight("pad_token_id", np.int64(self.shape.pad))
        padding = build.op(f"{name}.is_padding", "Equal", self.ids, pad)
        real = build.op(f"{name}.is_token", "Not", padding)
        ones = build.op(f"{name}.tokens", "Cast", real, to=ir.DataType.INT64.value)
        count = build.op(f"{name}.count", "CumSum", ones, build.weight("one", np.int64(1)))
        own = build.op(f"{name}.own", "Mul", count, ones)
        return build.op(name, "Gather", table, build.op(f"{name}.ids", "Add", own, pad))

    def _attention_bias(self) -> None:
        build = self.build
        axes = build.ints("axes_1_2", 1, 2)
        wide = build.op("attention_mask.heads", "Unsqueeze", self.mask, axes)
        floats = build.op("attention_mask.float", "Cast", wide, to=ir.DataType.FLOAT.value)
        hidden = build.op("attention_mask.hidden", "Sub", build.scalar("one_f", 1.0), floats)
        self.bias = build.op("attention_mask.bias", "Mul", hidden, build.scalar("masked", _MASKED))
        if self.shape.family.relative_bias:
            self.bias = build.op("attention_mask.relative", "Add", self.bias, self._relative_bias())

    def _relative_bias(self) -> ir.Value:
        # Bucketing depends on the distance only, so the bias per distance is a table of weights.
        build, shape, name = self.build, self.shape, "encoder.relative_attention_bias"
        learned = self._array(f"{name}.weight", (shape.relative_buckets, shape.heads))
        reach = shape.positions - 1
        buckets = relative_buckets(np.arange(-reach, reach + 1), shape.relative_buckets)
        table = build.weight(f"{name}.by_distance", np.ascontiguousarray(learned[buckets]))
        length = build.op(f"{name}.length", "Shape", self.ids, start=1, end=2)
        scalar = build.op(f"{name}.end", "Squeeze", length, build.ints("axis_0", 0))
        zero, one = build.weight("zero", np.int64(0)), build.weight("one", np.int64(1))
        places = build.op(f"{name}.places", "Range", zero, scalar, one)
        declare(places, ir.DataType.INT64, ["sequence"])
        column = build.op(f"{name}.column", "Unsqueeze", places, build.ints("axis_1", 1))
        distance = build.op(f"{name}.distance", "Sub", places, column)
        offset = build.weight("reach", np.int64(reach))
        index = build.op(f"{name}.index", "Add", distance, offset)
        values = build.op(f"{name}.values", "Gather", table, index)
        heads = build.op(f"{name}.heads", "Transpose", values, perm=[2, 0, 1])
        return build.op(name, "Unsqueeze", heads, build.ints("axis_0", 0))

    def _layer(self, name: str, hidden: ir.Value) -> ir.Value:
        build, shape, family = self.build, self.shape, self.shape.family
        size = shape.hidden
        context = self._attention(name, hidden)
        attended = self.linear(name + family.attended, context, size, size)
        attended = build.op(f"{name}attention.residual", "Add", attended, hidden)
        attended = self._norm(name + family.attention_norm, attended, size)
        inner = self.linear(name + family.up, attended, size, shape.intermediate)
        op, attributes = shape.activation
        inner = build.op(f"{name}activation", op, inner, **attributes)
        inner = self.linear(name + family.down, inner, shape.intermediate, size)
        inner = build.op(f"{name}residual", "Add", inner, attended)
        return self._norm(name + family.output_norm, inner, size)

    def _attention(self, name: str, hidden: ir.Value) -> ir.Value:
        build, shape, family = self.build, self.shape, self.shape.family
        size = shape.hidden
        split = build.ints("split_heads", 0, 0, shape.heads, shape.head)
        parts = []
        for part, order in ((family.query, 1), (family.key, 3), (family.value, 1)):
            made = self.linear(name + part, hidden, size, size)
            made = build.op(f"{name}{part}.heads", "Reshape", made, split)
            perm = [0, 2, 3, 1] if order == 3 else [0, 2, 1, 3]
            parts.append(build.op(f"{name}{part}.order", "Transpose", made, perm=perm))
        query, key, value = parts
        scores = build.op(f"{name}attention.scores", "MatMul", query, key)
        scale = build.scalar("scale", 1.0 / float(np.sqrt(shape.head)))
        scores = build.op(f"{name}attention.scaled", "Mul", scores, scale)
        scores = build.op(f"{name}attention.masked", "Add", scores, self.bias)
        weights = build.op(f"{name}attention.softmax", "Softmax", scores, axis=-1)
        context = build.op(f"{name}attention.context", "MatMul", weights, value)
        context = build.op(f"{name}attention.merge", "Transpose", context, perm=[0, 2, 1, 3])
        return build.op(
            f"{name}attention.flat", "Reshape", context, build.ints("merged", 0, 0, size)
        )


def relative_buckets(distance: Any, buckets: int, reach: int = 128) -> Any:
    """T5's buckets of key - query distances: near ones exact, far ones logarithmic."""
    half = buckets // 2
    exact = half // 2
    size = np.abs(distance)
    with np.errstate(divide="ignore"):
        far = np.log(size.astype(np.float32) / np.float32(exact)) / np.float32(
            np.log(reach / exact)
        )
    far = np.where(size < exact, 0, far)  # log(0) is never used
    large = np.minimum(exact + (far * (half - exact)).astype(np.int64), half - 1)
    return np.where(distance > 0, half, 0) + np.where(size < exact, size, large)


def finish_graph(graph: EncoderGraph, outputs: Sequence[ir.Value], name: str) -> ir.Model:
    """The model around the collected nodes."""
    for value in outputs:
        value.type = ir.TensorType(ir.DataType.FLOAT)
    made = ir.Graph(
        graph.inputs(),
        list(outputs),
        nodes=graph.build.nodes,
        initializers=list(graph.build.weights.values()),
        opset_imports={"": OPSET},
        name=name,
    )
    return ir.Model(made, ir_version=10, producer_name="autoglm")
