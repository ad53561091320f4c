"""Cambricon: the builder's configuration, the build and the session against a stand-in.

Nothing here ran on the real MagicMind or on an MLU: `tests/fakes` enforces what its samples show.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import Builder

import autoglm
from autoglm.backends.cambricon import Cambricon
from autoglm.backends.cambricon.capabilities import table
from autoglm.backends.cambricon.config import KNOWN, builder_config
from autoglm.errors import (
    BackendUnavailableError,
    BundleError,
    CompileError,
    ConfigError,
    InputError,
)
from autoglm.spec import CompileOptions, Evidence, NodeFacts, RunOptions, TensorInfo, ValueFacts

MODULES = Path(__file__).parents[1] / "fakes" / "modules"


@pytest.fixture
def magicmind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The stand-in, for this process and for the child that builds; nothing of it stays."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(MODULES), *sys.path[:1]]))
    monkeypatch.syspath_prepend(str(MODULES))
    yield
    for name in [n for n in sys.modules if n.partition(".")[0] == "magicmind"]:
        del sys.modules[name]


def net(*, size: Any = 2, opset: int = 18) -> ir.Model:
    b = Builder(opset=opset)
    x = b.op("Conv", b.input("x", (size, 3, 8, 8)), b.weight(4, 3, 3, 3), pads=[1, 1, 1, 1])
    x = b.op("GlobalAveragePool", b.op("MaxPool", b.op("Relu", x), kernel_shape=[2, 2]))
    return b.model(b.op("Gemm", b.op("Flatten", x), b.weight(4, 5), b.weight(5)))


def compiled(model: ir.Model, folder: Path, **options: Any) -> Any:
    folder.mkdir(exist_ok=True)
    return Cambricon().compile(model, CompileOptions(**{"arch": "MLU370-X8", **options}), folder)


def info(shape: Any = (1, 3)) -> tuple[TensorInfo, ...]:
    return (TensorInfo("x", "float32", shape),)


def test_the_configuration_has_the_documented_keys() -> None:
    found = builder_config(info(), CompileOptions(precision="fp16", arch="MLU370-X4"), int64=True)

    assert found == {
        "archs": [{"mtp_372": [2, 6, 8]}],
        "precision_config": {"precision_mode": "force_float16"},
        "graph_shape_mutable": False,
        "opt_config": {"type64to32_conversion": True, "conv_scale_fold": False},
    }


def test_int8_says_how_it_is_quantised() -> None:
    found = builder_config(info(), CompileOptions(precision="int8", arch="MLU590"))

    assert found["archs"] == [{"mtp_592": [1]}]
    assert found["precision_config"] == {
        "precision_mode": "qint8_mixed_float16",
        "weight_quant_granularity": "per_tensor",
        "activation_quant_algo": "symmetric",
    }


def test_open_dimensions_take_a_range() -> None:
    options = CompileOptions(settings={"dim_range": "x:1,3~64,3"})

    found = builder_config(info(("n", 3)), options)

    assert found["graph_shape_mutable"] is True
    assert found["dim_range"] == {"0": {"min": [1, 3], "max": [64, 3]}}


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({"precision": "fp16"}, (1, 3), "no setting 'precision'"),
        ({"precision_mode": "force_float8"}, (1, 3), "takes force_float32, force_float16"),
        ({"mlu_arch": "mtp_999"}, (1, 3), "takes mtp_372, tp_322, mtp_592"),
        ({"cluster_num": "two"}, (1, 3), "whole numbers"),
        ({"dim_range": "x:3~1"}, ("n",), "NAME:smallest~largest"),
        ({"dim_range": "y:1~2"}, ("n",), "names 'y'; the inputs are x"),
        ({}, ("n", 3), "has open dimensions"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_is_allowed(
    options: dict[str, str], shape: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        builder_config(info(shape), CompileOptions(settings=options))


def test_white_space_around_a_cluster_number_is_taken_even_where_int_would_not() -> None:
    found = builder_config(info(), CompileOptions(settings={"cluster_num": "2,6\x1f"}))

    assert found["archs"] == [{"mtp_372": [2, 6]}]


@settings(max_examples=200)
@given(st.sampled_from(sorted(KNOWN)), st.text(max_size=40))
def test_no_setting_ends_in_anything_but_a_configuration_or_an_error(name: str, value: str) -> None:
    try:
        found = builder_config(info(), CompileOptions(settings={name: value}))
    except ConfigError:
        return
    assert found["archs"]


def test_a_chip_that_magicmind_does_not_build_for_is_refused() -> None:
    with pytest.raises(ConfigError, match="builds for mtp_372, tp_322, mtp_592"):
        builder_config(info(), CompileOptions(arch="MLU100"))


def fact(op: str, since: int, dtype: str = "float32") -> NodeFacts:
    value = ValueFacts(dtype, (1, 3, 8, 8))
    return NodeFacts("n", op, since, (value,), (value,))


def test_what_the_samples_build_is_a_yes_and_the_rest_unknown() -> None:
    found = table("MLU370-X8")

    taken = found.support(fact("Relu", 14))
    assert (taken.ok, taken.evidence) == (True, Evidence.DOCUMENT)
    assert found.support(fact("Softmax", 13)).verdict.value == "unknown"
    assert found.chip is not None
    assert found.chip.name == "MLU370-X8"


def test_what_other_examples_export_is_a_yes_by_inference_only() -> None:
    found = table("MLU370-X8")

    taken = found.support(fact("Erf", 11))
    assert (taken.ok, taken.evidence) == (True, Evidence.INFERRED)
    assert found.table["Erf"].evidence is Evidence.INFERRED
    assert found.table["Conv"].evidence is Evidence.DOCUMENT


def test_a_dtype_that_no_example_has_is_unknown_not_refused() -> None:
    verdict = table("MLU370-X8").support(fact("Relu", 14, "int32"))

    assert verdict.verdict.value == "unknown"
    assert "int32 is not listed" in verdict.reason


def test_precisions_that_magicmind_lacks_are_refused_with_the_source() -> None:
    found = table().precisions

    assert "magicmind_cloud" in found["bf16"].reason
    assert not found["int8-dynamic"].ok


def test_check_needs_no_toolkit() -> None:
    assert autoglm.check(net(), backend="cambricon", arch="MLU370-X8").to_dict()["plan"]


def test_without_magicmind_the_error_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailableError, match="MagicMind cannot be loaded") as caught:
        compiled(net(), tmp_path / "out")

    assert "NEUWARE_HOME" in caught.value.hint


def test_a_model_is_built_in_a_child_and_computes_what_it_says(
    tmp_path: Path, magicmind: None
) -> None:
    model = net()
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)

    artifact = compiled(model, tmp_path / "out")
    with Cambricon().open(artifact, tmp_path / "out", RunOptions()) as session:
        (found,) = session.run({"x": x}).values()

    (expected,) = autoglm.run(model, {"x": x}, backend="onnxruntime").values()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["magicmind.log", "model.mm"]


def test_threads_that_share_a_session_get_their_own_answers(
    tmp_path: Path, magicmind: None
) -> None:
    b = Builder(opset=11)
    model = b.model(b.op("Relu", b.input("x", (3,))))
    artifact = compiled(model, tmp_path / "out")

    with Cambricon().open(artifact, tmp_path / "out", RunOptions()) as session:
        import magicmind.python.runtime as mm

        slow = mm.Queue.sync

        def sync(queue: Any) -> Any:
            time.sleep(0.01)
            return slow(queue)

        with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(4) as pool:
            patch.setattr(mm.Queue, "sync", sync)
            feeds = [{"x": np.full(3, n, np.float32)} for n in range(12)]
            found = list(pool.map(session.run, feeds))

    assert [next(iter(f.values())).tolist() for f in found] == [[n] * 3 for n in range(12)]


def test_int8_is_calibrated_with_the_samples(tmp_path: Path, magicmind: None) -> None:
    samples = [{"x": np.ones((2, 3, 8, 8), np.float32) * i} for i in range(3)]

    artifact = compiled(net(), tmp_path / "out", precision="int8", calibration=samples)

    assert artifact.precision == "int8"
    assert (tmp_path / "out" / "model.mm").is_file()


def test_int8_without_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs calibration data"):
        compiled(net(), tmp_path / "out", precision="int8")


def test_a_range_of_batches_runs(tmp_path: Path, magicmind: None) -> None:
    options = {"dim_range": "x:1,3,8,8~4,3,8,8"}
    artifact = compiled(net(size="n"), tmp_path / "out", settings=options)

    with Cambricon().open(artifact, tmp_path / "out", RunOptions()) as session:
        for size in (1, 4):
            (found,) = session.run({"x": np.ones((size, 3, 8, 8), np.float32)}).values()
            assert found.shape[0] == size


def test_64_bit_integers_travel_as_32_bit_ones(tmp_path: Path, magicmind: None) -> None:
    b = Builder(opset=11)
    model = b.model(b.op("Identity", b.input("x", (3,), np.int64)))
    artifact = compiled(model, tmp_path / "out")

    with Cambricon().open(artifact, tmp_path / "out", RunOptions()) as session:
        (found,) = session.run({"x": np.array([1, -2, 3])}).values()
        with pytest.raises(InputError, match="beyond 32 bits"):
            session.run({"x": np.array([1, 2**40, 3])})

    assert (found.tolist(), found.dtype) == ([1, -2, 3], np.int64)


def test_what_magicmind_refuses_is_in_the_error(tmp_path: Path, magicmind: None) -> None:
    b = Builder(opset=11)
    model = b.model(b.op("Erf", b.input("x", (2, 3)), name="curve"))

    with pytest.raises(CompileError, match=r"op Erf \(curve\) is unsupported"):
        compiled(model, tmp_path / "out")


def test_a_device_that_is_not_here_is_refused(tmp_path: Path, magicmind: None) -> None:
    artifact = compiled(net(), tmp_path / "out")

    with pytest.raises(BackendUnavailableError, match="no MLU 'mlu:7'; 1 are here"):
        Cambricon().open(artifact, tmp_path / "out", RunOptions(device="mlu:7"))


def test_a_missing_file_is_a_bundle_error(tmp_path: Path, magicmind: None) -> None:
    artifact = compiled(net(), tmp_path / "out")
    (tmp_path / "out" / "model.mm").unlink()

    with pytest.raises(BundleError, match=r"model\.mm is missing"):
        Cambricon().open(artifact, tmp_path / "out", RunOptions())
