"""Run a MagicMind model on one MLU through its runtime API."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from autoglm.backends.cambricon.toolkit import missing
from autoglm.errors import BackendUnavailableError, BundleError, ExecutionError, InputError
from autoglm.spec import Artifact, Closing, Feeds, RunOptions, Value
from autoglm.tensor.dtype import to_numpy
from autoglm.tensor.feeds import check_feeds

_INT32 = np.iinfo(np.int32)


def open_session(artifact: Artifact, folder: Path, options: RunOptions) -> MluSession:
    """Load the model onto the MLU of that number ("" is 0)."""
    try:
        import magicmind.python.runtime as mm
    except ImportError as error:
        raise missing(str(error)) from error
    path = folder / artifact.entry
    if not path.is_file():
        raise BundleError("The MagicMind model {path} is missing.", path=artifact.entry)
    return MluSession(mm, path, artifact, _number(mm, options.device))


def _number(mm: Any, device: str) -> int:
    text = device.rpartition(":")[2] or "0"
    with mm.System() as system:
        count = system.device_count()
    if not text.isdecimal() or int(text) >= count:
        raise BackendUnavailableError(
            "There is no MLU {device!r}; {count} are here.",
            hint="`autoglm devices` lists them.",
            device=device,
            count=count,
        )
    return int(text)


class MluSession(Closing):
    """One loaded model with its engine, context and queue; one call at a time."""

    def __init__(self, mm: Any, path: Path, artifact: Artifact, number: int) -> None:
        self.inputs, self.outputs = artifact.inputs, artifact.outputs
        self._gate = threading.Lock()
        self._device = mm.Device()
        self._device.id = number
        _ok(self._device.active(), "Device.active")
        self._model = mm.Model()
        _ok(self._model.deserialize_from_file(str(path)), "Model.deserialize_from_file")
        config = mm.Model.EngineConfig()
        config.device_type = "MLU"
        self._engine = _made(self._model.create_i_engine(config), "Model.create_i_engine")
        self._context = _made(self._engine.create_i_context(), "IEngine.create_i_context")
        self._queue = _made(self._device.create_queue(), "Device.create_queue")
        self._tensors = _made(self._context.create_inputs(), "IContext.create_inputs")
        # MagicMind keeps the order of the ONNX inputs and may rename them.
        self._names = [info.name for info in self.inputs]
        self._types = self._model.get_input_data_types()
        self._narrow = getattr(mm.DataType, "INT32", None)

    def run(self, feeds: Feeds) -> dict[str, Value]:
        """Copy in, enqueue, wait, copy out."""
        checked = check_feeds(self.inputs, feeds)
        with self._gate:
            if self._context is None:
                raise ExecutionError("The session is closed.", hint="Open the artifact again.")
            return self._run(checked)

    def _run(self, feeds: Mapping[str, Value]) -> dict[str, Value]:
        for tensor, name, dtype in zip(self._tensors, self._names, self._types, strict=True):
            array = np.ascontiguousarray(feeds[name])
            if array.dtype == np.int64 and dtype == self._narrow:
                array = _narrowed(name, array)
            _ok(tensor.from_numpy(array), "ITensor.from_numpy")
            _ok(tensor.to(self._device), "ITensor.to")
        results: list[Any] = []
        _ok(self._context.enqueue(self._tensors, results, self._queue), "IContext.enqueue")
        _ok(self._queue.sync(), "IQueue.sync")
        pairs = zip(self.outputs, results, strict=True)
        # 64-bit outputs come back as 32-bit ones: MagicMind has no 64-bit integers.
        return {
            info.name: np.array(out.asnumpy()).astype(to_numpy(info.dtype), copy=False)
            for info, out in pairs
        }

    def close(self) -> None:
        """Give back what the device holds, last made first."""
        with self._gate:
            self._tensors = []
            self._context = self._engine = self._model = self._queue = self._device = None


def _narrowed(name: str, array: Any) -> Any:
    if array.size and (array.min() < _INT32.min or array.max() > _INT32.max):
        raise InputError(
            "Input {name!r} holds numbers beyond 32 bits, which this MLU model cannot take.",
            name=name,
        )
    return array.astype(np.int32)


def _made(value: Any, call: str) -> Any:
    if value is None:
        raise ExecutionError("MagicMind's {call} gave nothing.", call=call)
    return value


def _ok(status: Any, call: str) -> None:
    # from_numpy and to return None in some releases, a Status in others.
    if status is not None and hasattr(status, "ok") and not status.ok():
        raise ExecutionError("MagicMind's {call} failed: {cause}.", call=call, cause=str(status))
