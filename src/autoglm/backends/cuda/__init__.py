"""The NVIDIA backend: TensorRT, or ONNX Runtime's CUDA providers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm.spec import API_VERSION, Artifact, Capabilities, CompileOptions, Device, RunOptions

if TYPE_CHECKING:
    import onnx_ir as ir

    from autoglm.spec import Session

__all__ = ["Cuda"]


class Cuda:
    """NVIDIA GPUs through TensorRT or ONNX Runtime."""

    name = "cuda"
    api_version = API_VERSION

    def probe(self) -> Sequence[Device]:
        """What the vendor's tool and the PCI bus show; [] where there is none."""
        from autoglm.backends.cuda.probe import list_devices

        return list_devices()

    def version(self) -> str:
        """Version of the installed toolkit; "" where it is not installed."""
        from autoglm.backends.cuda.toolkit import version

        return version()

    def capabilities(self, arch: str = "") -> Capabilities:
        """What the vendor's documents say of that chip."""
        from autoglm.backends.cuda.capabilities import table

        return table(arch)

    def compile_identity(self, options: CompileOptions) -> Mapping[str, str]:
        """The GPUs here and their driver: an engine is built for them."""
        return {d.id: f"{d.name} {d.facts.get('driver', '')}" for d in self.probe()}

    def compile(self, model: ir.Model, options: CompileOptions, out: Path) -> Artifact:
        """Build a TensorRT engine, or write the model for ONNX Runtime."""
        from autoglm.backends.cuda.compile import compile_model

        return compile_model(model, options, out)

    def open(self, artifact: Artifact, folder: Path, options: RunOptions) -> Session:
        """Load what `compile` wrote onto a device."""
        from autoglm.backends.cuda.session import open_session

        return open_session(artifact, folder, options)
