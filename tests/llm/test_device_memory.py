"""Key-value cache, workspace and what fits beside them; splits over several devices."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm.published import PUBLISHED

from autoglm.llm.architecture import Architecture
from autoglm.llm.memory import (
    Load,
    held,
    largest_concurrency,
    largest_context,
    need,
    sequence_bytes,
    token_bytes,
)
from autoglm.llm.read import architecture_of
from autoglm.llm.split import Layout, layouts, obstacle, stages
from autoglm.llm.storage import STORAGES

GIB = 2**30
BF16 = STORAGES["bf16"]


def model(name: str) -> Architecture:
    return architecture_of(PUBLISHED[name].config)


@pytest.mark.parametrize(
    ("name", "per_token"),
    [
        # layers x (key + value) x heads kept x width x 2 bytes
        ("THUDM/glm-4-9b-chat", 40 * 2 * 2 * 128 * 2),
        ("meta-llama/Llama-3.1-8B", 32 * 2 * 8 * 128 * 2),
        ("Qwen/Qwen1.5-MoE-A2.7B", 24 * 2 * 16 * 128 * 2),
        ("google/gemma-3-1b-it", 26 * 2 * 1 * 256 * 2),
        # layers x (latent + rotary key) x 2 bytes
        ("zai-org/GLM-4.7-Flash", 47 * (512 + 64) * 2),
        ("deepseek-ai/DeepSeek-V3", 61 * (512 + 64) * 2),
        # and the key of its index
        ("zai-org/GLM-5", 78 * (512 + 64 + 128) * 2),
    ],
)
def test_a_token_of_the_cache_takes_what_its_kind_of_attention_keeps(
    name: str, per_token: int
) -> None:
    assert token_bytes(model(name), 2) == per_token


def test_a_sliding_window_caps_the_cache_of_its_layers() -> None:
    own = model("google/gemma-3-1b-it")

    # Of 26 layers four (6th, 12th, 18th, 24th) see everything; 22 keep 512 tokens.
    assert sequence_bytes(own, 32768, 2) == (4 * 32768 + 22 * 512) * 2 * 256 * 2


def test_a_window_that_is_no_whole_number_of_blocks_is_rounded_up() -> None:
    own = model("microsoft/Phi-3-mini-4k-instruct")

    assert sequence_bytes(own, 4096, 2) == 2048 * token_bytes(own, 2)


def test_need_is_weights_and_cache_and_workspace() -> None:
    own = model("meta-llama/Llama-3.1-8B")

    found = need(held(own, BF16, Layout()), Load(8192, 4))

    assert found.weights == 8_030_261_248 * 2
    assert found.cache == 4 * GIB
    assert 0.1 * GIB < found.workspace < GIB
    assert found.total == found.weights + found.cache + found.workspace


@given(
    st.sampled_from(["THUDM/glm-4-9b-chat", "google/gemma-2-2b", "zai-org/GLM-4.7-Flash"]),
    st.integers(8 * GIB, 160 * GIB),
    st.integers(1, 64),
)
def test_the_largest_context_fits_and_the_next_block_does_not(
    name: str, free: int, sequences: int
) -> None:
    own = model(name)
    each = held(own, BF16, Layout())

    most = largest_context(each, sequences, free, own.context)

    if most:
        assert need(each, Load(most, sequences)).total <= free
    if most < own.context:
        assert need(each, Load(most + 1, sequences)).total > free


@given(st.integers(20 * GIB, 80 * GIB), st.integers(1, 131072))
def test_the_largest_concurrency_fits_and_one_more_does_not(free: int, context: int) -> None:
    each = held(model("THUDM/glm-4-9b-chat"), BF16, Layout())

    most = largest_concurrency(each, context, free)

    if most:
        assert need(each, Load(context, most)).total <= free
    assert need(each, Load(context, most + 1)).total > free


def test_four_devices_share_heads_width_and_vocabulary() -> None:
    own = model("meta-llama/Llama-3.1-8B")

    whole = need(held(own, BF16, Layout()), Load(8192, 4))
    quarter = need(held(own, BF16, Layout(tensor=4)), Load(8192, 4))

    norms = 65 * 4096 * 2
    assert quarter.weights == (whole.weights - norms) / 4 + norms
    assert quarter.cache == whole.cache / 4


def test_fewer_key_value_heads_than_devices_are_copied() -> None:
    own = model("THUDM/glm-4-9b-chat")

    two = need(held(own, BF16, Layout(tensor=2)), Load(8192, 4))
    eight = need(held(own, BF16, Layout(tensor=8)), Load(8192, 4))

    assert eight.cache == two.cache


def test_a_latent_is_kept_whole_on_every_device() -> None:
    own = model("deepseek-ai/DeepSeek-V3")

    one = need(held(own, BF16, Layout()), Load(8192, 4))
    eight = need(held(own, BF16, Layout(tensor=8)), Load(8192, 4))

    assert eight.cache == one.cache


def test_stages_hold_all_layers_once_and_the_ends_of_the_model() -> None:
    own = model("zai-org/GLM-4.5")

    found = stages(own, 8)

    assert sum(count for stage in found for _, count in stage.layers) == 92
    assert [s.first for s in found] == [True] + [False] * 7
    assert [s.last for s in found] == [False] * 7 + [True]


def test_a_tied_table_is_held_by_the_first_stage_and_the_last() -> None:
    own = model("Qwen/Qwen2.5-0.5B-Instruct")

    split = sum(h.weights for h in held(own, BF16, Layout(pipeline=2)))
    whole = sum(h.weights for h in held(own, BF16, Layout()))

    assert split - whole == 151936 * 896 * 2


@pytest.mark.parametrize(
    ("name", "layout", "why"),
    [
        ("THUDM/glm-4-9b-chat", Layout(2), ""),
        ("THUDM/glm-4-9b-chat", Layout(8, 4), ""),
        ("THUDM/glm-4-9b-chat", Layout(3), "3 devices do not divide 32 heads"),
        ("THUDM/glm-4-9b-chat", Layout(1, 41), "40 layers do not fill 41 stages"),
        ("Qwen/Qwen2.5-7B-Instruct", Layout(7), "7 devices do not divide 4 key-value heads"),
        ("zai-org/GLM-4.7-Flash", Layout(4), ""),
        ("zai-org/GLM-4.7-Flash", Layout(8), "8 devices do not divide 20 heads"),
        ("deepseek-ai/DeepSeek-V3", Layout(16, 4), ""),
        ("zai-org/GLM-4.5-Air", Layout(24), "24 devices do not divide 128 experts"),
        ("THUDM/GLM-4-9B-0414", Layout(16), ""),
        ("microsoft/Phi-3-mini-4k-instruct", Layout(32), ""),
        ("Qwen/Qwen3-30B-A3B", Layout(32), ""),
    ],
)
def test_what_does_not_divide_is_named(name: str, layout: Layout, why: str) -> None:
    assert obstacle(model(name), layout) == why


def test_a_width_that_is_not_divided_is_named() -> None:
    own = architecture_of({**PUBLISHED["THUDM/glm-4-9b-chat"].config, "ffn_hidden_size": 13697})

    assert obstacle(own, Layout(2)) == "2 devices do not divide the width 13697"


def test_every_arrangement_of_the_devices_is_tried() -> None:
    assert [(x.tensor, x.pipeline) for x in layouts(6)] == [(6, 1), (3, 2), (2, 3), (1, 6)]
