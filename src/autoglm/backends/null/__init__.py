"""The null backend: takes every model and answers zeros. It proves the pipeline, never a number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm.spec import API_VERSION, Artifact, Capabilities, CompileOptions, Device, RunOptions

if TYPE_CHECKING:
    import onnx_ir as ir

    from autoglm.spec import Session

__all__ = ["Null"]


class Null:
    """A device that is always there and computes nothing."""

    name = "null"
    api_version = API_VERSION

    def probe(self) -> Sequence[Device]:
        """One device that computes nothing."""
        return [Device("null", "answers zeros, computes nothing", "null", "null")]

    def version(self) -> str:
        """Always "1": it has no toolkit."""
        return "1"

    def capabilities(self, arch: str = "") -> Capabilities:
        """Every operator, in every precision."""
        from autoglm.backends.null.capabilities import table

        return table()

    def compile(self, model: ir.Model, options: CompileOptions, out: Path) -> Artifact:
        """Write down the outputs' dtypes and shapes."""
        from autoglm.backends.null.compile import compile_model

        return compile_model(model, options, out)

    def open(self, artifact: Artifact, folder: Path, options: RunOptions) -> Session:
        """A session that answers zeros."""
        from autoglm.backends.null.session import NullSession

        return NullSession(artifact)
