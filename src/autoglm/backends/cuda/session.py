"""Run a TensorRT plan on one GPU, or the ONNX file through ONNX Runtime's providers."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autoglm.backends.cuda.memory import Memory
from autoglm.backends.cuda.toolkit import missing
from autoglm.errors import BundleError, ExecutionError, InputError
from autoglm.spec import Artifact, Closing, Feeds, RunOptions, Value
from autoglm.tensor.dtype import to_numpy
from autoglm.tensor.feeds import check_feeds

if TYPE_CHECKING:
    from autoglm.spec import Session


def open_session(artifact: Artifact, folder: Path, options: RunOptions) -> Session:
    """Load the artifact onto the GPU of that number ("" is 0)."""
    if artifact.kind == "onnx-cuda":
        from autoglm.backends.cuda.provider import open_provider

        return open_provider(artifact, folder, options)
    try:
        import tensorrt as trt
    except ImportError as error:
        raise missing("tensorrt") from error
    path = folder / artifact.entry
    if not path.is_file():
        raise BundleError("The TensorRT plan {path} is missing.", path=artifact.entry)
    number = options.device.rpartition(":")[2]
    return TrtSession(trt, path, artifact, int(number) if number.isdecimal() else 0, options)


class TrtSession(Closing):
    """One deserialised plan with its context and device memory; one call at a time."""

    def __init__(
        self, trt: Any, path: Path, artifact: Artifact, number: int, options: RunOptions
    ) -> None:
        self.inputs, self.outputs = artifact.inputs, artifact.outputs
        self._gate = threading.Lock()
        self._memory = Memory(number)
        try:
            logger = trt.Logger(trt.Logger.WARNING)
            self._runtime = trt.Runtime(logger)
            self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
            if self._engine is None:
                raise BundleError(
                    "{path} was built by another TensorRT version or for another GPU.",
                    hint="Compile the model again on this machine.",
                    path=path.name,
                )
            if "refit" in options.settings:
                _refit(trt, self._engine, logger, options.settings["refit"])
            self._context = self._engine.create_execution_context()
            if self._context is None:
                raise ExecutionError("TensorRT has no memory for an execution context.")
        except BaseException:
            self._memory.close()
            raise

    def run(self, feeds: Feeds) -> dict[str, Value]:
        """Copy in, execute, copy out."""
        checked = check_feeds(self.inputs, feeds)
        with self._gate:
            if self._context is None:
                raise ExecutionError("The session is closed.", hint="Open the artifact again.")
            self._memory.enter()
            for info in self.inputs:
                self._put(info.name, np.ascontiguousarray(checked[info.name]))
            results = {info.name: self._room(info.name, info.dtype) for info in self.outputs}
            if not self._context.execute_async_v3(int(self._memory.stream)):
                raise ExecutionError("TensorRT could not run the plan; its log says why.")
            self._memory.wait()
            for array, address in results.values():
                self._memory.get(address, array)
        return {name: array for name, (array, _) in results.items()}

    def _put(self, name: str, array: Any) -> None:
        if not self._context.set_input_shape(name, tuple(array.shape)):
            raise InputError(
                "Input {name!r} of shape {shape} is outside the plan's profile {profile}.",
                hint="Compile with a wider profile.",
                name=name,
                shape=list(array.shape),
                profile=[list(s) for s in self._engine.get_tensor_profile_shape(name, 0)],
            )
        address = self._memory.room(name, array.nbytes)
        self._memory.put(address, array)
        self._context.set_tensor_address(name, address)

    def _room(self, name: str, dtype: str) -> tuple[Any, int]:
        shape = tuple(self._context.get_tensor_shape(name))
        if any(size < 0 for size in shape):
            raise ExecutionError(
                "The size of output {name!r} is only known once it is computed.",
                hint="Compile with setting engine = onnxruntime.",
                name=name,
            )
        array = np.empty(shape, to_numpy(dtype))
        address = self._memory.room(name, array.nbytes)
        self._context.set_tensor_address(name, address)
        return array, address

    def close(self) -> None:
        """Free the context and the plan before the memory they use; may be called twice."""
        with self._gate:
            if self._context is None:
                return
            self._memory.enter()
            self._context = self._engine = self._runtime = None
            self._memory.close()


def _refit(trt: Any, engine: Any, logger: Any, model: str) -> None:
    """Put another ONNX file's weights into a plan that was built with `refit`."""
    if not engine.refittable:
        raise BundleError(
            "This plan cannot take other weights.", hint="Compile with setting refit = true."
        )
    refitter = trt.Refitter(engine, logger)
    parser = trt.OnnxParserRefitter(refitter, logger)
    if not parser.refit_from_file(model) or not refitter.refit_cuda_engine():
        missing_weights = ", ".join(refitter.get_missing_weights()[:5])
        raise BundleError(
            "{model} does not refit the plan; missing: {missing}.",
            model=model,
            missing=missing_weights or "unknown",
        )
