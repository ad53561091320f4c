"""The PyTorch backend: our own table from ONNX operators to torch calls, eager or compiled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm.spec import API_VERSION, Artifact, Capabilities, CompileOptions, Device, RunOptions

if TYPE_CHECKING:
    import onnx_ir as ir

    from autoglm.spec import Session


class Torch:
    """Every device that PyTorch or one of its plug-ins drives."""

    name = "torch"
    api_version = API_VERSION

    def probe(self) -> Sequence[Device]:
        """The CPU, and the accelerator that torch sees; [] without torch."""
        from autoglm.backends.torch.probe import list_devices

        return list_devices()

    def version(self) -> str:
        """Version of the installed torch; "" where it is not installed."""
        from autoglm.backends.torch.probe import version

        return version()

    def capabilities(self, arch: str = "") -> Capabilities:
        """The table measured with the nearest torch version."""
        from dataclasses import replace

        from autoglm.backends.torch.probe import PRECISIONS, version
        from autoglm.catalog import load_pack

        return replace(load_pack("torch", version()), precisions=PRECISIONS, speed=0.7)

    def compile(self, model: ir.Model, options: CompileOptions, out: Path) -> Artifact:
        """Check that every node has a kernel, and write the model with aligned weights."""
        from autoglm.backends.torch.compile import compile_model

        return compile_model(model, options, out)

    def open(self, artifact: Artifact, folder: Path, options: RunOptions) -> Session:
        """Rebuild the program on the device asked for."""
        from autoglm.backends.torch.session import open_session

        return open_session(artifact, folder, options)
