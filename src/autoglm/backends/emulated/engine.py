"""ONNX Runtime beneath the emulation: every operator as written, none fused, no thread spinning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoglm.errors import BackendUnavailableError, CompileError
from autoglm.spec import Feeds, Value

if TYPE_CHECKING:
    import onnx_ir as ir
    import onnxruntime as ort

_SILENT = 4


def create(model: ir.Model | Path, outputs: Sequence[str] = (), threads: int = 0) -> Any:
    """A session over a model, or over a file; `outputs` are handed out too."""
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise BackendUnavailableError(
            "The emulation runs on onnxruntime, which cannot be imported: {cause}.",
            hint="pip install onnxruntime",
            cause=str(error) or "not installed",
        ) from error
    source = str(model) if isinstance(model, Path) else _bytes(model, outputs)
    try:
        return ort.InferenceSession(source, _options(threads), providers=["CPUExecutionProvider"])
    except Exception as error:  # the engine's exceptions have no common base
        raise CompileError(
            "The CPU engine beneath the emulation refuses the model: {cause}.",
            cause=" ".join(str(error).split())[:300].rstrip("."),
        ) from error


def run_all(engine: Any, names: Sequence[str], feeds: Feeds) -> dict[str, Value]:
    """The values of those names."""
    return dict(zip(names, engine.run(list(names), dict(feeds)), strict=True)) if names else {}


def _options(threads: int) -> ort.SessionOptions:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = _SILENT
    # A fused operator would round once where the chip's rounding is written twice.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    # Threads that spin after a call would slow the real engines of the same plan.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _bytes(model: ir.Model, outputs: Sequence[str]) -> bytes:
    from onnx_ir import serde

    from autoglm.rewrite.extract import outputs_all

    shown = outputs_all(model, outputs) if outputs else model
    return bytes(serde.serialize_model(shown).SerializeToString())
