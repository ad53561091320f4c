"""The Huawei Ascend backend: ATC compiles, pyACL runs; ONNX Runtime's CANN provider on request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm.spec import API_VERSION, Artifact, Capabilities, CompileOptions, Device, RunOptions

if TYPE_CHECKING:
    import onnx_ir as ir

    from autoglm.spec import Session

__all__ = ["Ascend"]


class Ascend:
    """Ascend NPUs through CANN."""

    name = "ascend"
    api_version = API_VERSION

    def probe(self) -> Sequence[Device]:
        """What the vendor's tool and the PCI bus show; [] where there is none."""
        from autoglm.backends.ascend.probe import list_devices

        return list_devices()

    def version(self) -> str:
        """Version of the installed toolkit; "" where it is not installed."""
        from autoglm.backends.ascend.toolkit import version

        return version()

    def capabilities(self, arch: str = "") -> Capabilities:
        """What the vendor's documents say of that chip."""
        from autoglm.backends.ascend.capabilities import table

        return table(arch)

    def compile_identity(self, options: CompileOptions) -> Mapping[str, str]:
        """The chip that ATC compiles for where none is asked for."""
        here = [] if options.arch else self.probe()
        return {"soc": next((d.name for d in here if d.present), "")}

    def compile(self, model: ir.Model, options: CompileOptions, out: Path) -> Artifact:
        """Compile to an offline model (OM) with ATC."""
        from autoglm.backends.ascend.compile import compile_model

        return compile_model(model, options, out)

    def open(self, artifact: Artifact, folder: Path, options: RunOptions) -> Session:
        """Load what `compile` wrote onto a device."""
        from autoglm.backends.ascend.session import open_session

        return open_session(artifact, folder, options)
