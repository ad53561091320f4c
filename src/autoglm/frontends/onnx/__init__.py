"""ONNX models of every opset: files, bytes, `onnx.ModelProto`, `onnx_ir.Model`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm.spec import API_VERSION, Value

if TYPE_CHECKING:
    import onnx_ir as ir


class Onnx:
    """Reads ONNX; opsets below 18 are raised to 18 where that keeps every answer."""

    name = "onnx"
    api_version = API_VERSION

    def detect(self, source: object) -> bool:
        """An .onnx path, a file that begins as ONNX does, serialized bytes, or a model object."""
        if isinstance(source, (str, os.PathLike)):
            path = Path(source)
            return path.suffix.lower() == ".onnx" or _begins_as_onnx(path)
        if isinstance(source, (bytes, bytearray, memoryview)):
            return True
        kind = type(source)
        return kind.__name__ in ("ModelProto", "Model") and kind.__module__.startswith("onnx")

    def load(self, source: object, *, example_inputs: Sequence[Value] | None = None) -> ir.Model:
        """Read, check, inline, raise, name and infer; `example_inputs` are not needed."""
        from autoglm.frontends.onnx.load import load

        return load(source)


def _begins_as_onnx(path: Path) -> bool:
    # ModelProto.ir_version is field 1 (tag 0x08), written first by every known exporter.
    try:
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            head = stream.read(3)
    except OSError:
        return False
    return (
        len(head) == 3 and head[0] == 0x08 and 1 <= head[1] <= 64 and head[2] in (0x12, 0x3A, 0x42)
    )
