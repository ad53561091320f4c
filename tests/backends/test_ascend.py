"""Ascend: ATC's command line, the compile and the OM session against contract stand-ins.

Nothing here ran on the real ATC or on an NPU: `tests/fakes` enforces what Huawei documents.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import Builder, cnn, feeds

import autoglm
from autoglm.backends.ascend import Ascend
from autoglm.backends.ascend.capabilities import table
from autoglm.backends.ascend.compile import soc_version
from autoglm.backends.ascend.flags import FLAGS, command, flags, gears
from autoglm.config import AdaptConfig
from autoglm.errors import (
    BackendUnavailableError,
    BundleError,
    CompileError,
    ConfigError,
    ExecutionError,
    InputError,
)
from autoglm.runtime.candidate import options_of
from autoglm.spec import (
    CompileOptions,
    Device,
    Evidence,
    NodeFacts,
    RunOptions,
    TensorInfo,
    ValueFacts,
    Verdict,
)

FAKES = Path(__file__).parents[1] / "fakes"


@pytest.fixture
def atc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in for ATC, first on PATH, run by this Python."""
    folder = tmp_path / "cann" / "bin"
    folder.mkdir(parents=True)
    text = (FAKES / "atc").read_text("utf-8").replace("/usr/bin/env python3", sys.executable)
    (folder / "atc").write_text(text, "utf-8")
    (folder / "atc").chmod(0o755)
    (folder.parent / "version.cfg").write_text("version=9.0.0\n", "utf-8")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder / "atc"


@pytest.fixture
def acl(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The stand-in for pyACL; nothing may be left over when the test ends."""
    monkeypatch.syspath_prepend(str(FAKES / "modules"))
    monkeypatch.delitem(sys.modules, "acl", raising=False)
    import acl

    acl.reset()
    yield acl
    assert acl.S.left() == {}
    assert not acl.S.ready
    sys.modules.pop("acl", None)  # monkeypatch would put it back


def infos(**shapes: Any) -> tuple[TensorInfo, ...]:
    return tuple(TensorInfo(name, "float32", shape) for name, shape in shapes.items())


def told(options: dict[str, str], **shapes: Any) -> dict[str, str]:
    return flags(infos(**(shapes or {"x": (1, 3, 8, 8)})), CompileOptions(settings=options))


def batched() -> ir.Model:
    b = Builder(opset=18)
    x = b.input("x", ("n", 4))
    return b.model(b.op("Relu", b.op("MatMul", x, b.weight(4, 5))))


# The command line


def test_the_command_of_the_specification_is_reproduced() -> None:
    argv = command("yolov5.onnx", "yolov5_aicore", "Ascend910")

    expected = "atc --model=yolov5.onnx --framework=5 --output=yolov5_aicore"
    assert " ".join(argv) == f"{expected} --soc_version=Ascend910"


@pytest.mark.parametrize(
    ("precision", "mode"), [("fp32", "origin"), ("fp16", "fp16"), ("bf16", "mixed_bfloat16")]
)
def test_a_precision_is_said_and_never_left_to_atc(precision: str, mode: str) -> None:
    found = flags(infos(x=(1, 3)), CompileOptions(precision=precision))

    assert found == {"precision_mode_v2": mode}


def test_every_flag_that_a_setting_gives_is_passed_on() -> None:
    given = {
        "input_shape": "x:1,3,8,8",
        "input_format": "NCHW",
        "precision_mode_v2": "mixed_float16",
        "insert_op_conf": "aipp.cfg",
        "output_type": "FP16",
        "log": "info",
        "op_select_implmode": "high_precision",
    }

    argv = command("m.onnx", "m", "Ascend310P3", told(given))

    assert {f"--{name}={value}" for name, value in given.items()} <= set(argv)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputshape": "x:1"}, "no flag --inputshape"),
        ({"precision_mode_v2": "fp8"}, "takes fp16, origin, .*; found 'fp8'"),
        ({"log": "verbose"}, "takes debug, info, warning, error, null"),
        ({"op_select_implmode": "fast"}, "high_precision"),
        ({"output_type": "FP8"}, "FP32, FP16, UINT8"),
        ({"input_shape": "x:1,0,8,8"}, "no dimension of 0"),
        ({"input_shape": "x=1,3"}, "takes name:n,c,h,w"),
        ({"input_shape": "x:1.5,3"}, "in whole numbers"),
        ({"precision_mode": "force_fp16", "precision_mode_v2": "fp16"}, "not both"),
        ({"dynamic_dims": "1;2", "insert_op_conf": "a.cfg"}, "not both"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_is_allowed(
    options: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        told(options)


def test_open_dimensions_without_gears_are_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match="'x' has open dimensions") as caught:
        told({}, x=("n", 3, 8, 8))

    assert "dynamic_batch_size" in caught.value.hint


def test_gears_open_the_dimensions_and_scalars_stay_named() -> None:
    found = told({"dynamic_batch_size": "1,2,4"}, x=("n", 3), s=())

    assert found["input_shape"] == "x:-1,3;s:"
    assert gears(found) == ("dynamic_batch_size", [[1], [2], [4]])


def test_gears_of_any_dimension_ask_for_the_nd_format() -> None:
    found = told({"dynamic_dims": "1,20;1,40"}, x=("n", "t", 64))

    assert (found["input_shape"], found["input_format"]) == ("x:-1,-1,64", "ND")


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({"dynamic_batch_size": "4"}, ("n", 3), "2 to 100 gears"),
        ({"dynamic_batch_size": "1.1,2"}, ("n", 3), "whole numbers"),
        ({"dynamic_batch_size": "1,2"}, (1, 3), "needs a dimension of -1"),
        ({"dynamic_batch_size": "1,2"}, ("n", 3, "h"), "only the first dimension"),
        ({"dynamic_image_size": "416;832"}, (1, 3, "h", "w"), "gears of whole numbers"),
        ({"dynamic_dims": "1,2;3,4"}, ("n", 3), "one number for each of the 1 open"),
        ({"dynamic_dims": "1;2", "input_format": "NCHW"}, ("n", 3), "input_format=ND"),
    ],
)
def test_gears_that_atc_would_refuse_are_refused_before(
    options: dict[str, str], shape: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        told(options, x=shape)


def test_the_stand_in_knows_every_flag_that_is_ever_passed() -> None:
    text = (FAKES / "atc").read_text("utf-8")
    known = text[text.index('FLAGS = """') : text.index('""".split()')].split()

    assert set(FLAGS) <= set(known)


@settings(max_examples=200)
@given(st.sampled_from(sorted(FLAGS)), st.text(max_size=40))
def test_no_setting_ends_in_anything_but_flags_or_a_config_error(name: str, value: str) -> None:
    try:
        found = told({name: value})
    except ConfigError:
        return
    assert all(isinstance(v, str) for v in found.values())


@pytest.mark.parametrize(
    ("arch", "soc"),
    [("Ascend910", "Ascend910"), ("Ascend 310P3", "Ascend310P3"), ("910B4", "Ascend910B4")],
)
def test_the_soc_version_is_the_chip_as_npu_smi_names_it(arch: str, soc: str) -> None:
    assert soc_version(arch) == soc


def test_a_family_of_chips_is_no_soc_version() -> None:
    with pytest.raises(ConfigError, match=r"family of chips.*Ascend910B4"):
        soc_version("Ascend910B")


def test_without_a_chip_named_the_one_that_is_here_is_meant() -> None:
    assert soc_version("", [Device("npu", "Ascend 910B4", "ascend")]) == "Ascend910B4"
    with pytest.raises(ConfigError, match="none is here"):
        soc_version("")


# The capability table


def fact(
    op: str, since: int, dtype: str = "float32", shape: Any = (1, 4), **more: Any
) -> NodeFacts:
    value = ValueFacts(dtype, shape)
    return NodeFacts("n", op, since, (value,), (value,), **more)


def test_a_documented_operator_is_a_yes_by_document() -> None:
    verdict = table("Ascend910B").support(fact("Relu", 14))

    assert (verdict.verdict, verdict.evidence) == (Verdict.YES, Evidence.DOCUMENT)


def test_an_operator_that_no_document_lists_is_unknown() -> None:
    verdict = table().support(fact("Gelu", 20))

    assert verdict.verdict is Verdict.UNKNOWN


def test_a_newer_revision_is_taken_only_where_it_says_the_same() -> None:
    chip = table("Ascend310P3")

    assert chip.support(fact("Identity", 24)).ok
    fixed = chip.support(fact("AveragePool", 19, shape=(1, 3, 8, 8), attributes={"ceil_mode": 1}))
    assert "opset 8 to 18 is listed; found AveragePool of opset 19" in fixed.reason
    assert "cann/ops-nn" in fixed.reason


def test_bfloat16_depends_on_the_chip() -> None:
    old = table("Ascend310P3").support(fact("Relu", 14, "bfloat16"))

    assert old.verdict is Verdict.NO
    assert "has no bfloat16" in old.reason
    assert table("Ascend910B3").support(fact("Relu", 14, "bfloat16")).ok
    assert not table("Ascend310P3").precisions["bf16"].ok
    assert table("Ascend910B3").precisions["bf16"].ok


def test_a_dimension_of_0_is_refused_with_the_manual() -> None:
    verdict = table().support(fact("Relu", 14, shape=(0, 4)))

    assert "dimension 0 is not allowed (ATC manual" in verdict.reason


def test_the_table_carries_the_chip_and_its_layouts() -> None:
    found = table("Ascend910B")

    assert found.chip is not None
    assert {"NC1HWC0", "FRACTAL_NZ"} <= set(found.layouts)
    assert found.memory_bytes == found.chip.memory_bytes


def test_a_chip_of_another_vendor_is_refused_with_its_backend() -> None:
    with pytest.raises(ConfigError, match="driven by backend cuda"):
        table("T4")


def test_check_needs_no_toolkit_and_no_device() -> None:
    started = time.monotonic()

    report = autoglm.check(cnn(), backend="ascend", arch="Ascend910B")

    assert report.to_dict()["plan"]["backend"] == "ascend"
    assert time.monotonic() - started < 60


# Compile and run, against the stand-ins


def compiled(model: ir.Model, folder: Path, **options: Any) -> Any:
    folder.mkdir(exist_ok=True)
    return Ascend().compile(model, CompileOptions(**{"arch": "Ascend910B4", **options}), folder)


def test_without_cann_the_error_says_how_to_get_it(tmp_path: Path) -> None:
    if shutil.which("atc"):
        pytest.skip("CANN is installed here")
    with pytest.raises(BackendUnavailableError, match="CANN's compiler atc is not here") as caught:
        compiled(cnn(), tmp_path / "out")

    assert "set_env.sh" in caught.value.hint


def test_an_om_computes_what_the_model_says(tmp_path: Path, atc: Path, acl: Any) -> None:
    model = cnn()
    given = feeds(model)
    artifact = compiled(model, tmp_path / "out")

    with Ascend().open(artifact, tmp_path / "out", RunOptions()) as session:
        found = session.run(given)

    expected = autoglm.run(model, given, backend="onnxruntime")
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5)
    assert (artifact.kind, artifact.toolkit) == ("om", "CANN 9.0.0")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["atc.log", "model.om"]


def test_a_whole_model_becomes_a_bundle_that_is_proven_and_runs(
    tmp_path: Path, atc: Path, acl: Any
) -> None:
    model = cnn()

    result = autoglm.compile(model, tmp_path / "bundle", backend="ascend", arch="Ascend910B4")
    found = autoglm.run(tmp_path / "bundle", feeds(model))

    assert [p.backend for p in result.bundle.plan.partitions] == ["ascend"]
    assert all(c.passed for c in result.certificates)
    (expected,) = autoglm.run(model, feeds(model), backend="onnxruntime").values()
    np.testing.assert_allclose(next(iter(found.values())), expected, rtol=1e-4, atol=1e-5)


def test_the_calls_come_in_the_documented_order(tmp_path: Path, atc: Path, acl: Any) -> None:
    artifact = compiled(cnn(), tmp_path / "out")

    with Ascend().open(artifact, tmp_path / "out", RunOptions(device="npu:1")) as session:
        session.run(feeds(cnn()))

    order = [
        *("acl.init", "acl.rt.set_device", "acl.rt.create_context", "acl.mdl.load_from_file"),
        *("acl.mdl.get_desc", "acl.rt.malloc", "acl.rt.memcpy", "acl.mdl.execute"),
        *("acl.mdl.unload", "acl.rt.destroy_context", "acl.rt.reset_device", "acl.finalize"),
    ]
    places = [acl.S.log.index(call) for call in order]
    assert places == sorted(places)


def test_two_sessions_share_one_initialisation(tmp_path: Path, atc: Path, acl: Any) -> None:
    artifact = compiled(cnn(), tmp_path / "out")

    first = Ascend().open(artifact, tmp_path / "out", RunOptions())
    second = Ascend().open(artifact, tmp_path / "out", RunOptions())
    first.close()
    first.close()

    assert second.run(feeds(cnn()))
    second.close()
    assert (acl.S.log.count("acl.init"), acl.S.log.count("acl.finalize")) == (1, 1)


def test_another_thread_takes_the_context_with_it(tmp_path: Path, atc: Path, acl: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    artifact = compiled(cnn(), tmp_path / "out")

    with (
        Ascend().open(artifact, tmp_path / "out", RunOptions()) as session,
        ThreadPoolExecutor(1) as pool,
    ):
        assert pool.submit(session.run, feeds(cnn())).result()


@pytest.mark.parametrize(
    ("call", "code", "meaning"),
    [
        ("acl.rt.set_device", 107001, "no such device"),
        ("acl.mdl.load_from_file", 545001, "another CANN version or chip"),
        ("acl.rt.malloc", 207001, "no memory left"),
    ],
)
def test_a_failing_call_is_explained_and_leaves_nothing_behind(
    tmp_path: Path, atc: Path, acl: Any, call: str, code: int, meaning: str
) -> None:
    artifact = compiled(cnn(), tmp_path / "out")
    acl.S.fail[call] = code

    with pytest.raises(ExecutionError, match=f"{call} failed: {code}.*{meaning}"):
        Ascend().open(artifact, tmp_path / "out", RunOptions())


def test_a_failing_execution_is_explained(tmp_path: Path, atc: Path, acl: Any) -> None:
    artifact = compiled(cnn(), tmp_path / "out")

    with Ascend().open(artifact, tmp_path / "out", RunOptions()) as session:
        acl.S.fail["acl.mdl.execute"] = 507018
        with pytest.raises(ExecutionError, match="507018, an AI CPU operator failed"):
            session.run(feeds(cnn()))


def test_an_output_larger_than_its_room_is_refused(
    tmp_path: Path, atc: Path, acl: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = batched()
    artifact = compiled(model, tmp_path / "out", settings={"input_shape": "x:2,4"})

    with Ascend().open(artifact, tmp_path / "out", RunOptions()) as session:
        monkeypatch.setattr(
            acl.mdl, "get_cur_output_dims", lambda desc, index: ({"dims": [3, 5]}, 0)
        )
        with pytest.raises(ExecutionError, match=r"\[3, 5\] takes 60 bytes; .* room for 40"):
            session.run({"x": np.zeros((2, 4), np.float32)})


def test_a_batch_that_is_a_gear_runs_and_another_is_refused(
    tmp_path: Path, atc: Path, acl: Any
) -> None:
    model = batched()
    artifact = compiled(model, tmp_path / "out", settings={"dynamic_batch_size": "1,2,8"})

    with Ascend().open(artifact, tmp_path / "out", RunOptions()) as session:
        for size in (1, 8, 2):
            x = np.random.default_rng(size).standard_normal((size, 4)).astype(np.float32)
            (found,) = session.run({"x": x}).values()
            (expected,) = autoglm.run(model, {"x": x}, backend="onnxruntime").values()
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        with pytest.raises(InputError, match=r"dynamic_batch_size \[\[1\], \[2\], \[8\]\]"):
            session.run({"x": np.zeros((3, 4), np.float32)})


def test_gears_of_any_dimension_run(tmp_path: Path, atc: Path, acl: Any) -> None:
    b = Builder(opset=18)
    model = b.model(b.op("Relu", b.input("x", ("n", "t"))))
    artifact = compiled(model, tmp_path / "out", settings={"dynamic_dims": "1,4;2,8"})

    with Ascend().open(artifact, tmp_path / "out", RunOptions()) as session:
        (found,) = session.run({"x": -np.ones((2, 8), np.float32)}).values()
        with pytest.raises(InputError, match=r"found \[2, 4\]"):
            session.run({"x": np.ones((2, 4), np.float32)})

    assert found.shape == (2, 8)


def test_what_atc_prints_is_in_the_error_and_the_log(tmp_path: Path, atc: Path) -> None:
    b = Builder(opset=18)
    model = b.model(b.op("StringNormalizer", b.input("x", (2,), object), name="clean"))

    with pytest.raises(CompileError, match=r"E19010: No parser is registered for Op \[clean"):
        compiled(model, tmp_path / "out")

    log = (tmp_path / "out" / "atc.log").read_text("utf-8")
    assert log.startswith("ATC start working now, please wait for a moment.")
    assert "ATC run failed" in log


def test_a_model_of_a_newer_opset_reaches_atc_at_18(tmp_path: Path, atc: Path, acl: Any) -> None:
    b = Builder(opset=22)
    model = b.model(b.op("Identity", b.op("Relu", b.input("x", (2, 3)))))

    artifact = compiled(model, tmp_path / "out")

    with Ascend().open(artifact, tmp_path / "out", RunOptions()) as session:
        assert session.run({"x": np.ones((2, 3), np.float32)})


def test_a_node_that_opset_18_has_not_is_named(tmp_path: Path, atc: Path) -> None:
    b = Builder(opset=20)
    model = b.model(b.op("Gelu", b.input("x", (2, 3)), name="smooth"))

    with pytest.raises(CompileError, match="'smooth': Gelu of opset 20 has no equal in opset 18"):
        compiled(model, tmp_path / "out")


@pytest.mark.parametrize("precision", ["int8", "int8-dynamic"])
def test_int8_is_refused_with_who_makes_it(tmp_path: Path, precision: str) -> None:
    with pytest.raises(ConfigError, match="AMCT makes the int8 model"):
        compiled(cnn(), tmp_path / "out", precision=precision)


def test_bf16_is_refused_on_a_chip_without_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no bf16"):
        compiled(cnn(), tmp_path / "out", precision="bf16", arch="Ascend310P3")


def test_a_damaged_artifact_is_a_bundle_error(tmp_path: Path, atc: Path, acl: Any) -> None:
    artifact = compiled(cnn(), tmp_path / "out")
    (tmp_path / "out" / "model.om").unlink()

    with pytest.raises(BundleError, match=r"model\.om is missing"):
        Ascend().open(artifact, tmp_path / "out", RunOptions())


# ONNX Runtime's provider


def test_the_cann_provider_never_runs_on_the_cpu_by_stealth(tmp_path: Path) -> None:
    model = cnn()
    artifact = compiled(model, tmp_path / "out", settings={"engine": "onnxruntime"})

    assert artifact.kind == "onnx-cann"
    with pytest.raises(BackendUnavailableError, match="CANNExecutionProvider") as caught:
        Ascend().open(artifact, tmp_path / "out", RunOptions())
    assert "onnxruntime-cann" in caught.value.hint


def test_an_unknown_engine_or_provider_option_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="atc or onnxruntime; found 'torch'"):
        compiled(cnn(), tmp_path / "a", settings={"engine": "torch"})
    with pytest.raises(ConfigError, match="found precision_mode=fp8"):
        compiled(cnn(), tmp_path / "b", settings={"engine": "onnxruntime", "precision_mode": "fp8"})


def test_a_memory_limit_holds_for_atc(tmp_path: Path, atc: Path, acl: Any) -> None:
    config = AdaptConfig(memory_limit_bytes=16 << 20)

    with pytest.raises(CompileError, match="atc failed"):
        Ascend().compile(cnn(), replace(options_of(config, "fp32"), arch="Ascend910B4"), tmp_path)
