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
from autoglm.tensor.provider import CPU, Chosen, open_on


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


class _Partly:
    """An engine whose vendor provider loads and leaves every node of some kinds to the CPU."""

    def __init__(self, real: Any, loaded: list[str], told: bool = True) -> None:
        self._real, self._loaded = real, loaded
        if told:
            self.get_provider_graph_assignment_info = real.get_provider_graph_assignment_info

    def get_providers(self) -> list[str]:
        return self._loaded

    def run(self, *arguments: Any) -> Any:
        return self._real.run(*arguments)


def _vendor(
    monkeypatch: pytest.MonkeyPatch, loaded: list[str], known: list[str], told: bool = True
) -> None:
    import onnxruntime as ort

    real = ort.InferenceSession

    def opened(path: str, options: Any, providers: Any) -> _Partly:
        return _Partly(real(path, options, providers=[CPU]), loaded, told)

    monkeypatch.setattr(ort, "get_available_providers", lambda: known)
    monkeypatch.setattr(ort, "InferenceSession", opened)


def test_nodes_that_the_cpu_provider_took_are_in_the_remark(
    tmp_path: Path, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    _vendor(monkeypatch, ["VendorProvider", CPU], ["VendorProvider", CPU])

    with open_on(artifact, tmp_path, [("VendorProvider", {})], "hint") as session:
        assert session.remark == "1 of 1 nodes run on ONNX Runtime's CPU provider: Relu"


def test_the_cpu_provider_needs_no_remark_where_it_was_asked_for(
    tmp_path: Path, artifact: Artifact
) -> None:
    with open_on(artifact, tmp_path, [(CPU, {})], "hint") as session:
        assert session.remark == ""


def test_an_old_onnxruntime_that_tells_no_placement_is_remarked(
    tmp_path: Path, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    _vendor(monkeypatch, ["VendorProvider", CPU], ["VendorProvider", CPU], told=False)

    with open_on(artifact, tmp_path, [("VendorProvider", {})], "hint") as session:
        assert "does not tell" in session.remark


def test_every_named_provider_must_be_built_in_and_load(
    tmp_path: Path, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    both: list[Chosen] = [("VendorProvider", {}), ("SecondProvider", {})]

    _vendor(monkeypatch, ["VendorProvider", CPU], ["VendorProvider", CPU])
    with pytest.raises(BackendUnavailableError, match="built without SecondProvider"):
        open_on(artifact, tmp_path, both, "hint")
    monkeypatch.undo()
    _vendor(monkeypatch, ["VendorProvider", CPU], ["VendorProvider", "SecondProvider", CPU])
    with pytest.raises(BackendUnavailableError, match="could not load SecondProvider"):
        open_on(artifact, tmp_path, both, "hint")
