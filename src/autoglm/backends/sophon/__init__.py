"""The Sophgo backend: TPU-MLIR compiles to BModel, its C-model simulator runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm.spec import API_VERSION, Artifact, Capabilities, CompileOptions, Device, RunOptions

if TYPE_CHECKING:
    import onnx_ir as ir

    from autoglm.spec import Session

__all__ = ["Sophon"]


class Sophon:
    """Sophgo's TPUs through TPU-MLIR."""

    name = "sophon"
    api_version = API_VERSION

    def probe(self) -> Sequence[Device]:
        """What the vendor's tool and the PCI bus show, and the simulator where it is installed."""
        from autoglm.backends.sophon.probe import list_devices
        from autoglm.backends.sophon.toolkit import simulators

        return [*list_devices(), *simulators()]

    def version(self) -> str:
        """Version of the installed TPU-MLIR; "" where it is not installed."""
        from autoglm.backends.sophon.toolkit import version

        return version()

    def capabilities(self, arch: str = "") -> Capabilities:
        """The table measured through the real compiler and the simulator."""
        from autoglm.backends.sophon.capabilities import table

        return table(arch)

    def compile_identity(self, options: CompileOptions) -> Mapping[str, str]:
        """The installed environment, which its recipe's digest names."""
        from autoglm.toolchain.environment import find

        found = find("sophon")
        return {"toolchain": found.folder.name if found else ""}

    def compile(self, model: ir.Model, options: CompileOptions, out: Path) -> Artifact:
        """Transform, calibrate where int8 is asked for, and deploy to a BModel."""
        from autoglm.backends.sophon.compile import compile_model

        return compile_model(model, options, out)

    def open(self, artifact: Artifact, folder: Path, options: RunOptions) -> Session:
        """Load the BModel on the simulator."""
        from autoglm.backends.sophon.session import open_session

        return open_session(artifact, folder, options)
