"""Matrix products."""

from __future__ import annotations

import torch
from torch import Tensor

from autoglm.backends.torch.op import Node, Op, Table, bare


def gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """alpha A B + beta C."""
    a = a.T if node["transA"] else a
    b = b.T if node["transB"] else b
    alpha, beta = node["alpha"], node["beta"]
    if not a.dtype.is_floating_point:
        return _gemm_integer(a, b, c, alpha, beta)
    if c is None:
        product = a @ b
        return product if alpha == 1.0 else product * alpha
    return torch.addmm(c, a, b, beta=beta, alpha=alpha)


def _gemm_integer(a: Tensor, b: Tensor, c: Tensor | None, alpha: float, beta: float) -> Tensor:
    result = (a @ b) * alpha
    return (result if c is None else result + c * beta).to(a.dtype)


def einsum(node: Node, *xs: Tensor) -> Tensor:
    """Spaces mean nothing."""
    return torch.einsum(node["equation"].replace(" ", ""), *xs)


def determinant(node: Node, x: Tensor) -> Tensor:
    """Of the last two axes."""
    if x.dtype in (torch.float32, torch.float64):
        return torch.linalg.det(x)
    return torch.linalg.det(x.float()).to(x.dtype)


TABLE: Table = {
    "MatMul": bare(torch.matmul),
    "Gemm": Op(gemm),
    "Einsum": Op(einsum),
    "Det": Op(determinant),
}
