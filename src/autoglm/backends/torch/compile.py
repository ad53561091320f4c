"""Check that every node has a kernel; write the model with aligned weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from autoglm.backends.torch.probe import PRECISIONS, version
from autoglm.catalog.precision import require_precision
from autoglm.errors import BackendUnavailableError, CompileError
from autoglm.rewrite.program import Program, prepared
from autoglm.rewrite.save import input_infos, output_infos, save_onnx
from autoglm.spec import Artifact, CompileOptions

if TYPE_CHECKING:
    import onnx_ir as ir

_MODES = ("off", "inductor", "reduce-overhead")


def compile_model(model: ir.Model, options: CompileOptions, out: Path) -> Artifact:
    """Write `model.onnx` and `model.data`; CompileError where some node has no kernel."""
    if not version():
        raise BackendUnavailableError(
            "PyTorch is not installed.", hint="pip install 'open-autoglm[torch]'"
        )
    mode = options.settings.get("compile", "off")
    if mode not in _MODES:
        raise CompileError(
            "Setting compile is {known}; found {found!r}.", known=" or ".join(_MODES), found=mode
        )
    if options.settings.get("graphs", "false") not in ("true", "false"):
        raise CompileError(
            "Setting graphs is true or false; found {found!r}.", found=options.settings["graphs"]
        )
    require_precision("torch", PRECISIONS, options)
    model = prepared(model)
    _check(model)
    save_onnx(model, out / "model.onnx", alignment=options.memory_alignment)
    return Artifact(
        backend="torch",
        kind="torch",
        entry="model.onnx",
        toolkit=f"torch {version()}",
        inputs=input_infos(model),
        outputs=output_infos(model),
        precision=options.precision,
        meta={
            "compile": mode,
            "graphs": options.settings.get("graphs", "false"),
            "device": options.device,
            "keep_high": sorted(options.keep_high),
        },
    )


def _check(model: ir.Model) -> None:
    import torch

    from autoglm.backends.torch.engine import TorchEngine

    Program(model.graph, TorchEngine(torch.device("cpu"), load=False), model.opset_imports)
