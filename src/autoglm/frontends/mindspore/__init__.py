"""MindSpore: MindIR files, through MindSpore's own export to ONNX."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm.spec import API_VERSION, Value

if TYPE_CHECKING:
    import onnx_ir as ir


class MindSpore:
    """Converts in the toolchain environment `mindspore`; MindSpore is never imported here."""

    name = "mindspore"
    api_version = API_VERSION

    def detect(self, source: object) -> bool:
        """A .mindir file."""
        return isinstance(source, (str, os.PathLike)) and Path(source).suffix.lower() == ".mindir"

    def load(self, source: object, *, example_inputs: Sequence[Value] | None = None) -> ir.Model:
        """The model as ONNX; `example_inputs` are not needed."""
        from autoglm.frontends.mindspore.load import load

        assert isinstance(source, (str, os.PathLike))
        return load(Path(source))
