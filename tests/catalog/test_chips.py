"""The chip catalog: what it must hold, and that every figure names its source."""

from __future__ import annotations

import re

import pytest

from autoglm.catalog.chips import chip, chips, default_chip, find, plain
from autoglm.errors import ConfigError

FIGURES = ("memory_bytes", "bandwidth_gbps", "watts", "link_gbps", "lacks")
GRADE = re.compile(r"specification|recalled|read 20\d\d-\d\d-\d\d")
PRECISIONS = {
    *("fp64", "fp32", "tf32", "bf16", "fp16", "fp8", "fp4", "int16", "int8", "int4"),
    "unstated",
}


def test_the_catalog_holds_at_least_forty_chips_of_every_vendor() -> None:
    vendors = {c.backend for c in chips().values()}

    assert len(chips()) >= 40
    assert {"cuda", "ascend", "cambricon", "kunlun", "sophon", "openvino", "torch"} <= vendors


@pytest.mark.parametrize("item", chips().values(), ids=lambda c: c.name)
def test_every_figure_names_its_source_and_is_positive(item) -> None:
    given = {*(f for f in FIGURES if getattr(item, f)), *item.peak_tflops}

    assert given <= set(item.sources)
    assert set(item.sources) == set(item.evidence)
    assert all(GRADE.fullmatch(grade) for grade in item.evidence.values())
    assert all(item.sources.values())
    assert all(value > 0 for value in item.peak_tflops.values())
    assert set(item.peak_tflops) <= PRECISIONS
    assert not set(item.lacks) & {*item.precisions, *item.peak_tflops}
    assert item.kind in ("cpu", "gpu", "npu")


def test_a_figure_that_was_read_names_the_address_where_it_was() -> None:
    read = {
        item.sources[figure]
        for item in chips().values()
        for figure, grade in item.evidence.items()
        if grade.startswith("read")
    }

    assert read
    assert all(re.search(r"https?://|arXiv:|@ ?[0-9a-f]{7,}", source) for source in read)


def test_one_figure_of_a_chip_can_be_read_and_another_recalled() -> None:
    t4 = chip("T4")

    assert t4.evidence["fp16"].startswith("read")
    assert t4.evidence["layouts"] == "recalled"
    assert chip("MLU370").evidence["watts"] == "specification"


def test_no_name_or_alias_means_two_chips() -> None:
    names = [(plain(n), c.name) for c in chips().values() for n in {c.name, *c.aliases}]
    owners: dict[str, set[str]] = {}
    for name, owner in names:
        owners.setdefault(name, set()).add(owner)

    assert {n: o for n, o in owners.items() if len(o) > 1} == {}


def test_the_specifications_figures_are_there_as_given() -> None:
    gib = 2**30

    assert chip("Ascend 910").peak_tflops["fp16"] == 256
    assert chip("Ascend 910").watts == 310
    assert chip("MLU370").peak_tflops == {"unstated": 240}
    assert chip("MLU370").watts == 180
    assert chip("CUDA").memory_bytes == 48 * gib
    assert chip("CUDA").collectives == ("nccl",)
    assert chip("Kunlun").memory_bytes == 32 * gib
    assert chip("Kunlun").collectives == ("bkcl",)
    assert chip("BM1684X").memory_bytes == 16 * gib
    assert chip("BM1684X").collectives == ("ring all-reduce (ours)",)
    assert all(
        chip(name).sources[field] == "specification"
        for name, field in [("Ascend 910", "watts"), ("MLU370", "watts"), ("CUDA", "memory_bytes")]
    )


def test_the_dtype_truth_is_per_chip() -> None:
    assert "fp16" in chip("BM1684").lacks
    assert "fp16" in chip("BM1684X").precisions


@pytest.mark.parametrize("name", ["Ascend910B", "ascend910b", "ASCEND 910B", "910b"])
def test_an_alias_finds_its_chip_in_any_case(name: str) -> None:
    assert chip(name).name == "Ascend 910B"


def test_an_unknown_chip_names_near_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        chip("H1000")

    assert "H100" in str(caught.value)
    assert find("H1000") is None


@pytest.mark.parametrize("backend", ["cuda", "ascend", "cambricon", "kunlun", "sophon"])
def test_a_vendor_has_a_default_chip_with_figures_to_plan_with(backend: str) -> None:
    default = default_chip(backend)

    assert default is not None
    assert default.memory_bytes
    assert default.peak_tflops
