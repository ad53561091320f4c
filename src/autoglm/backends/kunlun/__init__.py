"""The Kunlun backend: ONNX to Paddle by our own mapping, run by Paddle Inference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm.spec import API_VERSION, Artifact, Capabilities, CompileOptions, Device, RunOptions

if TYPE_CHECKING:
    import onnx_ir as ir

    from autoglm.spec import Session

__all__ = ["Kunlun"]


class Kunlun:
    """Baidu's Kunlun chips through Paddle Inference, or its CPU kernels where no chip is."""

    name = "kunlun"
    api_version = API_VERSION

    def probe(self) -> Sequence[Device]:
        """The chips that are here; [] without one."""
        from autoglm.backends.kunlun.probe import list_devices

        return list_devices()

    def version(self) -> str:
        """Version of the installed Paddle environment; "" where there is none."""
        from autoglm.toolchain.environment import find

        found = find("paddle")
        return found.version if found else ""

    def capabilities(self, arch: str = "") -> Capabilities:
        """The table measured with Paddle on the CPU; for a chip it is inferred from that."""
        from autoglm.backends.kunlun.capabilities import table

        return table(arch, self.version())

    def compile_identity(self, options: CompileOptions) -> Mapping[str, str]:
        """The installed environment, which its recipe's digest names."""
        from autoglm.toolchain.environment import find

        found = find("paddle")
        return {"toolchain": found.folder.name if found else ""}

    def compile(self, model: ir.Model, options: CompileOptions, out: Path) -> Artifact:
        """Write the model as a Paddle program, or keep the Paddle files it came from."""
        from autoglm.backends.kunlun.compile import compile_model

        return compile_model(model, options, out)

    def open(self, artifact: Artifact, folder: Path, options: RunOptions) -> Session:
        """Load it in the worker, on a chip where Paddle sees one."""
        from autoglm.backends.kunlun.session import open_session

        return open_session(artifact, folder, options)
