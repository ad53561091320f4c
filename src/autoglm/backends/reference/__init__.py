"""The onnx package's own evaluator: the oracle, and the last resort. Plain NumPy, very slow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm.spec import API_VERSION, Artifact, Capabilities, CompileOptions, Device, RunOptions

if TYPE_CHECKING:
    import onnx_ir as ir

    from autoglm.spec import Session

__all__ = ["Reference"]


class Reference:
    """ONNX's reference evaluator."""

    name = "reference"
    api_version = API_VERSION

    def probe(self) -> Sequence[Device]:
        """The CPU; the evaluator comes with onnx."""
        return [Device("cpu", "onnx's reference evaluator", "reference", "cpu")]

    def version(self) -> str:
        """Version of the installed onnx."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("onnx")
        except PackageNotFoundError:
            return ""

    def capabilities(self, arch: str = "") -> Capabilities:
        """The table measured with the nearest onnx version; its speed keeps plans away from it."""
        from dataclasses import replace

        from autoglm.catalog import load_pack
        from autoglm.spec import Constraint, no, yes

        only = no(Constraint.PRECISION, "the reference evaluator computes only what the model says")
        precisions = {"fp32": yes(), "fp16": only, "bf16": only, "int8": only, "int8-dynamic": only}
        return replace(load_pack("reference", self.version()), precisions=precisions, speed=0.001)

    def compile(self, model: ir.Model, options: CompileOptions, out: Path) -> Artifact:
        """Write the model, once it has only operators that the evaluator computes rightly."""
        from autoglm.backends.reference.compile import compile_model

        return compile_model(model, options, out)

    def open(self, artifact: Artifact, folder: Path, options: RunOptions) -> Session:
        """Load the model into the evaluator."""
        from autoglm.backends.reference.session import open_session

        return open_session(artifact, folder)
