"""Chains that engines fuse, and tiny whole models, with answers in float64."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from autoglm.testing.cases import Case

_OPSET = 18

# Name -> (input shape, weight shapes, output, body), in ONNX's own text format.
_PATTERNS: Mapping[str, tuple[tuple[int, ...], Mapping[str, tuple[int, ...]], str]] = {
    "matmul_bias_relu": (
        (3, 8),
        {"w": (8, 4), "b": (4,)},
        "h = MatMul(x, w) a = Add(h, b) y = Relu(a)",
    ),
    "conv_relu": (
        (1, 2, 6, 6),
        {"w": (3, 2, 3, 3), "b": (3,)},
        "h = Conv<pads = [1, 1, 1, 1]>(x, w, b) y = Relu(h)",
    ),
    "conv_batchnorm_relu": (
        (1, 2, 6, 6),
        {"w": (3, 2, 3, 3), "g": (3,), "b": (3,), "m": (3,), "v": (3,)},
        "h = Conv(x, w) n = BatchNormalization(h, g, b, m, v) y = Relu(n)",
    ),
    "gelu_erf": (
        (2, 8),
        {"r": (1,), "o": (1,), "s": (1,)},
        "d = Div(x, r) e = Erf(d) p = Add(e, o) m = Mul(x, p) y = Mul(m, s)",
    ),
    "layer_norm_spelled_out": (
        (2, 3, 8),
        {"e": (1,), "g": (8,), "b": (8,)},
        "axes = Constant<value_ints = [-1]>() two = Constant<value_float = 2.0>() "
        "mean = ReduceMean(x, axes) d = Sub(x, mean) q = Pow(d, two) var = ReduceMean(q, axes) "
        "ve = Add(var, e) s = Sqrt(ve) n = Div(d, s) ng = Mul(n, g) y = Add(ng, b)",
    ),
    "attention_spelled_out": (
        (1, 2, 4, 8),
        {"s": (1,)},
        "t = Transpose<perm = [0, 1, 3, 2]>(x) q = MatMul(x, t) qs = Mul(q, s) "
        "p = Softmax<axis = -1>(qs) y = MatMul(p, x)",
    ),
    "mlp": (
        (2, 8),
        {"w1": (8, 16), "b1": (16,), "w2": (16, 3), "b2": (3,)},
        "h = Gemm(x, w1, b1) a = Tanh(h) o = Gemm(a, w2, b2) y = Softmax(o)",
    ),
    "tiny_cnn": (
        (1, 3, 8, 8),
        {"w1": (4, 3, 3, 3), "w2": (4, 4, 3, 3), "w3": (4, 5)},
        "c = Conv<pads = [1, 1, 1, 1]>(x, w1) r = Relu(c) "
        "p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(r) "
        "d = Conv<pads = [1, 1, 1, 1]>(p, w2) s = Add(d, p) g = GlobalAveragePool(s) "
        "f = Flatten(g) y = MatMul(f, w3)",
    ),
    "tiny_encoder": (
        (1, 4, 8),
        {"wq": (8, 8), "wk": (8, 8), "wv": (8, 8), "wo": (8, 8), "g": (8,), "b": (8,)},
        "n = LayerNormalization(x, g, b) q = MatMul(n, wq) k = MatMul(n, wk) v = MatMul(n, wv) "
        "t = Transpose<perm = [0, 2, 1]>(k) a = MatMul(q, t) p = Softmax(a) c = MatMul(p, v) "
        "o = MatMul(c, wo) y = Add(x, o)",
    ),
}


def patterns() -> Iterator[Case]:
    """One float32 case each."""
    for name in _PATTERNS:
        yield _case(name)


def _case(name: str) -> Case:
    import numpy as np
    from onnx.reference import ReferenceEvaluator

    shape, weights, _ = _PATTERNS[name]
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    x = rng.uniform(-1, 1, shape).astype(np.float32)
    held = {w: rng.uniform(0.2, 1, s).astype(np.float32) for w, s in weights.items()}
    wide = {w: a.astype(np.float64) for w, a in held.items()}
    text = _model(name, "double", wide)
    (y,) = ReferenceEvaluator(text).run(None, {"x": x.astype(np.float64)})
    model = _model(name, "float", held, tuple(y.shape))
    data = ((x,), (y.astype(np.float32),))
    return Case(f"pattern:{name}", model.SerializeToString(deterministic=True), (data,))


def _model(name: str, kind: str, weights: Mapping[str, Any], result: tuple[int, ...] = ()) -> Any:
    import onnx

    shape, _, body = _PATTERNS[name]
    dims = ", ".join(map(str, shape))
    out = f"[{', '.join(map(str, result))}]" if result else ""
    if kind == "double":
        body = body.replace("value_float = 2.0", "value = double[1] {2.0}")
    head = f'<ir_version: 8, opset_import: ["" : {_OPSET}]>'
    model = onnx.parser.parse_model(f"{head} g ({kind}[{dims}] x) => ({kind}{out} y) {{ {body} }}")
    tensors = [onnx.numpy_helper.from_array(a, w) for w, a in weights.items()]
    model.graph.initializer.extend(tensors)
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{index}"
    return model
