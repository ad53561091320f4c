"""The PyTorch backend on any device string: plug-ins, absence, dry runs, settings."""

from __future__ import annotations

import contextlib
import sys
import time
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from models import Builder, cnn, feeds, transformer

from autoglm.backends.torch import Torch
from autoglm.backends.torch.device import (
    MOST_GRAPHS,
    PLUGINS,
    find_device,
    synchronizer,
    with_graphs,
)
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


class _Recorded:
    """Stands in for CUDA graphs: replays what was run inside its `with`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = self.most_at_once = self._inside = 0
        self.devices: list[torch.device] = []  # those that were current while recording
        self._recording: Any = None
        for name, stand_in in {
            "CUDAGraph": self._graph,
            "graph": self._capture,
            "Stream": self._stream,
            "current_stream": self._stream,
            "stream": lambda stream: contextlib.nullcontext(),
            "device": self._device,
        }.items():
            monkeypatch.setattr(torch.cuda, name, stand_in)

    def _graph(self) -> Any:
        graph = SimpleNamespace(kernels=[])

        def replay() -> None:
            self._inside += 1
            self.most_at_once = max(self.most_at_once, self._inside)
            for kernel in graph.kernels:
                kernel()
            time.sleep(0.01)
            self._inside -= 1

        graph.replay = replay
        return graph

    @contextlib.contextmanager
    def _capture(self, graph: Any) -> Iterator[None]:
        self._recording = graph
        yield
        self._recording = None

    def _stream(self) -> Any:
        return SimpleNamespace(wait_stream=lambda other: None)

    @contextlib.contextmanager
    def _device(self, device: torch.device) -> Iterator[None]:
        self.devices.append(device)
        yield

    def double(self, inputs: Any) -> list[Any]:
        self.calls += 1
        (x,) = inputs
        y = x * 2
        if self._recording:
            self._recording.kernels.append(lambda: y.copy_(x * 2))
        return [y]


def test_a_recorded_graph_is_replayed_per_shape_and_gives_copies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda = _Recorded(monkeypatch)
    run = with_graphs(cuda.double, torch.device("cuda:1"))

    first = run([torch.ones(3)])[0]
    second = run([torch.full((3,), 5.0)])[0]

    assert first.tolist() == [2, 2, 2]  # a copy: the second replay did not change it
    assert second.tolist() == [10, 10, 10]
    assert cuda.calls == 4  # three to warm up, one recorded, none since
    assert run([torch.ones(2)])[0].tolist() == [2, 2]
    assert cuda.calls == 8
    assert set(cuda.devices) == {torch.device("cuda:1")}


def test_only_so_many_graphs_are_kept_and_the_one_used_longest_ago_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda = _Recorded(monkeypatch)
    run = with_graphs(cuda.double, torch.device("cuda"))
    for size in range(MOST_GRAPHS):
        run([torch.ones(size)])
    run([torch.ones(0)])
    run([torch.ones(MOST_GRAPHS)])
    recorded = cuda.calls

    run([torch.ones(0)])
    assert cuda.calls == recorded
    run([torch.ones(1)])
    assert cuda.calls > recorded


def test_threads_take_turns_at_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = _Recorded(monkeypatch)
    run = with_graphs(cuda.double, torch.device("cuda"))

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: run([torch.full((3,), n)])[0], range(12)))

    assert [f.tolist() for f in found] == [[2 * n] * 3 for n in range(12)]
    assert cuda.most_at_once == 1


def test_calls_return_when_done_on_the_cpu_and_in_a_dry_run() -> None:
    assert synchronizer(torch.device("cpu")) is None
    assert synchronizer(torch.device("meta")) is None
