"""Seconds from work: the roofline, precision, and what a boundary adds."""

from __future__ import annotations

import pytest

from autoglm.catalog.work import Work
from autoglm.plan.cost import Machine, Side, boundary_kinds, boundary_seconds, node_seconds

FAST = Machine(
    gemm_gflops={"float32": 100.0, "bfloat16": 200.0, "int8": 400.0},
    vector_gflops=10.0,
    read_gbps=10.0,
    copy_gbps=5.0,
    cast_gbps=2.0,
    layout_gbps=1.0,
    node_s=0.0,
)


def test_arithmetic_bounds_a_large_product_and_bandwidth_a_small_one() -> None:
    assert node_seconds(Work(1e9, 100, 100, gemm=True), FAST, precision="fp32") == pytest.approx(
        0.01
    )
    assert node_seconds(Work(10, 10**9, 0, gemm=True), FAST, precision="fp32") == pytest.approx(0.1)


def test_precision_changes_rate_and_bytes() -> None:
    product = Work(1e9, 0, 0, gemm=True)
    moves = Work(0.0, 8 * 10**8, 2 * 10**8)

    assert node_seconds(product, FAST, precision="bf16") == pytest.approx(0.005)
    assert node_seconds(product, FAST, precision="int8") == pytest.approx(0.0025)
    assert node_seconds(moves, FAST, precision="fp16") == pytest.approx(0.05)


def test_precision_leaves_integers_alone() -> None:
    shapes = Work(0.0, 10**9, 0, dtype="int64")

    assert node_seconds(shapes, FAST, precision="int8") == node_seconds(
        shapes, FAST, precision="fp32"
    )


def test_speed_divides() -> None:
    product = Work(1e9, 0, 0, gemm=True)

    assert node_seconds(product, FAST, precision="fp32", speed=4.0) == pytest.approx(0.0025)


def test_a_boundary_copies_and_where_needed_casts_and_lays_out() -> None:
    npu, cpu = Side("npu", "fp16", "NHWC"), Side("cpu", "fp32", "NCHW")

    assert boundary_kinds(cpu, cpu, "float32", 4) == ("copy",)
    assert boundary_kinds(npu, cpu, "float32", 4) == ("copy", "cast", "layout")
    assert boundary_kinds(npu, cpu, "float32", 2) == ("copy", "cast")
    assert boundary_kinds(npu, cpu, "int64", 4) == ("copy", "layout")
    assert boundary_seconds(("copy", "cast", "layout"), 10**9, FAST) == pytest.approx(
        0.2 + 0.5 + 1.0
    )


def test_an_engine_that_was_not_measured_has_the_default_dispatch() -> None:
    machine = Machine(dispatch_s={"": 3e-6, "npu": 9e-6})

    assert machine.dispatch("npu") == 9e-6
    assert machine.dispatch("other") == 3e-6
