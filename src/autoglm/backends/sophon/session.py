"""Run a BModel on the C-model simulator, in a process that keeps it loaded."""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from autoglm.backends.sophon.capabilities import TARGETS
from autoglm.backends.sophon.toolkit import INSIDE, installed, variables
from autoglm.errors import BackendUnavailableError, BundleError, ExecutionError
from autoglm.spec import Artifact, Closing, Feeds, RunOptions, TensorInfo, Value
from autoglm.tensor.dtype import to_numpy
from autoglm.tensor.feeds import check_feeds
from autoglm.toolchain.service import Service

# The simulator computes every cycle's work on the CPU: a large network takes minutes.
_RUN_S = 3600.0


def open_session(artifact: Artifact, folder: Path, options: RunOptions) -> SimulatorSession:
    """Open what `compile` wrote."""
    path = folder / artifact.entry
    if not path.is_file():
        raise BundleError("{path} is missing.", path=path.name)
    if options.device not in ("", "simulator"):
        raise BackendUnavailableError(
            "BModels run on the simulator only here; found device {device!r}.",
            hint="Leave the device out, or take the .bmodel to the chip's own runtime.",
            device=options.device,
        )
    return SimulatorSession(artifact, path, options)


class SimulatorSession(Closing):
    """One BModel on the simulator; calls from several threads take turns."""

    def __init__(self, artifact: Artifact, path: Path, options: RunOptions) -> None:
        environment = installed()
        self.inputs: tuple[TensorInfo, ...] = artifact.inputs
        self.outputs: tuple[TensorInfo, ...] = artifact.outputs
        chip = artifact.meta["chip"]
        self.remark = f"{chip} is the C-model simulator of {artifact.toolkit}, not the chip"
        self._meta = artifact.meta
        self._folder = Path(tempfile.mkdtemp(prefix="autoglm-sophon-"))
        target = TARGETS[chip]
        argv = [str(environment.python), str(INSIDE / "simulator.py"), str(path.resolve())]
        self._service: Service | None = Service(
            argv,
            log=self._folder / "simulator.log",
            env=variables(environment, target, options.threads),
            cwd=self._folder,
            memory_bytes=options.memory_limit_bytes,
        )

    def run(self, feeds: Feeds) -> dict[str, Value]:
        """Run once; the outputs are the caller's own arrays."""
        if self._service is None:
            raise ExecutionError("The session is closed.")
        checked = check_feeds(self.inputs, feeds)
        sink = io.BytesIO()
        inside = zip(self._meta["inputs"], self.inputs, strict=True)
        arrays: Any = {name: _plain(checked[info.name]) for name, info in inside}
        np.savez(sink, **arrays)
        reply = self._service.ask(sink.getvalue(), timeout_s=_RUN_S)
        with np.load(io.BytesIO(reply)) as found:
            pairs = zip(self.outputs, self._meta["outputs"], strict=True)
            return {info.name: _shaped(found[name], info) for info, name in pairs}

    def close(self) -> None:
        """End the simulator; may be called twice."""
        if self._service is not None:
            self._service.close()
            shutil.rmtree(self._folder, ignore_errors=True)
        self._service = None


def _plain(value: Value) -> np.ndarray:
    # The simulator's NumPy knows no bfloat16; float32 holds every value of it.
    array = np.asarray(value)
    return array if array.dtype.isbuiltin == 1 else array.astype(np.float32)


def _shaped(array: np.ndarray, info: TensorInfo) -> np.ndarray:
    """The output as the model declares it: the chip has no 64-bit numbers, booleans or scalars."""
    wanted = info.shape
    if wanted is not None and all(isinstance(d, int) for d in wanted):
        if array.size != int(np.prod(wanted)):  # type: ignore[arg-type]
            raise ExecutionError(
                "The simulator gives {name!r} the shape {found}; the model declares {expected}.",
                name=info.name,
                found=list(array.shape),
                expected=list(wanted),
            )
        array = array.reshape(wanted)  # type: ignore[arg-type]
    held = to_numpy(info.dtype)
    if array.dtype.kind == "f" and held.kind in "iu":
        array = np.rint(array)
    return array.astype(held)
