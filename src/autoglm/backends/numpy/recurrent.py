"""Attention with a recurrent state, and the causal convolution before it (opset 27)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from autoglm.backends.numpy.op import Array, Op, Table
from autoglm.rewrite.program import Call


def causal_conv(call: Call, x: Array, weight: Array, bias: Any = None, past: Any = None) -> Any:
    """Depthwise, looking back only; the last inputs are the next call's past."""
    size = weight.shape[2]
    before = np.zeros((*x.shape[:2], size - 1), x.dtype) if past is None else past.astype(x.dtype)
    wide = np.concatenate([before, x], 2)
    frames = np.lib.stride_tricks.sliding_window_view(wide, size, 2).astype(_inner(x))
    y = np.einsum("bclk,ck->bcl", frames, weight[:, 0].astype(_inner(x)))
    if bias is not None:
        y = y + bias[:, None].astype(_inner(x))
    if call["activation"] in ("silu", "swish"):
        y = y / (1 + np.exp(-y))
    return y.astype(x.dtype), wide[:, :, wide.shape[2] - (size - 1) :]


def _inner(x: Array) -> Any:
    return np.float64 if x.dtype == np.float64 else np.float32


def _unpacked(x: Array, heads: int) -> Array:
    """[B, T, H d] -> [B, H, T, d], in the inner precision."""
    batch, length, width = x.shape
    return x.astype(_inner(x)).reshape(batch, length, heads, width // heads).transpose(0, 2, 1, 3)


def linear_attention(
    call: Call,
    q: Array,
    k: Array,
    v: Array,
    past: Any = None,
    decay: Any = None,
    beta: Any = None,
) -> tuple[Array, Array]:
    """One token after another."""
    heads, groups = call["kv_num_heads"], call["q_num_heads"] // call["kv_num_heads"]
    scale = call["scale"] or 1 / math.sqrt(q.shape[-1] // call["q_num_heads"])
    queries = _unpacked(q, call["q_num_heads"]) * scale
    keys, values = _unpacked(k, heads), _unpacked(v, heads)
    gate: Any = None if decay is None else np.exp(_unpacked(decay, heads))
    rate: Any = None if beta is None else beta.astype(_inner(q)).transpose(0, 2, 1)[..., None]
    shape = (q.shape[0], heads, keys.shape[-1], values.shape[-1])
    state = np.zeros(shape, _inner(q)) if past is None else past.astype(_inner(q))
    rule = call["update_rule"]
    outputs = np.empty((*queries.shape[:3], values.shape[-1]), _inner(q))
    for t in range(q.shape[1]):
        key, value = keys[:, :, t], values[:, :, t]
        if rule in ("gated", "gated_delta"):
            state = state * gate[:, :, t][..., None]
        if rule in ("delta", "gated_delta"):
            value = rate[:, :, t] * (value - np.einsum("bhk,bhkv->bhv", key, state))
        state = state + key[..., None] * value[:, :, None, :]
        shared = np.repeat(state, groups, 1)
        outputs[:, :, t] = np.einsum("bhk,bhkv->bhv", queries[:, :, t], shared)
    y = outputs.transpose(0, 2, 1, 3).reshape(q.shape[0], q.shape[1], -1)
    return y.astype(q.dtype), state.astype(q.dtype if past is None else past.dtype)


TABLE: Table = {
    "CausalConvWithState": Op(causal_conv),
    "LinearAttention": Op(linear_attention),
}
