"""Operators that tf2onnx 1.17 leaves as they are, as ONNX functions of our own.

TensorFlow writes Erfc for an exact GELU; TFLite has GELU itself
(tensorflow/lite/kernels/activations.cc: `approximate` asks for the tanh form).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

DOMAIN = "autoglm.tensorflow"
_HALVES = "half = Constant<value_float = 0.5>() h = CastLike(half, x) xh = Mul(x, h) "
_ONE = "one = Constant<value_float = 1.0>() o = CastLike(one, x) "
FUNCTIONS = {
    "Erfc": f"{_ONE} e = Erf(x) y = Sub(o, e)",
    "TFL_GELU": f"{_HALVES} {_ONE} root = Constant<value_float = 0.7071067811865476>() "
    "r = CastLike(root, x) s = Mul(x, r) e = Erf(s) p = Add(e, o) y = Mul(xh, p)",
    "TFL_GELU_tanh": f"{_HALVES} {_ONE} cubed = Constant<value_float = 0.044715>() "
    "c = CastLike(cubed, x) scale = Constant<value_float = 0.7978845608028654>() "
    "k = CastLike(scale, x) xx = Mul(x, x) xxx = Mul(xx, x) cx = Mul(xxx, c) inner = Add(x, cx) "
    "z = Mul(inner, k) t = Tanh(z) p = Add(t, o) y = Mul(xh, p)",
}


def complete(model: onnx.ModelProto, opset: int) -> list[str]:
    """Turn such operators into calls of our functions, in place; the operators that are left."""
    import onnx

    left = set()
    used = set()
    for node in _nodes(model.graph):
        if onnx.defs.has(node.op_type, node.domain):
            continue
        name = _name(node)
        if name not in FUNCTIONS:
            left.add(node.op_type)
            continue
        used.add(name)
        node.op_type, node.domain = name, DOMAIN
        del node.attribute[:]
    for name in sorted(used):
        text = f'<domain: "{DOMAIN}", opset_import: ["" : {opset}]> {name} (x) => (y) '
        model.functions.append(onnx.parser.parse_function(f"{text} {{ {FUNCTIONS[name]} }}"))
    if used:
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    return sorted(left)


def _name(node: onnx.NodeProto) -> str:
    approximate = any(a.name == "approximate" and a.i for a in node.attribute)
    return f"{node.op_type}_tanh" if approximate else node.op_type


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in [attribute.g, *attribute.graphs]:
                yield from _nodes(body)
