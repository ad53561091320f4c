"""The machine's speeds: measured, kept, and measured again when the file is of no use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoglm.plan import Machine
from autoglm.runtime.machine import machine, machine_key, measure


@pytest.fixture(scope="module")
def measured() -> Machine:
    return measure()


def test_every_speed_is_positive_and_of_this_world(measured: Machine) -> None:
    rates = measured.gemm_gflops
    assert {"float32", "float64", "float16", "bfloat16", "int8"} <= set(rates)
    assert all(0.05 < rate < 1e6 for rate in rates.values())
    for rate in (
        measured.read_gbps,
        measured.copy_gbps,
        measured.cast_gbps,
        measured.layout_gbps,
        measured.vector_gflops,
    ):
        assert 0.005 < rate < 1e5
    assert 1e-7 < measured.dispatch("onnxruntime") < 0.1
    assert measured.dispatch("some other engine") > measured.dispatch("onnxruntime")
    assert 0 < measured.node_s < 0.01
    assert {"Erf", "Softmax", "Conv", "MaxPool"} <= set(measured.factors)
    assert all(0.1 <= f <= 1000 for f in measured.factors.values())
    assert 0.0 <= measured.wake_s < 1.0
    assert measured.uncertainty >= 0.5
    assert measured.source.startswith("measured")


def test_half_precision_is_never_slower_than_single(measured: Machine) -> None:
    assert measured.gemm_gflops["bfloat16"] >= measured.gemm_gflops["float32"]
    assert measured.gemm_gflops["float16"] >= measured.gemm_gflops["float32"]


def test_a_second_call_reads_what_the_first_kept(tmp_path: Path) -> None:
    first = machine(folder=tmp_path)
    path = tmp_path / f"machine-{machine_key()}.json"
    values = json.loads(path.read_text())
    values["copy_gbps"] = 123.0
    path.write_text(json.dumps(values))

    assert machine(folder=tmp_path).copy_gbps == 123.0
    assert machine(folder=tmp_path).gemm_gflops == first.gemm_gflops
    assert machine(True, folder=tmp_path).copy_gbps != 123.0


@pytest.mark.parametrize("text", ["{", "[]", '{"gemm_gflops": 3}'], ids=["cut", "list", "other"])
def test_a_damaged_file_is_measured_again(tmp_path: Path, text: str, measured: Machine) -> None:
    path = tmp_path / f"machine-{machine_key()}.json"
    path.write_text(text)

    assert machine(folder=tmp_path).source == measured.source
    assert json.loads(path.read_text())["copy_gbps"] > 0


def test_a_folder_that_cannot_be_written_is_no_reason_to_fail(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")

    assert machine(folder=blocked / "cache").copy_gbps > 0
