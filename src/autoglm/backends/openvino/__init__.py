"""The OpenVINO backend: the precision is always said, never left to its default."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm.spec import API_VERSION, Artifact, Capabilities, CompileOptions, Device, RunOptions

if TYPE_CHECKING:
    import onnx_ir as ir

    from autoglm.spec import Session

__all__ = ["OpenVino"]


class OpenVino:
    """OpenVINO on the CPU, or on a GPU or NPU that it sees."""

    name = "openvino"
    api_version = API_VERSION

    def probe(self) -> Sequence[Device]:
        """The CPU and what else OpenVINO sees; [] where it is not installed."""
        from autoglm.backends.openvino.probe import list_devices

        return list_devices()

    def version(self) -> str:
        """Version of the installed openvino; "" where it is not installed."""
        from autoglm.backends.openvino.probe import version

        return version()

    def capabilities(self, arch: str = "") -> Capabilities:
        """The table measured with the nearest openvino version."""
        from autoglm.backends.openvino.capabilities import table

        return table()

    def compile(self, model: ir.Model, options: CompileOptions, out: Path) -> Artifact:
        """Convert the model to OpenVINO's own files, quantised where int8 is asked for."""
        from autoglm.backends.openvino.compile import compile_model

        return compile_model(model, options, out)

    def open(self, artifact: Artifact, folder: Path, options: RunOptions) -> Session:
        """Load what `compile` wrote, in the precision it was compiled for."""
        from autoglm.backends.openvino.session import open_session

        return open_session(artifact, folder, options)
