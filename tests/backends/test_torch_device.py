"""The PyTorch backend on any device string: plug-ins, absence, dry runs, settings."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from models import Builder, cnn, feeds, transformer

from autoglm.backends.torch import Torch
from autoglm.backends.torch.device import PLUGINS, find_device, synchronizer, with_graphs
from autoglm.errors import BackendUnavailableError, CompileError, ConfigError, ExecutionError
from autoglm.spec import CompileOptions, RunOptions


def opened(model: ir.Model, folder: Path, *, run: RunOptions | None = None, **options: Any) -> Any:
    artifact = Torch().compile(model, CompileOptions(**options), folder)
    return Torch().open(artifact, folder, run or RunOptions())


def relu() -> ir.Model:
    b = Builder()
    return b.model(b.op("Relu", b.input("x", (2, 3))))


@pytest.mark.parametrize("kind", sorted(PLUGINS))
def test_a_plugin_that_is_not_installed_is_named_with_where_to_get_it(kind: str) -> None:
    with pytest.raises(BackendUnavailableError, match="is not installed") as caught:
        find_device(f"{kind}:0")

    assert PLUGINS[kind][0] in str(caught.value)
    assert PLUGINS[kind][1] in caught.value.hint


def test_a_plugin_that_cannot_load_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "torch_npu.py").write_text("raise OSError('libhccl.so: cannot open')\n", "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))

    with pytest.raises(BackendUnavailableError, match=r"libhccl\.so: cannot open"):
        find_device("npu:0")


def test_a_plugin_is_imported_before_the_device_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_npu", types.ModuleType("torch_npu"))

    # The module is there; no driver registered the device, and that is what is said.
    with pytest.raises(BackendUnavailableError, match="torch cannot use device 'npu:0'"):
        find_device("npu:0")


@pytest.mark.parametrize("name", ["cuda:0", "xpu:0", "mps"])
def test_a_device_that_is_not_here_is_refused(name: str) -> None:
    if torch.device(name).type == str(torch.accelerator.current_accelerator() or ""):
        pytest.skip(f"this machine has {name}")
    with pytest.raises(BackendUnavailableError, match=name):
        find_device(name)


def test_the_device_asked_for_at_compile_is_used_at_open(tmp_path: Path) -> None:
    artifact = Torch().compile(relu(), CompileOptions(device="cuda:7"), tmp_path)

    assert artifact.meta["device"] == "cuda:7"
    with pytest.raises(BackendUnavailableError, match="cuda:7"):
        Torch().open(artifact, tmp_path, RunOptions())
    with Torch().open(artifact, tmp_path, RunOptions(device="cpu")) as session:
        assert session.run({"x": -np.ones((2, 3), np.float32)})


@pytest.mark.parametrize("make", [cnn, transformer])
def test_a_dry_run_gives_every_shape_and_dtype(make: Any, tmp_path: Path) -> None:
    model = make()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "meta").mkdir()
    given = feeds(model)
    with opened(model, tmp_path / "cpu") as session:
        expected = session.run(given)

    with opened(model, tmp_path / "meta", run=RunOptions(device="meta")) as session:
        found = session.run(given)

    # A kernel that made a tensor on the CPU would have failed here.
    for name, array in expected.items():
        assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype)
        assert np.isnan(found[name]).all()


def test_a_dry_run_stops_where_the_data_decide(tmp_path: Path) -> None:
    b = Builder()
    model = b.model(b.op("NonZero", b.input("x", (2, 3))))

    with (
        opened(model, tmp_path, run=RunOptions(device="meta")) as session,
        pytest.raises(ExecutionError),
    ):
        session.run({"x": np.ones((2, 3), np.float32)})


def test_cuda_graphs_are_refused_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="need a device cuda; this session runs on cpu"):
        opened(relu(), tmp_path, settings={"graphs": "true"})


def test_an_unknown_graphs_setting_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="graphs is true or false; found 'yes'"):
        Torch().compile(relu(), CompileOptions(settings={"graphs": "yes"}), tmp_path)


def test_a_recorded_graph_is_replayed_per_shape_and_gives_copies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`with_graphs` against a stand-in that replays what was run inside its `with`."""
    calls: list[int] = []

    class Graph:
        def replay(self) -> None:
            for kernel in self.kernels:
                kernel()

    class Recording:
        def __init__(self, graph: Graph) -> None:
            self.graph = graph
            graph.kernels = []
            monkeypatch.setattr(torch.cuda, "_recording", graph, raising=False)

        def __enter__(self) -> None:
            return None

        def __exit__(self, *raised: object) -> None:
            monkeypatch.setattr(torch.cuda, "_recording", None, raising=False)

    class Stream:
        def wait_stream(self, other: object) -> None:
            return None

        def __enter__(self) -> None:
            return None

        def __exit__(self, *raised: object) -> None:
            return None

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", Recording)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)

    def double(inputs: Any) -> list[Any]:
        calls.append(len(inputs))
        (x,) = inputs
        y = x * 2
        if graph := getattr(torch.cuda, "_recording", None):
            graph.kernels.append(lambda: y.copy_(x * 2))
        return [y]

    run = with_graphs(double, torch.device("cuda"))
    first = run([torch.ones(3)])[0]
    second = run([torch.full((3,), 5.0)])[0]

    assert first.tolist() == [2, 2, 2]  # a copy: the second replay did not change it
    assert second.tolist() == [10, 10, 10]
    assert len(calls) == 4  # three to warm up, one recorded, none since
    assert run([torch.ones(2)])[0].tolist() == [2, 2]
    assert len(calls) == 8


def test_calls_return_when_done_on_the_cpu_and_in_a_dry_run() -> None:
    assert synchronizer(torch.device("cpu")) is None
    assert synchronizer(torch.device("meta")) is None
