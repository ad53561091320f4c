"""What differs between families of language models: names of fields, biases, norms, windows.

A flag is True, False, or the field of config.json that says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class MoE:
    """Fields that describe the experts of a family."""

    count: str = "n_routed_experts"
    width: str = "moe_intermediate_size"
    # Which layers have experts: "all", "after" the first dense ones, or every "step".
    layers: str = "after"
    shared: str = "n_shared_experts"  # how many always run, each as wide as the others
    shared_width: str = ""  # or the field with their width, and a gate before them


@dataclass(frozen=True, slots=True)
class Family:
    """One family; `keys` holds its names of our fields, `defaults` what its files leave out."""

    keys: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    bias: bool | str = False  # of q, k and v
    output_bias: bool | str = False
    mlp_bias: bool | str = False
    qk_norm: bool | str = False
    norms: int = 2
    tied: bool = False  # where the file does not say
    windows: str = ""  # which layers see a window: "all", "even", "late" or "pattern"
    latent: bool = False  # MLA
    indexed: bool = False  # sparse attention with an index
    experts: MoE | None = None
    counted: bool = False  # max_position_embeddings counts the stretched positions


_LLAMA = Family(bias="attention_bias", output_bias="attention_bias", mlp_bias="mlp_bias")
_QWEN2 = Family(bias=True, windows="late")
_QWEN3 = Family(bias="attention_bias", output_bias="attention_bias", qk_norm=True, windows="late")
_GLM = Family(bias="attention_bias")
_GLM4 = replace(_GLM, norms=4)
_DEEPSEEK = Family(
    bias="attention_bias",
    output_bias="attention_bias",
    latent=True,
    experts=MoE(),
    counted=True,
)
_SPARSE = replace(_DEEPSEEK, indexed=True)
_STEP = MoE(count="num_experts", layers="step", shared="")
_GEMMA = Family(
    bias="attention_bias",
    output_bias="attention_bias",
    norms=4,
    tied=True,
    defaults={"max_position_embeddings": 8192, "head_dim": 256, "sliding_window": 4096},
    windows="even",
    counted=True,
)
# Published Gemma 3 files hold only what differs from transformers' Gemma3TextConfig.
_GEMMA3 = replace(
    _GEMMA,
    qk_norm=True,
    windows="pattern",
    defaults={
        **_GEMMA.defaults,
        "vocab_size": 262_208,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "max_position_embeddings": 131_072,
        "sliding_window_pattern": 6,
    },
)

FAMILIES: Mapping[str, Family] = {
    "chatglm": Family(
        keys={
            "num_hidden_layers": "num_layers",
            "num_key_value_heads": "multi_query_group_num",
            "head_dim": "kv_channels",
            "intermediate_size": "ffn_hidden_size",
            "vocab_size": "padded_vocab_size",
            "max_position_embeddings": "seq_length",
        },
        bias="add_qkv_bias",
        output_bias="add_bias_linear",
        mlp_bias="add_bias_linear",
    ),
    "glm": _GLM,
    "glm4": _GLM4,
    "glm4v_text": replace(_GLM4, bias=True),
    "glm4_moe": replace(_GLM, qk_norm="use_qk_norm", experts=MoE()),
    "glm4v_moe_text": replace(_GLM, experts=MoE()),
    "glm4_moe_lite": _DEEPSEEK,
    "glm_moe_dsa": _SPARSE,
    "deepseek_v2": _DEEPSEEK,
    "deepseek_v3": _DEEPSEEK,
    "deepseek_v32": _SPARSE,
    "llama": _LLAMA,
    "mistral": Family(windows="all"),
    "mixtral": Family(
        windows="all",
        experts=MoE("num_local_experts", "intermediate_size", layers="all", shared=""),
    ),
    "qwen2": _QWEN2,
    "qwen2_moe": replace(
        _QWEN2, experts=replace(_STEP, shared_width="shared_expert_intermediate_size")
    ),
    "qwen3": _QWEN3,
    "qwen3_moe": replace(_QWEN3, experts=_STEP),
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA3,
    "phi3": Family(windows="all"),
}
# Text models of multimodal ones, and models that are built like another.
ALIASES: Mapping[str, str] = {
    "glm4v": "glm4v_text",
    "kimi_k2": "deepseek_v3",
    "qwen2_vl": "qwen2",
    "qwen2_vl_text": "qwen2",
    "qwen2_5_vl": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen3_vl_text": "qwen3",
    "qwen3_vl_moe_text": "qwen3_moe",
    "gemma3": "gemma3_text",
}


def family_of(model_type: str) -> Family | None:
    """The family of that model type; None where it is not planned here."""
    return FAMILIES.get(ALIASES.get(model_type, model_type))
