"""Kunlun without Paddle: the files for its worker, the pipe, the table, the errors."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from models import Builder, cnn, mlp

from autoglm.backends.kunlun import Kunlun
from autoglm.backends.kunlun.calls import write_calls
from autoglm.backends.kunlun.client import Refusal
from autoglm.backends.kunlun.onnx_paddle.wire import pack, unpack
from autoglm.backends.kunlun.original import KEY, original
from autoglm.backends.kunlun.session import PaddleSession, _device, open_session
from autoglm.errors import (
    BackendUnavailableError,
    CompileError,
    ConfigError,
    ExecutionError,
    InputError,
)
from autoglm.rewrite.program import prepared
from autoglm.rewrite.save import input_infos, output_infos
from autoglm.spec import Artifact, CompileOptions, Evidence, RunOptions, TensorInfo, Verdict


class StandIn:
    """Answers as the worker does; what it is told to forget was opened before it died."""

    def __init__(self, outputs: Sequence[np.ndarray[Any, Any]] = (), xpus: int = 0) -> None:
        self.outputs, self.xpus = outputs, xpus
        self.opened: set[int] = set()
        self.asked: list[str] = []
        self.fails: Exception | None = None

    def ask(
        self, header: Mapping[str, Any], blobs: Sequence[Any] = (), *, timeout_s: float
    ) -> tuple[dict[str, Any], list[Any]]:
        verb = header["verb"]
        self.asked.append(verb)
        if self.fails is not None:
            raise self.fails
        if verb == "about":
            return {"xpus": self.xpus}, []
        if verb == "open":
            self.opened.add(header["session"])
        if verb == "run":
            if header["session"] not in self.opened:
                return {"unknown": True}, []
            return {}, [("y", str(a.dtype), a.shape, a.tobytes()) for a in self.outputs]
        return {}, []


def session(
    worker: StandIn, dtype: str = "float32", declared: str = "float32", device: str = "cpu"
) -> PaddleSession:
    artifact = Artifact(
        "kunlun", "paddle", "model.json", "paddle 3.3.1",
        (TensorInfo("x", dtype, (2,)),), (TensorInfo("y", declared, (2,)),),
        meta={"feeds": ["x0"]},
    )  # fmt: skip
    question = {"verb": "open", "session": 1, "options": {"device": device}}
    return PaddleSession(worker, question, artifact, 5.0)  # type: ignore[arg-type]


X = np.asarray([1, 2], np.float32)


@given(
    st.lists(
        arrays.arrays(
            st.sampled_from(["float32", "int64", "uint8", "bool", "float16"]),
            arrays.array_shapes(min_dims=0, min_side=0),
        ),
        max_size=4,
    ),
    st.dictionaries(st.text(), st.integers() | st.text()),
)
def test_a_message_survives_the_pipe(
    given_arrays: list[np.ndarray[Any, Any]], header: dict[str, Any]
) -> None:
    header.pop("blobs", None)
    blobs = [(str(i), str(a.dtype), a.shape, a.tobytes()) for i, a in enumerate(given_arrays)]

    found, back = unpack(pack(header, blobs))

    assert found == header
    assert [(n, d, s, bytes(b)) for n, d, s, b in back] == blobs


def test_the_calls_hold_every_node_and_constant_on_a_mapped_boundary(tmp_path: Path) -> None:
    model = cnn(batch="n")
    write_calls(prepared(model), tmp_path)
    spec = json.loads((tmp_path / "calls.json").read_text())
    raw = np.fromfile(tmp_path / "weights.bin", np.uint8)

    assert [c["op"] for c in spec["calls"]] == [n.op_type for n in model.graph]
    assert spec["inputs"][0]["shape"] == [None, 3, 8, 8]
    assert spec["calls"][0]["attributes"]["group"] == 1  # the schema's default
    for name, value in model.graph.initializers.items():
        row = spec["constants"][name]
        assert value.const_value is not None
        assert row["offset"] % 64 == 0
        held = raw[row["offset"] : row["offset"] + row["bytes"]].view(row["dtype"])
        assert np.array_equal(held.reshape(row["shape"]), value.const_value.numpy())


def test_a_sub_graph_and_an_unknown_rank_are_refused_by_name(tmp_path: Path) -> None:
    b = Builder()
    unknown = b.model(b.op("Relu", b.input("x", None), name="r"), check=False)
    with pytest.raises(CompileError, match="unknown rank"):
        write_calls(unknown, tmp_path)

    node = ir.Node("", "If", [], [ir.AttrGraph("then_branch", mlp().graph)], name="choice")
    model = ir.Model(ir.Graph([], [], nodes=[node], opset_imports={"": 20}), ir_version=10)
    with pytest.raises(CompileError, match="choice"):
        write_calls(model, tmp_path)


def test_without_the_environment_the_error_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOGLM_CACHE_DIR", str(tmp_path / "empty"))

    assert Kunlun().version() == ""
    with pytest.raises(BackendUnavailableError) as caught:
        Kunlun().compile(mlp(), CompileOptions(), tmp_path)

    assert caught.value.hint == "autoglm toolchain install paddle"


def test_what_was_measured_on_the_cpu_is_inferred_for_a_chip() -> None:
    cpu, chip = Kunlun().capabilities("cpu"), Kunlun().capabilities("P800")

    assert cpu.evidence is Evidence.MEASURED
    assert cpu.chip is None
    assert chip.evidence is Evidence.INFERRED
    assert chip.chip is not None
    assert chip.memory_bytes == chip.chip.memory_bytes
    assert "the chip's route, not the chip" in chip.toolkit
    with pytest.raises(ConfigError):
        Kunlun().capabilities("P8OO")


def test_the_packs_verdicts_carry_the_weaker_evidence() -> None:
    from autoglm.rewrite.facts import node_facts

    (facts,) = [n for n in node_facts(mlp(layers=1)) if n.op == "Gemm"]

    measured = Kunlun().capabilities("cpu").support(facts)
    inferred = Kunlun().capabilities("R200").support(facts)

    assert (measured.verdict, measured.evidence) == (Verdict.YES, Evidence.MEASURED)
    assert (inferred.verdict, inferred.evidence) == (Verdict.YES, Evidence.INFERRED)


def test_a_precision_that_nobody_measured_is_unknown_and_does_not_compile(tmp_path: Path) -> None:
    assert Kunlun().capabilities().precisions["fp16"].verdict is Verdict.UNKNOWN
    with pytest.raises(ConfigError, match="fp16"):
        Kunlun().compile(mlp(), CompileOptions(precision="fp16"), tmp_path)


@pytest.mark.parametrize(
    ("asked", "xpus", "taken"),
    [
        ("", 0, "cpu"),
        ("", 2, "xpu:0"),
        ("cpu", 2, "cpu"),
        ("xpu:1", 2, "xpu:1"),
        ("1", 2, "xpu:1"),
        ("xpu", 1, "xpu:0"),
    ],
)
def test_a_chip_is_taken_where_paddle_sees_one(asked: str, xpus: int, taken: str) -> None:
    assert _device(StandIn(xpus=xpus), asked) == taken  # type: ignore[arg-type]


@pytest.mark.parametrize("asked", ["xpu:0", "xpu", "0", "3"])
def test_a_chip_that_is_not_there_is_never_replaced_by_the_cpu(asked: str) -> None:
    with pytest.raises(BackendUnavailableError, match="sees 0"):
        _device(StandIn(), asked)  # type: ignore[arg-type]


@pytest.mark.parametrize("asked", ["cuda:0", "xpu:abc", "xpu:", "xpu:-1", ":0", "cpu:x", "²"])
def test_what_names_no_device_is_a_config_error(asked: str) -> None:
    with pytest.raises(ConfigError, match="runs on cpu or xpu:N"):
        _device(StandIn(xpus=1), asked)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["abc", "nan", "0", "-1", "inf"])
def test_a_time_limit_that_is_no_number_is_a_config_error(tmp_path: Path, value: str) -> None:
    (tmp_path / "model.json").touch()
    artifact = Artifact("kunlun", "paddle", "model.json", "paddle 3.3.1", (), ())

    with pytest.raises(ConfigError, match="timeout_s"):
        open_session(artifact, tmp_path, RunOptions(settings={"timeout_s": value}))


def test_a_session_on_the_cpu_says_that_it_is_not_the_chip() -> None:
    assert "not the chip" in session(StandIn()).remark
    assert session(StandIn(), device="xpu:0").remark == ""


def test_a_worker_that_died_is_an_error_once_and_the_next_run_opens_again() -> None:
    worker = StandIn([X])
    opened = session(worker)
    worker.fails = ExecutionError("signal SIGSEGV")
    with pytest.raises(ExecutionError, match="SIGSEGV"):
        opened.run({"x": X})
    worker.fails = None
    worker.opened.clear()

    assert np.array_equal(opened.run({"x": X})["y"], X)
    assert worker.asked[-3:] == ["run", "open", "run"]


def test_answers_are_the_callers_own_and_of_the_declared_dtype() -> None:
    opened = session(StandIn([X]))
    found = opened.run({"x": X})["y"]
    found[0] = 7

    assert opened.run({"x": X})["y"][0] == 1
    with pytest.raises(ExecutionError, match="float32"):
        session(StandIn([X]), declared="int64").run({"x": X})


def test_dtypes_that_the_predictor_does_not_pass_are_carried_in_wider_ones() -> None:
    opened = session(StandIn([np.asarray([-3, 4], np.int32)]), "int16", "int16")

    found = opened.run({"x": np.asarray([1, 2], np.int16)})["y"]

    assert found.dtype == np.int16
    assert found.tolist() == [-3, 4]


def test_a_refusal_while_running_and_wrong_feeds_say_so() -> None:
    worker = StandIn([X])
    opened = session(worker)
    with pytest.raises(InputError, match="'x'"):
        opened.run({})
    worker.fails = Refusal({"reason": "no kernel", "node": "", "op": ""})
    with pytest.raises(ExecutionError, match="no kernel"):
        opened.run({"x": X})


def test_a_closed_session_does_not_run_and_closes_twice() -> None:
    worker = StandIn([X])
    opened = session(worker)
    opened.close()
    opened.close()

    assert worker.asked.count("close") == 1
    with pytest.raises(ExecutionError, match="closed"):
        opened.run({"x": X})


def from_paddle(folder: Path) -> ir.Model:
    import hashlib

    model = mlp()
    files = {"net.json": b'{"program": 1}', "net.pdiparams": b"weights"}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    model.metadata_props[KEY] = json.dumps({
        "model": str(folder / "net.json"),
        "params": str(folder / "net.pdiparams"),
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        "inputs": [i.name for i in input_infos(model)],
        "outputs": [o.name for o in output_infos(model)],
        "feeds": ["image"],
    })  # fmt: skip
    return model


def test_a_whole_model_from_paddle_keeps_its_own_files(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    found = original(from_paddle(tmp_path))
    assert found is not None

    artifact = found.keep(mlp(), out, "paddle 3.3.1", CompileOptions())

    assert (out / artifact.entry).read_bytes() == b'{"program": 1}'
    assert (out / artifact.meta["params"]).read_bytes() == b"weights"
    assert artifact.meta["feeds"] == ["image"]


def test_a_part_of_it_or_changed_files_are_compiled_anew(tmp_path: Path) -> None:
    part = from_paddle(tmp_path)
    part.graph.outputs[0].name = "elsewhere"
    assert original(part) is None

    whole = from_paddle(tmp_path)
    (tmp_path / "net.pdiparams").write_bytes(b"retrained")
    assert original(whole) is None
    (tmp_path / "net.pdiparams").unlink()
    assert original(whole) is None
    assert original(mlp()) is None


@pytest.mark.parametrize("text", ["{", "[]", "7", '{"model": 1}', "[" * 100_000])
def test_a_note_that_is_not_the_frontends_is_no_original(text: str) -> None:
    model = mlp()
    model.metadata_props[KEY] = text

    assert original(model) is None


@pytest.mark.timeout(20)
def test_a_pipe_in_place_of_a_file_is_not_opened(tmp_path: Path) -> None:
    model = from_paddle(tmp_path)
    (tmp_path / "net.json").unlink()
    os.mkfifo(tmp_path / "net.json")

    assert original(model) is None


def test_an_onnx_file_cannot_name_files_to_take_in_its_place(tmp_path: Path) -> None:
    from autoglm.frontends.onnx import Onnx

    model = from_paddle(tmp_path)
    proto = ir.to_proto(model)

    for source in (model, proto, proto.SerializeToString()):
        assert original(Onnx().load(source)) is None
    assert KEY in model.metadata_props
