"""Check that every node has a kernel; write the model with aligned weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from autoglm.backends.torch.probe import PRECISIONS, version
from autoglm.errors import BackendUnavailableError, CompileError
from autoglm.rewrite.program import Program, infos, prepared
from autoglm.spec import Artifact, CompileOptions

if TYPE_CHECKING:
    import onnx_ir as ir

_MODES = ("off", "inductor")


def compile_model(model: ir.Model, options: CompileOptions, out: Path) -> Artifact:
    """Write `model.onnx` and `model.onnx.data`; CompileError where some node has no kernel."""
    import onnx_ir

    if not version():
        raise BackendUnavailableError(
            "PyTorch is not installed.", hint="pip install 'open-autoglm[torch]'"
        )
    mode = options.settings.get("compile", "off")
    if mode not in _MODES:
        raise CompileError(
            "Setting compile is {known}; found {found!r}.", known=" or ".join(_MODES), found=mode
        )
    support = PRECISIONS.get(options.precision)
    if support is None or not support.ok:
        raise CompileError(
            "PyTorch does not compile to {precision}: {reason}.",
            precision=options.precision,
            reason=support.reason if support else "fp32, fp16 or bf16",
        )
    model = prepared(model)
    _check(model)
    onnx_ir.save(
        model,
        out / "model.onnx",
        external_data="model.onnx.data",
        alignment=max(4096, options.memory_alignment),
        align_threshold=options.memory_alignment,
    )
    given = [v for v in model.graph.inputs if v.name not in model.graph.initializers]
    return Artifact(
        backend="torch",
        kind="torch",
        entry="model.onnx",
        toolkit=f"torch {version()}",
        inputs=infos(given),
        outputs=infos(model.graph.outputs),
        precision=options.precision,
        meta={"compile": mode, "keep_high": sorted(options.keep_high)},
    )


def _check(model: ir.Model) -> None:
    import torch

    from autoglm.backends.torch.engine import TorchEngine

    Program(model.graph, TorchEngine(torch.device("cpu"), load=False), model.opset_imports)
