"""What the search for the best candidate does with one that cannot win."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import models
import onnx_ir as ir
import pytest

import autoglm
from autoglm import registry
from autoglm.spec import (
    Artifact,
    Capabilities,
    Closing,
    CompileOptions,
    Device,
    Feeds,
    RunOptions,
    Session,
)


class Sleepy(Closing):
    """ONNX Runtime's session, late."""

    def __init__(self, inner: Session) -> None:
        self._inner, self.inputs, self.outputs = inner, inner.inputs, inner.outputs

    def run(self, feeds: Feeds) -> dict[str, Any]:
        time.sleep(1.5)
        return self._inner.run(feeds)

    def close(self) -> None:
        self._inner.close()


@dataclass
class Slow:
    """An engine that takes and answers everything, much too late."""

    name: str = "zz-slow"
    api_version: int = 1

    def probe(self) -> Sequence[Device]:
        return [Device("cpu", "slow", self.name)]

    def version(self) -> str:
        return "1.0"

    def capabilities(self, arch: str = "") -> Capabilities:
        return replace(registry.backend("onnxruntime").capabilities(), backend=self.name)

    def compile(self, model: ir.Model, options: CompileOptions, out: Path) -> Artifact:
        made = registry.backend("onnxruntime").compile(model, options, out)
        return replace(made, backend=self.name)

    def open(self, artifact: Artifact, folder: Path, options: RunOptions) -> Session:
        return Sleepy(registry.backend("onnxruntime").open(artifact, folder, options))


@pytest.fixture
def slow() -> Iterator[str]:
    registry.register_backend(Slow())
    yield "zz-slow"
    registry._load(registry.BACKENDS)[0].pop("zz-slow")


def test_a_candidate_that_is_hopelessly_slow_is_left_with_its_figure(
    slow: str, tmp_path: Path
) -> None:
    path = tmp_path / "cnn.onnx"
    ir.save(models.cnn(size=16), path)

    result = autoglm.compile(path, tmp_path / "out", backend="auto")

    rows = {m.candidate: m for m in result.measurements}
    assert rows[f"{slow} fp32"].reason.startswith("limit: one call took 1.5 s, the fastest")
    assert rows[f"{slow} fp32"].median_s is None
    assert any(m.chosen for m in result.measurements)
