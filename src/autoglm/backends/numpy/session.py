"""Compiles to a checked copy of the model, and runs it kernel by kernel."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autoglm.backends.numpy.op import Kernel, Op
from autoglm.backends.numpy.table import TABLE
from autoglm.errors import CompileError, ExecutionError
from autoglm.rewrite.program import Call, Program, prepared
from autoglm.rewrite.save import input_infos, load_artifact, output_infos, save_onnx
from autoglm.spec import Artifact, Closing, CompileOptions, Feeds, RunOptions, TensorInfo, Value
from autoglm.tensor.dtype import to_numpy
from autoglm.tensor.feeds import check_feeds

if TYPE_CHECKING:
    import onnx_ir as ir


class NumpyEngine:
    """Looks kernels up; constants are arrays."""

    default = ""

    def __init__(self, load: bool = True) -> None:
        self.load = load

    def bind(self, call: Call) -> Kernel:
        """The node's kernel; CompileError where there is none."""
        return partial(find(call).run, call)

    def variant(self, call: Call, position: int) -> str:
        """Constants have one form."""
        return ""

    def constant(self, tensor: ir.TensorProtocol, variant: str) -> Any:
        """The array itself, strings as `str`."""
        return _text(tensor.numpy()) if self.load else None


def _text(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.dtype.kind not in "OS":
        return array
    texts = [v.decode("utf-8") if isinstance(v, bytes) else v for v in array.reshape(-1)]
    result = np.empty(array.size, object)
    result[:] = texts
    return result.reshape(array.shape)


def find(call: Call) -> Op:
    """The table's row for this node; CompileError says what is missing."""
    entry = TABLE.get(call.op)
    if isinstance(entry, dict):
        entry = next((entry[v] for v in sorted(entry, reverse=True) if v <= call.since), None)
    if not isinstance(entry, Op):
        raise CompileError(
            "Node {node!r}: {op} of opset {since} has no NumPy kernel.",
            node=call.name,
            op=call.op,
            since=call.since,
        )
    reason = entry.check(call) if entry.check else ""
    if reason:
        raise CompileError(
            "Node {node!r}: {op}: {reason}.", node=call.name, op=call.op, reason=reason
        )
    return entry


def compile_model(model: ir.Model, options: CompileOptions, out: Path) -> Artifact:
    """Write `model.onnx`; CompileError where some node has no kernel. Always as declared (fp32)."""
    model = prepared(model)
    Program(model.graph, NumpyEngine(load=False), model.opset_imports)
    save_onnx(model, out / "model.onnx", alignment=options.memory_alignment)
    return Artifact(
        backend="numpy",
        kind="numpy",
        entry="model.onnx",
        toolkit=f"numpy {np.__version__}",
        inputs=input_infos(model),
        outputs=output_infos(model),
    )


def open_session(artifact: Artifact, folder: Path, options: RunOptions) -> NumpySession:
    """Load what `compile_model` wrote."""
    program = load_artifact(
        artifact, folder, lambda m: Program(m.graph, NumpyEngine(), m.opset_imports)
    )
    return NumpySession(program, artifact.inputs, artifact.outputs, options.profile)


class NumpySession(Closing):
    """One opened artifact."""

    def __init__(
        self,
        program: Program,
        inputs: tuple[TensorInfo, ...],
        outputs: tuple[TensorInfo, ...],
        profile: bool = False,
    ) -> None:
        self._program: Program | None = program
        self.inputs, self.outputs = inputs, outputs
        self._held = [v for v in program.constants() if isinstance(v, np.ndarray)]
        self._seconds: dict[str, float] | None = {} if profile else None

    def run(self, feeds: Feeds) -> dict[str, Value]:
        """Run once."""
        if self._program is None:
            raise ExecutionError("The session is closed.", hint="Open the artifact again.")
        arguments = list(check_feeds(self.inputs, feeds).values())
        with np.errstate(all="ignore"):  # NaN and inf are answers, as in every engine
            if self._seconds is None:
                results = self._program.run(arguments)
            else:
                results = self._program.run_timed(arguments, self._seconds)
        taken = [*self._held, *(a for a in arguments if isinstance(a, np.ndarray))]
        pairs = zip(self.outputs, results, strict=True)
        return {info.name: _give(value, info.dtype, taken) for info, value in pairs}

    def profile(self) -> list[tuple[str, float]]:
        """Seconds spent in each node since a session was opened with `profile=True`."""
        if self._seconds is None:
            raise ExecutionError("This session was not opened with profile=True.")
        return list(self._seconds.items())

    def close(self) -> None:
        """Give the weights back."""
        self._program = None
        self._held = []


def _give(value: Any, dtype: str, taken: list[np.ndarray[Any, Any]]) -> Value:
    if value is None:
        return None
    if isinstance(value, list):
        return [_give(v, dtype, taken) for v in value]
    array = np.asarray(value)
    held = to_numpy(dtype) if dtype else array.dtype
    if array.dtype != held:
        array = array.astype(held)
    # An output that shares memory with a feed, a weight or another output would change with it.
    if any(np.may_share_memory(array, other) for other in taken):
        array = array.copy()
    taken.append(array)
    return array
