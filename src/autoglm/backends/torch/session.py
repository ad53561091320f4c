"""Runs a program of torch calls: arrays in, arrays out."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from autoglm.backends.torch.device import find_device, synchronizer, with_graphs
from autoglm.backends.torch.dtypes import blank, to_array, to_tensor
from autoglm.backends.torch.engine import TorchEngine
from autoglm.errors import ExecutionError
from autoglm.rewrite.program import Program
from autoglm.rewrite.save import load_artifact
from autoglm.spec import Artifact, Closing, Feeds, RunOptions, TensorInfo, Value
from autoglm.tensor.feeds import check_feeds

if TYPE_CHECKING:
    import onnx_ir as ir


def open_session(artifact: Artifact, folder: Path, options: RunOptions) -> TorchSession:
    """Load what `compile_model` wrote, onto the device asked for."""
    device = find_device(options.device or str(artifact.meta.get("device", "")))
    if options.threads > 0:
        torch.set_num_threads(options.threads)  # torch has one setting per process
    wait = synchronizer(device) if options.profile else None

    def build(model: ir.Model) -> tuple[TorchEngine, Program]:
        high = frozenset(artifact.meta.get("keep_high", ()))
        engine = TorchEngine(device, artifact.precision, high, wait=wait)
        return engine, Program(model.graph, engine, model.opset_imports)

    engine, program = load_artifact(artifact, folder, build)
    settings = {**artifact.meta, **options.settings}
    mode = str(settings.get("compile", "off"))
    if settings.get("graphs") == "true":
        mode = "graphs"
    return TorchSession(program, artifact.inputs, artifact.outputs, engine, mode, options.profile)


class TorchSession(Closing):
    """One opened artifact."""

    def __init__(
        self,
        program: Program,
        inputs: tuple[TensorInfo, ...],
        outputs: tuple[TensorInfo, ...],
        engine: TorchEngine,
        mode: str = "off",
        profile: bool = False,
    ) -> None:
        self.inputs, self.outputs = inputs, outputs
        self._device, self._low = engine.device, engine.low
        self._program: Program | None = program
        self._held = {_storage(v) for v in program.constants() if isinstance(v, torch.Tensor)}
        self._seconds: dict[str, float] | None = {} if profile else None
        self._call: Any = self._caller(program, mode)

    def _caller(self, program: Program, mode: str) -> Any:
        if self._seconds is not None:  # nodes are timed one by one, so nothing is compiled
            return partial(program.run_timed, seconds=self._seconds)
        if mode == "graphs":
            return with_graphs(program.run, self._device)
        if mode == "reduce-overhead":
            return torch.compile(program.run, mode=mode)
        return torch.compile(program.run) if mode == "inductor" else program.run

    def run(self, feeds: Feeds) -> dict[str, Value]:
        """Run once."""
        if self._program is None:
            raise ExecutionError("The session is closed.", hint="Open the artifact again.")
        checked = check_feeds(self.inputs, feeds)
        with torch.inference_mode():
            try:
                return self._run(checked)
            except (RuntimeError, TypeError) as error:  # on a device, also while copying back
                raise ExecutionError("torch failed: {cause}", cause=str(error)[:500]) from error

    def _run(self, feeds: Feeds) -> dict[str, Value]:
        arguments = [self._take(v) for v in feeds.values()]
        results = self._call(arguments)
        taken = self._held | {_storage(a) for a in arguments if isinstance(a, torch.Tensor)}
        pairs = zip(self.outputs, results, strict=True)
        return {info.name: self._give(value, info.dtype, taken) for info, value in pairs}

    def _take(self, value: Value) -> Any:
        if value is None:
            return None
        if isinstance(value, list):
            return [self._take(v) for v in value]
        tensor = to_tensor(value)
        if self._low is not None and tensor.dtype is torch.float32:
            tensor = tensor.to(self._low)
        return tensor.to(self._device)

    def _give(self, value: Any, dtype: str, taken: set[int]) -> Value:
        if value is None:
            return None
        if isinstance(value, (list, tuple)):
            return [self._give(v, dtype, taken) for v in value]
        if value.device.type == "meta":
            return blank(value, dtype)
        # An output that shares memory with a feed, a weight or another output would change with it.
        if _storage(value) in taken:
            value = value.clone()
        taken.add(_storage(value))
        return to_array(value, dtype)

    def profile(self) -> list[tuple[str, float]]:
        """Seconds spent in each node since a session was opened with `profile=True`."""
        if self._seconds is None:
            raise ExecutionError("This session was not opened with profile=True.")
        return list(self._seconds.items())

    def close(self) -> None:
        """Give the weights back."""
        self._program = None
        self._call = None
        self._held = set()


def _storage(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage().data_ptr())
