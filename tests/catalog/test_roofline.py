"""A chip's speeds from its catalog entry: the stated shares, and low figures for the unknown."""

from __future__ import annotations

import pytest

from autoglm.catalog.chips import chips
from autoglm.catalog.roofline import (
    BANDWIDTH_SHARE,
    BLIND,
    LINK_SHARE,
    PEAK_SHARE,
    UNCERTAINTY,
    Machine,
    chip_machine,
    node_seconds,
)
from autoglm.catalog.work import Work
from autoglm.spec import Chip

KNOWN = Chip(
    "K",
    "maker",
    "k",
    "npu",
    bandwidth_gbps=100.0,
    peak_tflops={"fp32": 2.0, "fp16": 16.0, "int8": 32.0},
    link_gbps=16.0,
)


def test_a_product_runs_at_the_share_of_the_peak_of_its_precision() -> None:
    product = Work(1e9, 0, 0, gemm=True)
    for precision, peak in (("fp32", 2.0), ("fp16", 16.0), ("int8", 32.0), ("int8-dynamic", 32.0)):
        machine = chip_machine(KNOWN, precision)
        found = node_seconds(product, machine, precision=precision) - machine.node_s
        assert found == pytest.approx(1e9 / (PEAK_SHARE * peak * 1e12)), precision


def test_moving_runs_at_the_share_of_the_bandwidth_in_bytes_of_the_precision() -> None:
    moves = Work(0.0, 6 * 10**8, 4 * 10**8)
    machine = chip_machine(KNOWN, "fp16")

    found = node_seconds(moves, machine, precision="fp16") - machine.node_s

    assert found == pytest.approx(0.5e9 / (BANDWIDTH_SHARE * 100e9))
    assert machine.link_seconds(1e9) == pytest.approx(1.0 / (LINK_SHARE * 16))


def test_known_figures_leave_nothing_assumed() -> None:
    machine = chip_machine(KNOWN, "fp16")

    assert machine.assumed == ()
    assert machine.uncertainty == UNCERTAINTY
    assert machine.source == "estimated from the catalog: K"


def test_every_figure_that_is_unknown_is_named_low_and_widens_the_range() -> None:
    blank = chip_machine(Chip("B", "maker", "b", "npu"), "fp16")

    text = "; ".join(blank.assumed)
    assert len(blank.assumed) == 3
    assert all(word in text for word in ("fp16 rate is unknown", "bandwidth is unknown", "link"))
    assert blank.uncertainty == BLIND
    for name, chip in chips().items():
        for precision in chip.precisions:
            if precision in ("fp32", "fp16", "bf16", "int8"):
                machine = chip_machine(chip, precision)
                assert all(rate > 0 for rate in machine.gemm_gflops.values()), name
                assert bool(machine.assumed) == (machine.uncertainty == BLIND)


@pytest.mark.parametrize(
    ("peaks", "precision", "tflops"),
    [
        ({"fp16": 16.0}, "fp32", 2.0),
        ({"fp32": 4.0}, "fp16", 4.0),
        ({"fp16": 8.0}, "bf16", 8.0),
        ({"fp16": 8.0}, "int8", 8.0),
        ({"int8": 8.0}, "fp16", 2.0),
        ({"unstated": 8.0}, "fp16", 4.0),
        ({"int4": 64.0}, "fp32", 0.5),
    ],
)
def test_a_rate_that_is_not_published_is_another_ones_and_no_gain(
    peaks: dict[str, float], precision: str, tflops: float
) -> None:
    chip = Chip("C", "m", "c", "npu", bandwidth_gbps=1.0, link_gbps=1.0, peak_tflops=peaks)
    machine = chip_machine(chip, precision)
    dtype = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "int8": "int8"}[precision]

    assert machine.gemm_gflops[dtype] == pytest.approx(1e3 * PEAK_SHARE * tflops)
    assert f"{tflops:g} TFLOPS" in machine.assumed[0]


def test_an_operators_measured_factor_counts_for_it_alone() -> None:
    machine = Machine(vector_gflops=1.0, node_s=0.0, factors={"Erf": 3.0})
    work = Work(1e9, 0, 0)

    assert node_seconds(work, machine, precision="fp32", op="Erf") == pytest.approx(3.0)
    assert node_seconds(work, machine, precision="fp32", op="Tanh") == pytest.approx(1.0)


def test_what_was_only_recalled_is_named_and_what_was_read_is_not() -> None:
    grades = {"bandwidth_gbps": "recalled", "fp16": "read 2026-11-22", "fp32": "recalled"}
    chip = Chip(
        "X", "V", "cuda", "gpu", bandwidth_gbps=500, link_gbps=16,
        peak_tflops={"fp16": 100, "fp32": 10}, evidence=grades,
    )  # fmt: skip

    assert chip_machine(chip, "fp16").recalled == ("bandwidth_gbps",)
    assert chip_machine(chip, "fp32").recalled == ("bandwidth_gbps", "fp32")


def test_the_host_has_no_link() -> None:
    assert Machine().link_seconds(10**9) == 0.0
