"""Predicted prefill and decoding against what engines were measured to do, and by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from llm.published import PUBLISHED

from autoglm.catalog.chips import chip
from autoglm.catalog.roofline import Machine
from autoglm.llm.architecture import Architecture
from autoglm.llm.read import architecture_of
from autoglm.llm.speed import Prediction, chip_speeds, decode, machine_speeds, prefill
from autoglm.llm.split import Layout
from autoglm.llm.storage import STORAGES
from autoglm.llm.weights import Role, Weight, active_parameters, met
from autoglm.llm.work import (
    decode_work,
    head_flops,
    prefill_work,
    prompt_pairs,
    sent_each_layer,
    token_flops,
)

ONE = Layout()
BF16 = STORAGES["bf16"]
# What was measured of the machine that the table below is from.
ZEN4 = Machine(
    gemm_gflops={"float32": 222.0, "bfloat16": 413.0, "float16": 222.0, "int8": 847.0},
    read_gbps=33.5,
    copy_gbps=32.0,
    source="measured: 2 vCPU of an AMD Zen 4",
)


def model(name: str) -> Architecture:
    return architecture_of(PUBLISHED[name].config)


def measured(name: str) -> Architecture:
    """The random GLM-4 models that were measured: 491 M and 1.45 B parameters."""
    hidden, width = {"0.5B": (1024, 4096), "1.5B": (2048, 6144)}[name]
    return architecture_of(
        {
            "model_type": "glm4",
            "hidden_size": hidden,
            "intermediate_size": width,
            "num_hidden_layers": 28,
            "num_attention_heads": hidden // 64,
            "num_key_value_heads": 4,
            "head_dim": 64,
            "vocab_size": 32000,
            "max_position_embeddings": 32768,
        }
    )


def rate(step: Prediction, tokens: int) -> float:
    assert step.seconds is not None
    return tokens / step.seconds


@pytest.mark.parametrize(
    ("name", "precision", "tokens_per_s"),
    [("0.5B", "int4", 436), ("0.5B", "int8", 379), ("1.5B", "int4", 162)],
)
def test_prefill_on_the_cpu_is_what_openvino_genai_reached(
    name: str, precision: str, tokens_per_s: float
) -> None:
    storage = STORAGES[precision]

    step = prefill(measured(name), storage, ONE, machine_speeds(ZEN4, storage), 512)

    assert rate(step, 512) == pytest.approx(tokens_per_s, rel=0.3)
    assert step.bound == "arithmetic"


@pytest.mark.parametrize(
    ("name", "precision", "sequences", "context", "tokens_per_s"),
    [
        ("0.5B", "int4", 1, 512, 60.9),  # llama.cpp q4_0
        ("0.5B", "int8", 1, 512, 41.2),  # llama.cpp q8_0
        ("1.5B", "int4", 1, 512, 28.7),  # llama.cpp q4_0
        ("0.5B", "int4", 8, 64, 251),  # openvino-genai
        ("0.5B", "int8", 8, 64, 226),  # openvino-genai
        ("1.5B", "int4", 8, 64, 77),  # openvino-genai
    ],
)
def test_decoding_on_the_cpu_is_what_the_best_engine_reached(
    name: str, precision: str, sequences: int, context: int, tokens_per_s: float
) -> None:
    storage = STORAGES[precision]
    speeds = machine_speeds(ZEN4, storage)

    step = decode(measured(name), storage, ONE, speeds, context, sequences)

    assert rate(step, sequences) == pytest.approx(tokens_per_s, rel=0.3)


def test_on_the_cpu_16_bits_are_said_to_be_uncertain() -> None:
    assert (
        machine_speeds(ZEN4, BF16).uncertainty > machine_speeds(ZEN4, STORAGES["int4"]).uncertainty
    )


def test_flops_of_a_token_are_twice_its_active_parameters() -> None:
    own = model("meta-llama/Llama-3.1-8B")

    total = token_flops(own) + head_flops(own)

    embedding = 128256 * 4096
    assert total == pytest.approx(2 * (active_parameters(own) - embedding), rel=1e-3)


@pytest.mark.parametrize(
    ("tokens", "window", "pairs"), [(4, 0, 10), (4, 8, 10), (6, 2, 3 + 4 * 2), (1, 1, 1)]
)
def test_a_causal_prompt_has_half_a_square_of_pairs_or_a_band(
    tokens: int, window: int, pairs: int
) -> None:
    assert prompt_pairs(tokens, window) == pairs


def test_attention_grows_with_the_square_of_the_prompt() -> None:
    own = model("meta-llama/Llama-3.1-8B")

    short = prefill_work(own, BF16, ONE, 1000).flops - 1000 * token_flops(own)
    long = prefill_work(own, BF16, ONE, 10000).flops - 10000 * token_flops(own)

    assert long / short == pytest.approx(100, rel=0.1)


def test_decoding_reads_every_weight_but_the_embedding_and_the_cache() -> None:
    own = model("meta-llama/Llama-3.1-8B")

    read = decode_work(own, BF16, ONE, 4096, 2).read_bytes

    weights = (8_030_261_248 - 128256 * 4096) * 2
    cache = 2 * 4096 * 131072
    assert read == pytest.approx(weights + cache, rel=1e-4)


def test_sparse_attention_reads_what_it_picked_and_the_whole_index() -> None:
    own = model("zai-org/GLM-5")

    grown = [decode_work(own, BF16, ONE, context, 1).read_bytes for context in (2048, 65536)]

    assert grown[1] - grown[0] == 78 * (65536 - 2048) * 128 * 2


def test_a_tied_head_is_read_like_another() -> None:
    own = model("Qwen/Qwen2.5-0.5B-Instruct")

    read = decode_work(own, BF16, ONE, 16, 1).read_bytes

    assert read == pytest.approx(494_032_768 * 2, rel=1e-3)


def test_more_sequences_meet_more_experts_but_never_more_than_there_are() -> None:
    own = model("zai-org/GLM-4.5-Air")
    feed = own.layers[-1].feed
    experts = Weight(Role.EXPERT, 10, 10, copies=128)

    copies = [met(experts, feed, n).copies for n in (1, 8, 4096)]

    assert copies == [8, pytest.approx(51, abs=2), 128]


def test_a_chip_s_unknown_bandwidth_leaves_decoding_unknown_and_prefill_estimated() -> None:
    own, speeds = model("THUDM/glm-4-9b-chat"), chip_speeds(chip("MLU370"), "bf16")

    assert prefill(own, BF16, ONE, speeds, 512).seconds
    assert decode(own, BF16, ONE, speeds, 512, 1).seconds is None
    assert speeds.uncertainty > chip_speeds(chip("H100"), "bf16").uncertainty


def test_a_chip_without_any_rate_promises_nothing() -> None:
    speeds = chip_speeds(chip("Ascend910B3"), "bf16")

    assert (speeds.flops, speeds.bandwidth) == (None, None)


def test_one_sequence_is_bound_by_bandwidth_and_a_prompt_by_arithmetic() -> None:
    own, speeds = model("meta-llama/Llama-3.1-8B"), chip_speeds(chip("H100"), "bf16")

    assert decode(own, BF16, ONE, speeds, 1024, 1).bound == "bandwidth"
    assert prefill(own, BF16, ONE, speeds, 4096).bound == "arithmetic"


def test_a_group_shares_the_work_and_pays_for_its_links() -> None:
    own, speeds = model("meta-llama/Llama-3.1-8B"), chip_speeds(chip("H100"), "bf16")

    one = decode(own, BF16, ONE, speeds, 4096, 16)
    four = decode(own, BF16, Layout(tensor=4), speeds, 4096, 16)
    slow = decode(own, BF16, Layout(tensor=4), replace(speeds, link=1e6), 4096, 16)

    assert one.links_s == 0 < four.links_s
    assert four.reading_s == pytest.approx(one.reading_s / 4, rel=0.01)  # type: ignore[operator]
    assert slow.bound == "links"


def test_two_all_reduces_a_layer_go_around_the_ring() -> None:
    own = model("meta-llama/Llama-3.1-8B")

    assert sent_each_layer(own, BF16, 4) == 2 * (2 * 3 / 4) * 4096 * 2
    assert sent_each_layer(own, BF16, 1) == 0


def test_a_pipeline_helps_many_sequences_and_not_one() -> None:
    own, speeds = model("meta-llama/Llama-3.1-8B"), chip_speeds(chip("H100"), "bf16")
    four = Layout(pipeline=4)

    one = [decode(own, BF16, layout, speeds, 4096, 1).seconds for layout in (ONE, four)]
    many = [decode(own, BF16, layout, speeds, 4096, 256).seconds for layout in (ONE, four)]

    assert one[1] >= one[0]  # type: ignore[operator]
    assert many[1] < many[0]  # type: ignore[operator]
