"""The ONNX Runtime backend, on its CPU provider: the engine every machine has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm.spec import API_VERSION, Artifact, Capabilities, CompileOptions, Device, RunOptions

if TYPE_CHECKING:
    import onnx_ir as ir

    from autoglm.spec import Session

__all__ = ["OnnxRuntime"]


class OnnxRuntime:
    """ONNX Runtime on the CPU."""

    name = "onnxruntime"
    api_version = API_VERSION

    def probe(self) -> Sequence[Device]:
        """The CPU; [] where onnxruntime is not installed."""
        from autoglm.backends.onnxruntime.probe import list_devices

        return list_devices()

    def version(self) -> str:
        """Version of the installed onnxruntime; "" where it is not installed."""
        from autoglm.backends.onnxruntime.probe import version

        return version()

    def capabilities(self, arch: str = "") -> Capabilities:
        """The table measured with the nearest onnxruntime version."""
        from autoglm.backends.onnxruntime.capabilities import table

        return table()

    def compile(self, model: ir.Model, options: CompileOptions, out: Path) -> Artifact:
        """Write the model as the engine optimises it, weights packed in a file that it maps."""
        from autoglm.backends.onnxruntime.compile import compile_model

        return compile_model(model, options, out)

    def open(self, artifact: Artifact, folder: Path, options: RunOptions) -> Session:
        """Load what `compile` wrote; processes that open the same artifact share its pages."""
        from autoglm.backends.onnxruntime.session import open_session

        return open_session(artifact, folder, options)
