"""Bytes of weights by precision: what is quantised, its scales, and what stays in 16 bits."""

from __future__ import annotations

from typing import Any

import pytest
from llm.published import PUBLISHED

from autoglm.errors import ModelError
from autoglm.llm.read import architecture_of
from autoglm.llm.storage import STORAGES, Storage, checkpoint_storage
from autoglm.llm.weights import Role, Weight, all_weights

MATRIX = Weight(Role.DENSE, 256, 1024)
HEAD = Weight(Role.HEAD, 1000, 64)


def total(name: str, storage: Storage) -> float:
    own = architecture_of(PUBLISHED[name].config)
    return sum(storage.bytes_of(w) * count for w, count in all_weights(own))


@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        ("fp32", 256 * 1024 * 4),
        ("bf16", 256 * 1024 * 2),
        ("int8", 256 * 1024 + 256 * 2),
        ("int4", 256 * 1024 / 2 + 256 * 8 * 2.5),
    ],
)
def test_a_matrix_takes_its_bits_and_its_scales(precision: str, expected: float) -> None:
    assert STORAGES[precision].bytes_of(MATRIX) == expected


@pytest.mark.parametrize("role", [Role.EMBEDDING, Role.HEAD, Role.ROUTER, Role.SMALL])
def test_embedding_head_router_and_norms_stay_in_16_bits(role: Role) -> None:
    assert STORAGES["int4"].bytes_of(Weight(role, 1000, 64)) == 1000 * 64 * 2


def test_a_group_that_does_not_divide_the_inputs_needs_one_scale_more() -> None:
    odd = Weight(Role.DENSE, 1, 130)

    assert STORAGES["int4"].bytes_of(odd) == 65 + 2 * 2.5


@pytest.mark.parametrize(
    ("quantization", "name", "matrix_bytes"),
    [
        (
            {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True},
            "gptq int4 g128",
            256 * 512 + 256 * 8 * 2.5,
        ),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, "gptq int8", 256 * 1024 + 256 * 3),
        (
            {"quant_method": "awq", "w_bit": 4, "q_group_size": 64, "zero_point": True},
            "awq int4 g64",
            256 * 512 + 256 * 16 * 2.5,
        ),
        (
            {"quant_method": "fp8", "weight_block_size": [128, 128]},
            "fp8",
            256 * 1024 + 2 * 8 * 4,
        ),
        ({"quant_method": "fp8", "activation_scheme": "static"}, "fp8", 256 * 1024 + 4),
        (
            {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
            "bitsandbytes nf4",
            256 * 512 + 256 * 16 * 4,
        ),
        (
            {
                "quant_method": "bitsandbytes",
                "load_in_4bit": True,
                "bnb_4bit_use_double_quant": True,
            },
            "bitsandbytes fp4",
            256 * 512 + 256 * 16 * (1 + 4 / 256),
        ),
        (
            {"quant_method": "bitsandbytes", "load_in_8bit": True},
            "bitsandbytes int8",
            256 * 1024 + 256 * 4,
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {
                    "group_0": {"weights": {"num_bits": 4, "group_size": 128, "symmetric": True}}
                },
            },
            "compressed-tensors int4 g128",
            256 * 512 + 256 * 8 * 2,
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {
                    "group_0": {"weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}
                },
            },
            "compressed-tensors fp8",
            256 * 1024 + 256 * 2,
        ),
    ],
)
def test_a_quantised_checkpoint_is_taken_as_it_is(
    quantization: dict[str, Any], name: str, matrix_bytes: float
) -> None:
    found = checkpoint_storage(quantization, "bf16")

    assert (found.name, found.bytes_of(MATRIX)) == (name, matrix_bytes)
    assert found.bytes_of(HEAD) == 1000 * 64 * 2


def test_gptq_may_quantise_the_head() -> None:
    told = {"quant_method": "gptq", "bits": 4, "group_size": 64, "lm_head": True}

    assert checkpoint_storage(told, "fp16").bytes_of(HEAD) == 1000 * 32 + 1000 * 2.5


@pytest.mark.parametrize(
    ("quantization", "field"),
    [
        ({"quant_method": "aqlm"}, "quant_method is 'aqlm'; planned: awq, bitsandbytes"),
        ({}, "quant_method is missing"),
        ({"quant_method": "gptq", "bits": 5}, "bits is 5; allowed: 2, 3, 4, 8"),
        ({"quant_method": "gptq", "group_size": "all"}, "group_size is 'all'"),
        ({"quant_method": "fp8", "weight_block_size": [128]}, "weight_block_size is"),
        ({"quant_method": "compressed-tensors"}, "config_groups is missing"),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"group_0": {}}},
            "config_groups.weights is missing",
        ),
    ],
)
def test_a_quantisation_that_is_not_known_is_refused_by_field(
    quantization: dict[str, Any], field: str
) -> None:
    with pytest.raises(ModelError) as caught:
        checkpoint_storage(quantization, "bf16")

    assert field in str(caught.value)


def test_four_bits_shrink_a_large_model_more_than_a_small_one() -> None:
    large = total("Qwen/Qwen2.5-7B-Instruct", STORAGES["int4"])
    small = total("Qwen/Qwen2.5-0.5B-Instruct", STORAGES["int4"])

    # Of the published int4 checkpoints: Qwen2.5-7B-Instruct-AWQ has 5.57 GB, the 0.5B 0.46 GB
    assert large / 1e9 == pytest.approx(5.57, rel=0.02)
    assert small / 1e9 == pytest.approx(0.46, rel=0.02)
