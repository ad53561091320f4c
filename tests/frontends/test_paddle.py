"""Paddle inference models: recognised, checked before Paddle starts, converted, passed through."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm import registry
from autoglm.errors import AutoGLMError, BackendUnavailableError, FileMissingError, ModelError
from autoglm.frontends.paddle import Paddle
from autoglm.frontends.paddle.source import check, recognise

PROGRAM = json.dumps({
    "base_code": {"magic": "pir", "trainable": True, "version": 1},
    "program": {"regions": [{"blocks": [{"ops": [{"#": "p"}]}]}]},
})  # fmt: skip

# A real network saved by Paddle's own API: an image through a convolution to two outputs.
SAVE = """
import sys, numpy as np, paddle
paddle.seed(7)
class Net(paddle.nn.Layer):
    def __init__(self):
        super().__init__()
        self.conv = paddle.nn.Conv2D(3, 4, 3, padding=1)
        self.norm = paddle.nn.BatchNorm2D(4)
        self.head = paddle.nn.Linear(4, 5)
    def forward(self, image):
        x = paddle.nn.functional.relu(self.norm(self.conv(image)))
        y = self.head(x.mean([2, 3]))
        return y, paddle.nn.functional.softmax(y)
net = Net(); net.eval()
spec = [paddle.static.InputSpec([None, 3, 8, 8], "float32", "image")]
paddle.jit.save(net, sys.argv[1] + "/net", input_spec=spec)
image = np.random.default_rng(0).standard_normal((2, 3, 8, 8), np.float32)
outputs = [y.numpy() for y in net(paddle.to_tensor(image))]
np.savez(sys.argv[1] + "/answer.npz", image=image, logits=outputs[0], scores=outputs[1])
"""


def write(folder: Path, program: str = PROGRAM, weights: bytes | None = b"w") -> Path:
    (folder / "net.json").write_text(program)
    if weights is not None:
        (folder / "net.pdiparams").write_bytes(weights)
    return folder


def test_a_folder_a_program_and_its_weights_are_one_model(tmp_path: Path) -> None:
    write(tmp_path)
    for path in (tmp_path, tmp_path / "net.json", tmp_path / "net.pdiparams"):
        found = recognise(path)
        assert found is not None
        assert (found.model.name, found.params.name) == ("net.json", "net.pdiparams")
        assert registry.frontend_for(str(path)).name == "paddle"


def test_the_old_format_goes_by_its_suffix(tmp_path: Path) -> None:
    found = recognise(tmp_path / "old.pdmodel")

    assert found is not None
    assert found.params == tmp_path / "old.pdiparams"


def test_other_json_and_other_folders_are_not_paddles(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')

    assert recognise(tmp_path) is None
    assert recognise(tmp_path / "config.json") is None
    assert recognise(tmp_path / "missing.json") is None
    assert recognise("model\0.json") is None
    assert not Paddle().detect(object())


def test_two_programs_in_a_folder_have_to_be_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "other.pdmodel").write_bytes(b"x")

    assert recognise(tmp_path) is None
    assert recognise(tmp_path / "net.json") is not None


def test_missing_weights_and_a_missing_program_are_named(tmp_path: Path) -> None:
    write(tmp_path, weights=None)
    with pytest.raises(FileMissingError, match=r"net\.pdiparams"):
        Paddle().load(tmp_path)

    (tmp_path / "net.json").rename(tmp_path / "renamed.txt")
    (tmp_path / "net.pdiparams").write_bytes(b"w")
    with pytest.raises(FileMissingError, match=r"net\.json"):
        Paddle().load(tmp_path / "net.pdiparams")


@pytest.mark.parametrize("keep", [60, 90, len(PROGRAM) - 1])
def test_a_program_that_was_cut_off_is_refused_before_paddle_starts(
    tmp_path: Path, keep: int
) -> None:
    write(tmp_path, PROGRAM[:keep])
    with pytest.raises(ModelError, match="not a whole Paddle program"):
        Paddle().load(tmp_path / "net.json")


def test_a_program_without_parameters_needs_no_weights(tmp_path: Path) -> None:
    write(tmp_path, PROGRAM.replace('"p"', '"1.relu"'), weights=None)
    found = recognise(tmp_path)
    assert found is not None

    assert check(found) is False


def test_without_the_environment_the_error_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOGLM_CACHE_DIR", str(tmp_path / "empty"))
    with pytest.raises(BackendUnavailableError) as caught:
        Paddle().load(write(tmp_path))

    assert caught.value.hint == "autoglm toolchain install paddle"


@given(data=st.binary(max_size=300))
def test_any_bytes_are_told_apart_without_a_traceback(
    data: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(b'{"base_code": {"magic": "pir"' + data)
    found = recognise(path)
    assert found is not None
    with pytest.raises(AutoGLMError):
        check(found)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    from autoglm.toolchain.environment import require

    environment = require("paddle")
    script = tmp_path / "save.py"  # Paddle reads the source of what it saves
    script.write_text(SAVE)
    argv = [str(environment.python), str(script), str(tmp_path)]
    environment.run(argv, log=tmp_path / "save.log", timeout_s=120)
    return tmp_path


def run(backend: str, model: ir.Model, folder: Path, image: np.ndarray) -> list[np.ndarray]:
    from autoglm.spec import CompileOptions, RunOptions

    plug = registry.backend(backend)
    folder.mkdir()
    artifact = plug.compile(model, CompileOptions(), folder)
    with plug.open(artifact, folder, RunOptions()) as session:  # type: ignore[attr-defined]
        return list(session.run({"image": image}).values())


@pytest.mark.toolchain("paddle")
def test_a_model_saved_by_paddle_answers_the_same_and_keeps_its_files(saved: Path) -> None:
    answer = np.load(saved / "answer.npz")
    model = Paddle().load(saved / "net.json")

    for backend in ("onnxruntime", "kunlun"):
        found = run(backend, model, saved / backend, answer["image"])
        for array, name in zip(found, ("logits", "scores"), strict=True):
            assert np.abs(array - answer[name]).max() <= 1e-5

    kept = saved / "kunlun"
    assert (kept / "model.json").read_bytes() == (saved / "net.json").read_bytes()
    assert (kept / "model.pdiparams").read_bytes() == (saved / "net.pdiparams").read_bytes()


@pytest.mark.toolchain("paddle")
def test_weights_that_were_cut_off_end_with_a_reason(saved: Path) -> None:
    weights = saved / "net.pdiparams"
    weights.write_bytes(weights.read_bytes()[:40])
    with pytest.raises(ModelError, match=r"net\.json"):
        Paddle().load(saved / "net.json")
