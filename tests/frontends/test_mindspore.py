"""MindSpore: a MindIR file is told by its name, checked, and converted for real where possible."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from autoglm import api
from autoglm.errors import BackendUnavailableError, FileMissingError, ModelError
from autoglm.frontends.mindspore.load import load, plain_pads
from autoglm.registry import frontend_for


def test_a_mindir_file_is_told_by_its_name() -> None:
    assert frontend_for("model.mindir").name == "mindspore"
    assert frontend_for("MODEL.MINDIR").name == "mindspore"


@pytest.mark.parametrize("content", [b"", b"\x0a", b"\x00\x00\x00\x10MSENC", b"<html>"])
def test_what_is_no_mindir_is_refused_with_the_export_command(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "a.mindir"
    path.write_bytes(content)

    with pytest.raises(ModelError, match="is no MindIR file") as caught:
        load(path)

    assert "mindspore.onnx.export(net, *inputs, file_name='model.onnx')" in caught.value.hint


def test_a_missing_file_and_a_missing_toolchain_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOGLM_CACHE_DIR", str(tmp_path / "empty"))
    path = tmp_path / "a.mindir"
    with pytest.raises(FileMissingError):
        load(path)
    path.write_bytes(b"\x0a\x050.1.1")

    with pytest.raises(BackendUnavailableError) as caught:
        load(path)

    assert caught.value.hint == "autoglm toolchain install mindspore"


def test_valid_padding_is_written_as_no_padding_unless_it_rounds_up() -> None:
    x = ir.Value(name="x")
    nodes = [
        ir.node("MaxPool", [x], {"auto_pad": "VALID", "kernel_shape": [2, 2], **more})
        for more in ({}, {"ceil_mode": 1})
    ]
    graph = ir.Graph([x], [n.outputs[0] for n in nodes], nodes=nodes, opset_imports={"": 11})

    plain_pads(ir.Model(graph, ir_version=8))

    assert ["auto_pad" in n.attributes for n in nodes] == [False, True]


@cache
def made(folder: Path) -> Path:
    from benchmarks.frontends import make

    return make("mindspore", folder)


@pytest.fixture
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.getbasetemp() / "mindspore-models")


@pytest.mark.toolchain("mindspore")
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("name", ["cnn.mindir", "cnn-by-hand.onnx"])
def test_a_network_answers_as_mindspore_does(models: Path, name: str, backend: str) -> None:
    known = np.load(models / "cnn.npz")

    with api.open(str(models / name), backend=backend) as session:
        (y,) = session.run({session.inputs[0].name: known["x"]}).values()

    assert np.abs(y - known["y"]).max() <= 1e-5 * np.abs(known["y"]).max()


@pytest.mark.toolchain("mindspore")
def test_a_cut_off_file_is_an_error_with_the_export_command(models: Path, tmp_path: Path) -> None:
    whole = (models / "cnn.mindir").read_bytes()
    path = tmp_path / "cut.mindir"
    path.write_bytes(whole[: len(whole) // 2])

    with pytest.raises(ModelError) as caught:
        api.check(str(path), backend="onnxruntime")

    assert "mindspore.onnx.export" in caught.value.hint
