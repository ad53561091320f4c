"""Kernels of our own in NumPy, for operators that no engine here answers, or answers rightly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm.spec import (
    API_VERSION,
    Artifact,
    Capabilities,
    CompileOptions,
    Constraint,
    Device,
    Evidence,
    RunOptions,
    no,
    yes,
)

if TYPE_CHECKING:
    import onnx_ir as ir

    from autoglm.spec import Session

_AS_DECLARED = no(Constraint.PRECISION, "our NumPy kernels compute in the model's own dtypes")
PRECISIONS = {
    "fp32": yes(Evidence.MEASURED),
    **dict.fromkeys(("fp16", "bf16", "int8", "int8-dynamic"), _AS_DECLARED),
}


class NumPy:
    """The CPU, one kernel at a time; slow, exact, always there."""

    name = "numpy"
    api_version = API_VERSION

    def probe(self) -> Sequence[Device]:
        """The CPU."""
        return [Device("cpu", "CPU through NumPy", "numpy", "cpu")]

    def version(self) -> str:
        """Version of NumPy."""
        from importlib.metadata import version

        return version("numpy")

    def capabilities(self, arch: str = "") -> Capabilities:
        """The table measured with the nearest NumPy version."""
        from dataclasses import replace

        from autoglm.catalog import load_pack

        return replace(load_pack("numpy", self.version()), precisions=PRECISIONS, speed=0.05)

    def compile(self, model: ir.Model, options: CompileOptions, out: Path) -> Artifact:
        """Check that every node has a kernel, and write the model with aligned weights."""
        from autoglm.backends.numpy.session import compile_model

        return compile_model(model, options, out)

    def open(self, artifact: Artifact, folder: Path, options: RunOptions) -> Session:
        """Rebuild the program."""
        from autoglm.backends.numpy.session import open_session

        return open_session(artifact, folder, options)
