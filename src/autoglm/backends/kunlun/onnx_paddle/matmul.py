"""Matrix products."""

from __future__ import annotations

import paddle

from .op import FLOATS, Node, Op, Table, Value, back, bare, name_of


def gemm(node: Node, a: Value, b: Value, c: Value = None) -> Value:
    """alpha A B + beta C."""
    product = paddle.matmul(a, b, bool(node["transA"]), bool(node["transB"]))
    if node["alpha"] != 1.0:
        product = _scaled(product, node["alpha"])
    if c is None:
        return product
    return product + (c if node["beta"] == 1.0 else _scaled(c, node["beta"]))


def _scaled(x: Value, factor: float) -> Value:
    if name_of(x) in FLOATS:
        return paddle.scale(x, factor)
    return paddle.cast(paddle.scale(paddle.cast(x, "float64"), factor), x.dtype)


def einsum(node: Node, *xs: Value) -> Value:
    """Spaces mean nothing."""
    return paddle.einsum(node["equation"].replace(" ", ""), *xs)


def determinant(node: Node, x: Value) -> Value:
    """Of the last two axes."""
    return back(paddle.linalg.det(x), x)


TABLE: Table = {
    "MatMul": bare(paddle.matmul),
    "Gemm": Op(gemm),
    "Einsum": Op(einsum),
    "Det": Op(determinant),
}
