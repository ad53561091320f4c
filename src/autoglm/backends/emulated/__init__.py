"""The emulated backend: a catalog chip's limits and rounding, enforced over ONNX Runtime's CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm.spec import API_VERSION, Artifact, Capabilities, CompileOptions, Device, RunOptions

if TYPE_CHECKING:
    import onnx_ir as ir

    from autoglm.spec import Session

__all__ = ["Emulated"]


class Emulated:
    """Any chip of the catalog, named by `arch`, without the chip."""

    name = "emulated"
    api_version = API_VERSION

    def probe(self) -> Sequence[Device]:
        """One row that is no device: which chips can be emulated here."""
        from autoglm.backends.emulated.profile import list_devices

        return list_devices()

    def version(self) -> str:
        """Version of the onnxruntime beneath; "" where it is not installed."""
        from autoglm.backends.emulated.profile import version

        return version()

    def capabilities(self, arch: str = "") -> Capabilities:
        """The table of the vendor's own backend for that chip, marked as emulated."""
        from autoglm.backends.emulated.profile import profile

        return profile(arch).table

    def compile(self, model: ir.Model, options: CompileOptions, out: Path) -> Artifact:
        """Refuse what the chip would refuse; write the model with the chip's rounding in it."""
        from autoglm.backends.emulated.compile import compile_model

        return compile_model(model, options, out)

    def open(self, artifact: Artifact, folder: Path, options: RunOptions) -> Session:
        """Run what `compile` wrote on the CPU; with `pace`, no faster than the chip would."""
        from autoglm.backends.emulated.session import open_session

        return open_session(artifact, folder, options)
