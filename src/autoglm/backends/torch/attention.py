"""Attention and rotary embedding by opset 25's text, whose errata hold back to 23."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from autoglm.backends.torch.dtypes import TORCH
from autoglm.backends.torch.op import Node, Op, Table
from autoglm.tensor.dtype import from_onnx


def _heads(x: Tensor, count: int | None) -> Tensor:
    if x.ndim == 4:
        return x
    batch, length, hidden = x.shape
    assert count, "3-D inputs come with head counts"
    return x.reshape(batch, length, count, hidden // count).transpose(1, 2)


def attention(
    node: Node,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    past_k: Tensor | None = None,
    past_v: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Any:
    """Y, present key and value, and the score matrix of the stage asked for."""
    packed = q.ndim == 3
    q = _heads(q, node["q_num_heads"])
    k, v = _heads(k, node["kv_num_heads"]), _heads(v, node["kv_num_heads"])
    past = 0 if past_k is None else past_k.shape[2]
    if past_k is not None and past_v is not None:
        k, v = torch.cat([past_k, k], 2), torch.cat([past_v, v], 2)
    bias = _bias(node, q, k.shape[2], mask, past, lengths)
    # A model that is float16 itself rounds where the operator's text rounds.
    if _fused(node) and (q.dtype is not torch.float16 or node.low is not None):
        y, scores = _by_torch(node, q, k, v, bias), None
    else:
        y, scores = _by_hand(node, q, k, v, bias)
    if packed:
        y = y.transpose(1, 2).reshape(y.shape[0], y.shape[2], -1)
    return y, k, v, scores


def _fused(node: Node) -> bool:
    stage = len(node.wanted) > 3 and node.wanted[3]
    return not stage and not node["softcap"] and not node["softmax_precision"]


def _scale(node: Node, q: Tensor) -> float:
    return float(node["scale"]) if node["scale"] is not None else 1 / math.sqrt(q.shape[-1])


def _by_torch(node: Node, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    grouped = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(
        q, k, v.to(q.dtype), bias, scale=_scale(node, q), enable_gqa=grouped
    )


def _repeated(x: Tensor, heads: int) -> Tensor:
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], 1)


def _by_hand(
    node: Node, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    root = math.sqrt(_scale(node, q))
    raw = (q * root) @ (_repeated(k, q.shape[1]) * root).transpose(2, 3)
    cap = node["softcap"]
    capped = torch.tanh(raw / cap) * cap if cap else raw
    biased = capped if bias is None else capped + bias
    inner = from_onnx(node["softmax_precision"]) if node["softmax_precision"] else ""
    wide = biased.to(TORCH[inner]) if inner else biased
    probabilities = torch.softmax(wide, -1)
    if bias is not None:
        empty = (bias == -math.inf).all(-1, keepdim=True)
        probabilities = probabilities.masked_fill(empty, 0.0)
    probabilities = probabilities.to(q.dtype)
    stages = (raw, capped, biased, probabilities)
    y = probabilities @ _repeated(v, q.shape[1]).to(q.dtype)
    return y, stages[node["qk_matmul_output_mode"] or 0]


def _bias(
    node: Node, q: Tensor, total: int, mask: Tensor | None, past: int, lengths: Tensor | None
) -> Tensor | None:
    """Everything that hides a key, as one sum: mask, causality, window, lengths."""
    allowed = _allowed(node, q, total, past, lengths)
    if mask is not None and mask.shape[-1] < total:
        hidden = False if mask.dtype is torch.bool else -math.inf
        mask = F.pad(mask, (0, total - mask.shape[-1]), value=hidden)
    if mask is not None and mask.dtype is torch.bool:
        allowed = mask if allowed is None else allowed & mask
        mask = None
    if allowed is None:
        return None if mask is None else mask.to(q.dtype)
    bias = torch.zeros(allowed.shape, dtype=q.dtype, device=q.device)
    bias = bias.masked_fill(~allowed, -math.inf)
    return bias if mask is None else bias + mask.to(q.dtype)


def _allowed(node: Node, q: Tensor, total: int, past: int, lengths: Tensor | None) -> Tensor | None:
    left = -1 if node["left_window_size"] is None else node["left_window_size"]
    right = -1 if node["right_window_size"] is None else node["right_window_size"]
    if not node["is_causal"] and lengths is None and left < 0 and right < 0:
        return None
    rows = torch.arange(q.shape[2], device=q.device)[:, None]
    keys = torch.arange(total, device=q.device)[None, :]
    offset: Any = past
    if lengths is not None and past == 0:
        offset = (lengths - q.shape[2]).reshape(-1, 1, 1, 1)
    place = rows + offset
    allowed = torch.ones(q.shape[2], total, dtype=torch.bool, device=q.device)
    if lengths is not None:
        allowed = allowed & (keys < lengths.reshape(-1, 1, 1, 1))
    if node["is_causal"]:
        allowed = allowed & (keys <= place)
    if left >= 0:
        allowed = allowed & (keys >= place - left)
    return allowed & (keys <= place + right) if right >= 0 else allowed


def flex_attention(node: Node, q: Tensor, k: Tensor, v: Tensor, *captured: Any) -> Tensor:
    """Scores and probabilities pass through the node's own sub-graphs."""
    inner = TORCH[from_onnx(node["softmax_precision"] or _default_precision(q))]
    scores = (q @ _repeated(k, q.shape[1]).transpose(2, 3) * _scale(node, q)).to(inner)
    if "score_mod" in node.bodies:
        (scores,) = node.bodies["score_mod"].run([scores], captured)
    probabilities = torch.softmax(scores, -1)
    if "prob_mod" in node.bodies:
        (probabilities,) = node.bodies["prob_mod"].run([probabilities], captured)
    return probabilities.to(q.dtype) @ _repeated(v, q.shape[1])


def _default_precision(q: Tensor) -> int:
    return 11 if q.dtype is torch.float64 else 1


def rotary(
    node: Node, x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None = None
) -> Tensor:
    """Rotate pairs (halves, or neighbours when interleaved) by the position's angle."""
    heads = _heads(x, node["num_heads"]).transpose(1, 2)
    size = node["rotary_embedding_dim"] or heads.shape[-1]
    turning, rest = heads[..., :size], heads[..., size:]
    if positions is not None:
        cos, sin = cos[positions], sin[positions]
    cos, sin = cos.unsqueeze(2), sin.unsqueeze(2)
    if node["interleaved"]:
        a, b = turning[..., 0::2], turning[..., 1::2]
    else:
        a, b = turning.chunk(2, -1)
    real, imaginary = cos * a - sin * b, sin * a + cos * b
    if node["interleaved"]:
        turned = torch.stack([real, imaginary], -1).reshape(turning.shape)
    else:
        turned = torch.cat([real, imaginary], -1)
    y = torch.cat([turned, rest], -1)
    return y.reshape(x.shape) if x.ndim == 3 else y.transpose(1, 2)


TABLE: Table = {
    "Attention": Op(attention),
    "ai.onnx.preview::FlexAttention": Op(flex_attention),
    "RotaryEmbedding": Op(rotary),
}
