"""Parameter counts against published ones, and against transformers where it is installed."""

from __future__ import annotations

import pytest
from llm.published import PUBLISHED, Published

from autoglm.llm.read import architecture_of
from autoglm.llm.storage import STORAGES
from autoglm.llm.weights import active_parameters, all_weights, parameters, spare_parameters


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_that_are_published(name: str) -> None:
    own = PUBLISHED[name]

    assert parameters(architecture_of(own.config)) == own.parameters


def counted(own: Published) -> int:
    """Parameters of the model that transformers builds, without memory for them."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = {k: v for k, v in own.config.items() if k != "quantization_config"}
    text = config.get("text_config", config)
    made = transformers.AutoConfig.for_model(**text)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(made)
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", [n for n, own in PUBLISHED.items() if own.transformers])
def test_parameters_are_those_that_transformers_builds(name: str) -> None:
    own = PUBLISHED[name]

    assert parameters(architecture_of(own.config)) == counted(own)


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
