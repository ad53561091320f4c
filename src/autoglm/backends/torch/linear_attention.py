"""Attention with a recurrent state, and the causal convolution before it."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from autoglm.backends.torch.op import Node, Op, Table


def causal_conv(
    node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None, past: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Depthwise, looking back only; the last inputs are the next call's past."""
    reach = weight.shape[2] - 1
    if past is None:
        past = x.new_zeros(*x.shape[:2], reach)
    wide = torch.cat([past.to(x.dtype), x], 2)
    y = F.conv1d(wide, weight, bias, groups=x.shape[1])
    if node["activation"] in ("silu", "swish"):
        y = F.silu(y)
    return y, wide.narrow(2, wide.shape[2] - reach, reach)


def _unpacked(x: Tensor, heads: int) -> Tensor:
    """[B, T, H d] -> [B, H, T, d]."""
    batch, length, width = x.shape
    return x.reshape(batch, length, heads, width // heads).transpose(1, 2)


def _step(rule: str, state: Tensor, k: Tensor, v: Tensor, decay: Any, beta: Any) -> Tensor:
    """The state after one token; k [B, H, dk], v [B, H, dv], state [B, H, dk, dv]."""
    if rule in ("gated", "gated_delta"):
        state = torch.exp(decay).unsqueeze(-1) * state
    if rule in ("delta", "gated_delta"):
        v = beta * (v - (k.unsqueeze(-2) @ state).squeeze(-2))
    return state + k.unsqueeze(-1) * v.unsqueeze(-2)


def linear_attention(
    node: Node,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    past: Tensor | None = None,
    decay: Tensor | None = None,
    beta: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One token after another, in float32 (or float64)."""
    heads, groups = node["kv_num_heads"], node["q_num_heads"] // node["kv_num_heads"]
    held = q.dtype
    inner = held if held is torch.float64 else torch.float32
    scale = node["scale"] or 1 / math.sqrt(q.shape[-1] // node["q_num_heads"])
    q = _unpacked(q.to(inner), node["q_num_heads"]) * scale
    k, v = _unpacked(k.to(inner), heads), _unpacked(v.to(inner), heads)
    decay = None if decay is None else _unpacked(decay.to(inner), heads)
    if beta is not None:
        beta = beta.to(inner).transpose(1, 2).unsqueeze(-1)
    if past is None:
        state = q.new_zeros(q.shape[0], heads, k.shape[-1], v.shape[-1])
    else:
        state = past.to(inner)
    outputs = []
    for t in range(q.shape[2]):
        now = [None if x is None else x[:, :, t] for x in (decay, beta)]
        state = _step(node["update_rule"], state, k[:, :, t], v[:, :, t], *now)
        shared = state if groups == 1 else state.repeat_interleave(groups, 1)
        outputs.append((q[:, :, t].unsqueeze(-2) @ shared).squeeze(-2))
    y = torch.stack(outputs, 1) if outputs else q.new_zeros(q.shape[0], 0, q.shape[1], v.shape[-1])
    present = state.to(held if past is None else past.dtype)
    return y.flatten(2).to(held), present.to(node.out(1) if len(node.call.outputs) > 1 else held)


TABLE: Table = {
    "CausalConvWithState": Op(causal_conv),
    "LinearAttention": Op(linear_attention),
}
