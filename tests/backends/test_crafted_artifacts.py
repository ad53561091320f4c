"""A bundle that somebody made or changed by hand is an error that says so, never a traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from models import Builder

from autoglm import registry
from autoglm.errors import BundleError
from autoglm.spec import Artifact, CompileOptions, RunOptions


def garbage(path: Path) -> None:
    path.write_bytes(b"\x08\xff not a model" * 40)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def another_operator(path: Path) -> None:
    model = onnx.load(path, load_external_data=False)
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(model, path)


def another_output(path: Path) -> None:
    model = onnx.load(path, load_external_data=False)
    model.graph.output.append(model.graph.input[0])
    onnx.save(model, path)


def weights_beyond_the_file(path: Path) -> None:
    (path.parent / "model.data").write_bytes(b"short")


@pytest.fixture(params=["numpy", "torch"])
def compiled(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Artifact]:
    plug = registry.backend(request.param)
    if not plug.version():
        pytest.skip(f"{request.param} is not installed")
    b = Builder()
    x = b.input("x", [64, 64])
    model = b.model(b.op("Tanh", b.op("Add", x, b.weight(64, 64))))
    return plug, plug.compile(model, CompileOptions(), tmp_path)


CRAFTS = (garbage, empty, half, another_operator, another_output, weights_beyond_the_file)


@pytest.mark.parametrize("craft", CRAFTS, ids=lambda f: f.__name__)
def test_it_does_not_load_and_says_what_to_do(
    compiled: tuple[Any, Artifact], craft: Callable[[Path], None], tmp_path: Path
) -> None:
    plug, artifact = compiled
    craft(tmp_path / artifact.entry)

    with pytest.raises(BundleError, match=r"model\.onnx does not load: ") as caught:
        plug.open(artifact, tmp_path, RunOptions())
    assert "compile the model again" in caught.value.hint
