"""Run the reference evaluator; what it returns is checked against what the graph declares."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoglm.errors import BundleError, CompileError, ExecutionError
from autoglm.spec import Artifact, Closing, Feeds, TensorInfo, Value
from autoglm.tensor.dtype import from_numpy
from autoglm.tensor.feeds import check_feeds, describe, fits

if TYPE_CHECKING:
    from onnx.reference import ReferenceEvaluator

_TRAINS = range(7, 14)  # opsets whose BatchNormalization the evaluator computes in training mode


def open_session(artifact: Artifact, folder: Path) -> ReferenceSession:
    """Load the model."""
    try:
        return ReferenceSession(evaluator(folder / artifact.entry), artifact)
    except CompileError as error:
        raise BundleError(
            "{path} does not load: {cause}.", path=artifact.entry, cause=error
        ) from error


def evaluator(path: Path) -> ReferenceEvaluator:
    """The evaluator of a model file; CompileError for an operator it does not have."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    try:
        model = onnx.load(str(path))
        opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
        return ReferenceEvaluator(model, new_ops=_corrections() if opset in _TRAINS else None)
    except Exception as error:  # it raises whatever its constructors raise
        raise CompileError(
            "The reference evaluator refuses the model: {cause}.", cause=_line(error)
        ) from error


def _corrections() -> list[type]:
    import numpy as np
    from onnx.reference.op_run import OpRun

    class BatchNormalization(OpRun):  # type: ignore[misc]
        """Inference mode, as opsets 7 to 13 define it for a node with one output."""

        op_domain = ""

        def _run(self, x: Any, *weights: Any, epsilon: float = 1e-5, **_: Any) -> tuple[Any]:
            shape = (-1, *(1,) * (x.ndim - 2))
            scale, bias, mean, var = (w.reshape(shape) for w in weights)
            y = scale * (x - mean) / np.sqrt(var + np.asarray(epsilon, var.dtype)) + bias
            return (y.astype(x.dtype),)

    return [BatchNormalization]


class ReferenceSession(Closing):
    """One model in the evaluator."""

    def __init__(self, engine: ReferenceEvaluator, artifact: Artifact) -> None:
        self.inputs: tuple[TensorInfo, ...] = artifact.inputs
        self.outputs: tuple[TensorInfo, ...] = artifact.outputs
        self._engine: ReferenceEvaluator | None = engine

    def run(self, feeds: Feeds) -> dict[str, Value]:
        """Run once; ExecutionError also where the answer is not of the declared type."""
        import numpy as np

        if self._engine is None:
            raise ExecutionError("The session is closed.")
        checked = check_feeds(self.inputs, feeds)
        try:
            with np.errstate(all="ignore"):
                results = self._engine.run([info.name for info in self.outputs], checked)
        except Exception as error:  # kernels raise whatever NumPy raises
            raise ExecutionError(
                "The reference evaluator failed: {cause}.", cause=_line(error)
            ) from error
        pairs = zip(self.outputs, results, strict=True)
        return {info.name: _declared(info, value) for info, value in pairs}

    def close(self) -> None:
        """Free the model; may be called twice."""
        self._engine = None


def _declared(info: TensorInfo, value: Value) -> Value:
    import numpy as np

    if info.kind != "tensor":
        return value
    array = np.asarray(value)
    dtype = from_numpy(array.dtype)
    if (info.dtype and dtype != info.dtype) or not fits(array.shape, info.shape):
        raise ExecutionError(
            "The reference evaluator gives {name!r} as {found}; the graph declares {expected}.",
            name=info.name,
            found=describe(TensorInfo(info.name, dtype, array.shape)),
            expected=describe(info),
        )
    return array.astype(object) if dtype == "string" else array


def _line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300].rstrip(" .")
