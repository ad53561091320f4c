"""ONNX Runtime on one execution provider, and on no other by stealth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import Builder

from autoglm.errors import BackendUnavailableError, BundleError, ExecutionError, InputError
from autoglm.rewrite.save import input_infos, output_infos, save_onnx
from autoglm.spec import Artifact
from autoglm.tensor.provider import CPU, open_on


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    b = Builder(opset=18)
    model = b.model(b.op("Relu", b.input("x", (2, 3))))
    save_onnx(model, tmp_path / "model.onnx")
    return Artifact(
        "any", "onnx", "model.onnx", "", inputs=input_infos(model), outputs=output_infos(model)
    )


def test_a_session_runs_on_the_provider_asked_for(tmp_path: Path, artifact: Artifact) -> None:
    with open_on(artifact, tmp_path, [(CPU, {})], "hint") as session:
        (found,) = session.run({"x": np.array([[-1, 0, 1], [2, -3, 4]], np.float32)}).values()

        assert session.providers[0] == CPU
        with pytest.raises(InputError):
            session.run({"x": np.zeros((2, 4), np.float32)})
    assert found.tolist() == [[0, 0, 1], [2, 0, 4]]
    with pytest.raises(ExecutionError, match="closed"):
        session.run({"x": np.zeros((2, 3), np.float32)})


def test_a_provider_that_the_build_lacks_is_named(tmp_path: Path, artifact: Artifact) -> None:
    with pytest.raises(BackendUnavailableError, match="built without NoSuchProvider") as caught:
        open_on(artifact, tmp_path, [("NoSuchProvider", {})], "where to get it")

    assert caught.value.hint == "where to get it"


def test_a_provider_that_falls_back_is_refused_and_prints_nothing_to_stdout(
    tmp_path: Path,
    artifact: Artifact,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import onnxruntime as ort

    real = ort.InferenceSession

    def falls_back(path: str, options: Any, providers: Any) -> Any:
        print("*************** EP Error ***************")  # as the real one does
        return real(path, options, providers=[CPU])

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["VendorProvider", CPU])
    monkeypatch.setattr(ort, "InferenceSession", falls_back)

    with pytest.raises(BackendUnavailableError, match="could not load VendorProvider"):
        open_on(artifact, tmp_path, [("VendorProvider", {})], "hint")
    assert capsys.readouterr().out == ""


def test_a_missing_file_is_a_bundle_error(tmp_path: Path, artifact: Artifact) -> None:
    (tmp_path / "model.onnx").unlink()

    with pytest.raises(BundleError, match=r"model\.onnx is missing"):
        open_on(artifact, tmp_path, [(CPU, {})], "hint")
