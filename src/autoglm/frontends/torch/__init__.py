"""PyTorch: `torch.export` archives (.pt2), TorchScript archives, modules and exported programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm.spec import API_VERSION, Value

if TYPE_CHECKING:
    import onnx_ir as ir

_SUFFIXES = frozenset({".pt2", ".pt", ".pth", ".ptl", ".torchscript"})


class Torch:
    """Reads PyTorch models through torch's own exporters; plain pickles are refused unopened."""

    name = "torch"
    api_version = API_VERSION

    def detect(self, source: object) -> bool:
        """A PyTorch file by its suffix, or an object of an already imported torch."""
        if isinstance(source, (str, os.PathLike)):
            return Path(source).suffix.lower() in _SUFFIXES
        torch = sys.modules.get("torch")
        if torch is None:
            return False
        export = sys.modules.get("torch.export")
        kinds = [torch.nn.Module, *([export.ExportedProgram] if export is not None else [])]
        return isinstance(source, tuple(kinds))

    def load(self, source: object, *, example_inputs: Sequence[Value] | None = None) -> ir.Model:
        """Export it to ONNX; modules and TorchScript need `example_inputs`."""
        if isinstance(source, (str, os.PathLike)):
            from autoglm.frontends.torch.files import load_file

            return load_file(Path(source), example_inputs)
        from autoglm.frontends.torch.export import export

        return export(source, example_inputs)
