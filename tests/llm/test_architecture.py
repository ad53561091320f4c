"""config.json files of the published models: what is read, and how wrong ones are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm.published import PUBLISHED

from autoglm.errors import AutoGLMError, ModelError
from autoglm.llm.architecture import Architecture, Dense, Experts, Index, Layer
from autoglm.llm.read import architecture_of, is_language_model

LLAMA = PUBLISHED["meta-llama/Llama-3.1-8B"].config


def read(name: str, **changes: Any) -> Architecture:
    return architecture_of({**PUBLISHED[name].config, **changes})


def test_chatglm_names_its_fields_in_its_own_way() -> None:
    own = read("THUDM/glm-4-9b-chat")

    first = own.layers[0].attention
    assert (len(own.layers), own.hidden, own.vocabulary, own.context) == (40, 4096, 151552, 131072)
    assert (first.heads, first.kv_heads, first.qk_dim, first.bias) == (32, 2, 128, True)
    assert own.rope.theta == 5_000_000
    assert not own.tied


def test_chatglm_without_grouped_heads_keeps_a_key_for_every_head() -> None:
    own = read("THUDM/glm-4-9b-chat", multi_query_attention=False)

    assert own.layers[0].attention.kv_heads == 32


def test_the_first_layers_of_a_mixture_may_be_dense() -> None:
    own = read("zai-org/GLM-4.5")

    feeds = [layer.feed for layer in own.layers]
    assert [isinstance(f, Dense) for f in feeds[:4]] == [True, True, True, False]
    assert feeds[3] == Experts(160, 8, 1536, shared_width=1536)
    assert own.spare_layers == 1


def test_latent_attention_is_read_with_and_without_the_query_bottleneck() -> None:
    flash = read("zai-org/GLM-4.7-Flash").layers[0].attention
    lite = read("deepseek-ai/DeepSeek-V2-Lite").layers[0].attention

    assert (flash.latent, flash.rope_dim, flash.query_rank, flash.qk_dim) == (512, 64, 768, 256)
    assert (lite.latent, lite.query_rank, lite.qk_dim, lite.v_dim) == (512, 0, 192, 128)


def test_a_sparse_attention_has_its_index_in_each_layer_or_shares_one() -> None:
    own = read("zai-org/GLM-5").layers
    shared = read("zai-org/GLM-5", index_topk_freq=4, index_skip_topk_offset=3).layers
    named = read("zai-org/GLM-5", layer_types=["indexed_attention"] * 78).layers
    told = read("zai-org/GLM-5", indexer_types=["full"] + ["shared"] * 77).layers

    assert own[0].attention.index == Index(heads=32, width=128, most=2048, own=True)
    assert indexed(own) == indexed(named) == list(range(78))
    assert indexed(shared)[:5] == [0, 1, 2, 6, 10]
    assert indexed(told) == [0]


def indexed(layers: tuple[Layer, ...]) -> list[int]:
    return [i for i, x in enumerate(layers) if x.attention.index and x.attention.index.own]


@pytest.mark.parametrize(
    ("name", "windows"),
    [
        ("mistralai/Mistral-7B-v0.1", [4096] * 6),
        ("mistralai/Mixtral-8x7B-v0.1", [0] * 6),
        ("google/gemma-2-2b", [4096, 0] * 3),
        ("google/gemma-3-1b-it", [512] * 5 + [0]),
        ("google/gemma-3-4b-it", [1024] * 5 + [0]),
        ("microsoft/Phi-3-mini-4k-instruct", [2047] * 6),
        ("Qwen/Qwen2.5-7B-Instruct", [0] * 6),
    ],
)
def test_each_family_has_its_windows(name: str, windows: list[int]) -> None:
    assert [layer.attention.window for layer in read(name).layers[:6]] == windows


def test_qwen_slides_in_its_late_layers_where_it_is_told_to() -> None:
    own = read("Qwen/Qwen2.5-0.5B-Instruct", use_sliding_window=True)

    assert [layer.attention.window for layer in own.layers[20:22]] == [0, 32768]


def test_layer_types_outweigh_the_pattern() -> None:
    kinds = ["full_attention", "sliding_attention"] * 13

    own = read("google/gemma-2-2b", layer_types=kinds)

    assert [layer.attention.window for layer in own.layers[:2]] == [0, 4096]


def test_what_gemma_3_leaves_out_of_its_text_config_is_its_family_s() -> None:
    own = read("google/gemma-3-4b-it")

    first = own.layers[0].attention
    assert (first.heads, first.kv_heads, first.qk_dim, first.qk_norm) == (8, 4, 256, True)
    assert (own.vocabulary, own.tied, own.parts) == (262208, True, ("vision_config",))
    assert (own.rope.kind, own.rope.factor, own.context) == ("linear", 8.0, 131072)


@pytest.mark.parametrize(
    ("name", "kind", "context"),
    [
        ("meta-llama/Llama-3.1-8B", "llama3", 131072),
        ("deepseek-ai/DeepSeek-V3", "yarn", 163840),
        ("microsoft/Phi-4-mini-instruct", "longrope", 131072),
        ("THUDM/GLM-4-9B-0414", "default", 32768),
    ],
)
def test_positions_that_count_the_stretching_are_not_stretched_again(
    name: str, kind: str, context: int
) -> None:
    own = read(name)

    assert (own.rope.kind, own.context) == (kind, context)


@pytest.mark.parametrize(
    ("scaling", "context"),
    [
        ({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}, 131072),
        ({"rope_type": "linear", "factor": 2}, 65536),
        ({"type": "dynamic", "factor": 2.0}, 65536),
        ({"type": "su", "factor": 2.0}, 32768),
    ],
)
def test_rope_stretches_the_context(scaling: dict[str, Any], context: int) -> None:
    assert read("Qwen/Qwen2.5-7B-Instruct", rope_scaling=scaling).context == context


def test_rope_parameters_of_transformers_5_say_the_same_as_the_old_fields() -> None:
    new = {**LLAMA["rope_scaling"], "rope_theta": 500000.0}
    changed = {k: v for k, v in LLAMA.items() if k not in ("rope_scaling", "rope_theta")}

    own = architecture_of({**changed, "rope_parameters": new})

    assert own.rope == architecture_of(LLAMA).rope


@pytest.mark.parametrize(
    ("changes", "field", "allowed"),
    [
        ({"hidden_size": None}, "hidden_size is missing", "whole number from 1"),
        ({"hidden_size": "4096"}, "hidden_size is '4096'", "whole number"),
        ({"hidden_size": True}, "hidden_size is True", "whole number"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0", "from 1 to 4096"),
        ({"num_key_value_heads": 5}, "num_key_value_heads is 5", "a divisor of 32 heads"),
        ({"num_key_value_heads": 64}, "num_key_value_heads is 64", "from 1 to 32"),
        ({"hidden_size": 4097}, "hidden_size is 4097", "a multiple of 32 heads"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no'", "true or false"),
        ({"rope_scaling": {"type": "spiral"}}, "rope_type is 'spiral'", "default, linear"),
        ({"rope_scaling": [1]}, "rope_scaling is [1]", "a table or null"),
        ({"torch_dtype": "int3"}, "torch_dtype is 'int3'", "float32, bfloat16"),
        ({"layer_types": ["linear_attention"] * 32}, "'linear_attention'", "full_attention"),
        ({"layer_types": ["full_attention"]}, "layer_types is", "a list of 32"),
        ({"model_type": "gpt2"}, "model_type is 'gpt2'", "chatglm, deepseek_v2"),
    ],
)
def test_a_wrong_field_is_named_with_what_it_is_and_what_it_may_be(
    changes: dict[str, Any], field: str, allowed: str
) -> None:
    with pytest.raises(ModelError) as caught:
        architecture_of({**LLAMA, **changes})

    assert field in str(caught.value)
    assert allowed in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        # ChatGLM-6B, the first of its model_type
        ("THUDM/glm-4-9b-chat", {"kv_channels": None, "ffn_hidden_size": None}),
        ("meta-llama/Llama-3.1-8B", {"layer_types": ["chunked_attention"] * 32}),
        ("meta-llama/Llama-3.1-8B", {"layer_types": ["linear_attention"] * 32}),
        ("meta-llama/Llama-3.1-8B", {"rope_scaling": {"rope_type": "proportional"}}),
        ("meta-llama/Llama-3.1-8B", {"torch_dtype": "float64"}),
    ],
)
def test_a_well_formed_file_that_is_not_planned_is_not_called_damaged(
    name: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(ModelError, match="planned: ") as caught:
        read(name, **changes)

    assert "not planned yet" in caught.value.hint


def test_chatglm_is_told_its_own_field_s_name() -> None:
    with pytest.raises(ModelError, match="ffn_hidden_size is missing"):
        read("THUDM/glm-4-9b-chat", ffn_hidden_size=None)


@given(
    st.dictionaries(
        st.sampled_from(sorted(LLAMA)),
        st.none() | st.integers() | st.text(max_size=5) | st.floats() | st.lists(st.integers()),
    )
)
def test_nothing_but_a_model_error_comes_of_a_damaged_config(changes: dict[str, Any]) -> None:
    try:
        own = architecture_of({**LLAMA, **changes})
    except AutoGLMError:
        return
    assert own.layers


def folder(path: Path, config: object) -> Path:
    (path / "config.json").write_text(json.dumps(config))
    return path


def test_a_folder_and_its_config_are_language_models(tmp_path: Path) -> None:
    made = folder(tmp_path, LLAMA)

    assert is_language_model(made)
    assert is_language_model(str(made / "config.json"))


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "bert", "architectures": ["BertModel"]},
        {**LLAMA, "architectures": ["LlamaForSequenceClassification"]},
        {**LLAMA, "model_type": "gpt2"},
        [],
        "text",
    ],
)
def test_encoders_classifiers_and_what_is_no_config_are_not(config: object, tmp_path: Path) -> None:
    assert not is_language_model(folder(tmp_path, config))


@pytest.mark.parametrize("source", [None, 3, "", "no\0where", "model.onnx", b"x"])
def test_what_is_no_path_is_no_language_model(source: object) -> None:
    assert not is_language_model(source)
