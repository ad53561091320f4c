"""Parameter counts against published ones, and against transformers where it is installed."""

from __future__ import annotations

import random
from typing import Any

import pytest
from llm.published import PUBLISHED

from autoglm.llm.read import architecture_of
from autoglm.llm.storage import STORAGES
from autoglm.llm.weights import active_parameters, all_weights, parameters, spare_parameters


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_that_are_published(name: str) -> None:
    own = PUBLISHED[name]

    assert parameters(architecture_of(own.config)) == own.parameters


def counted(config: dict[str, Any]) -> int:
    """Parameters of the model that transformers builds, without memory for them."""
    transformers = pytest.importorskip("transformers")  # first: torch alone takes seconds to load
    torch = pytest.importorskip("torch")
    text = config.get("text_config", config)
    text = {k: v for k, v in text.items() if k != "quantization_config"}
    made = transformers.AutoConfig.for_model(**text)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(made)
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", [n for n, own in PUBLISHED.items() if own.transformers])
def test_parameters_are_those_that_transformers_builds(name: str) -> None:
    own = PUBLISHED[name]

    assert parameters(architecture_of(own.config)) == counted(own.config)


_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
_SOME = {**_EXPERTS, "num_experts": 4}
_ROUTED = {**_EXPERTS, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "pad_token_id": 0}
_MLA = {**_ROUTED, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8}
_MLA |= {"v_head_dim": 12, "num_key_value_heads": 4}
_INDEX = {"q_lora_rank": 12, "index_n_heads": 2, "index_head_dim": 16, "index_topk": 8}
_FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2": {},
    "qwen2_moe": {**_SOME, "shared_expert_intermediate_size": 24},
    "qwen3": {},
    "qwen3_moe": _SOME,
    "gemma2": {},
    "gemma3_text": {},
    "phi3": {"pad_token_id": 0, "head_dim": None},
    "glm": {"pad_token_id": 0},
    "glm4": {"pad_token_id": 0},
    "glm4_moe": _ROUTED,
    "deepseek_v2": _MLA,
    "deepseek_v3": _MLA,
    "deepseek_v32": {**_MLA, **_INDEX},
    "glm_moe_dsa": {**_MLA, **_INDEX},
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", _FAMILIES)
def test_any_config_of_a_family_is_counted_as_transformers_does(name: str, seed: int) -> None:
    draw = random.Random(f"{name} {seed}")
    config = {
        "model_type": name,
        "vocab_size": 64,
        "num_hidden_layers": 4,
        "max_position_embeddings": 64,
        "hidden_size": draw.choice([32, 64]),
        "intermediate_size": draw.choice([24, 40]),
        "num_attention_heads": 4,
        "num_key_value_heads": draw.choice([1, 2, 4]),
        "head_dim": draw.choice([8, 16]),
        "tie_word_embeddings": draw.random() < 0.5,
        "attention_bias": draw.random() < 0.5,
        "mlp_bias": name == "llama" and draw.random() < 0.5,
        "use_qk_norm": draw.random() < 0.5,
        "decoder_sparse_step": draw.choice([1, 2]),
        "mlp_only_layers": draw.choice([[], [1]]),
        "first_k_dense_replace": draw.choice([0, 1, 2]),
        "n_shared_experts": draw.choice([1, 2]),
        "q_lora_rank": draw.choice([None, 12]),
        "index_topk_freq": draw.choice([1, 2]) if name == "glm_moe_dsa" else 1,
        **_FAMILIES[name],
    }
    if "kv_lora_rank" in config or config["head_dim"] is None:
        del config["head_dim"]

    assert parameters(architecture_of(config)) == counted(config)


@pytest.mark.parametrize("name", [n for n, own in PUBLISHED.items() if own.disk_bytes])
def test_the_checkpoint_on_disk_has_these_bytes(name: str) -> None:
    own = PUBLISHED[name]
    arch = architecture_of(own.config)

    stored = sum(STORAGES[arch.dtype].bytes_of(w) * n for w, n in all_weights(arch))

    # ChatGLM files hold the 32 frequencies of its rotary embedding too.
    assert own.disk_bytes - stored in (0, 64)


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        # as their makers' model cards say: 12B, 32B, 3.3B, 12.9B, 2.7B, 37B
        ("zai-org/GLM-4.5-Air", (12, 14)),
        ("zai-org/GLM-4.5", (32, 34)),
        ("Qwen/Qwen3-30B-A3B", (3.2, 3.4)),
        ("mistralai/Mixtral-8x7B-v0.1", (12.8, 13.0)),
        ("Qwen/Qwen1.5-MoE-A2.7B", (2.6, 2.8)),
        ("deepseek-ai/DeepSeek-V3", (36.5, 38)),
    ],
)
def test_a_token_meets_the_active_experts_only(name: str, billions: tuple[float, float]) -> None:
    active = active_parameters(architecture_of(PUBLISHED[name].config)) / 1e9

    assert billions[0] <= active <= billions[1]


def test_a_dense_model_is_all_active() -> None:
    own = architecture_of(PUBLISHED["Qwen/Qwen3-0.6B"].config)

    assert active_parameters(own) == parameters(own)
    assert spare_parameters(own) == 0


def test_the_layer_for_multi_token_prediction_is_counted_apart() -> None:
    own = architecture_of(PUBLISHED["deepseek-ai/DeepSeek-V3"].config)

    # "14B of the Multi-Token Prediction module weights", README_WEIGHTS.md of DeepSeek-V3,
    # 11.5 B of them its own, the rest the embedding and the head that it shares
    assert spare_parameters(own) / 1e9 == pytest.approx(13.4, abs=0.6)
