"""The engine's names of types: `tensor(float)`, `seq(tensor(int64))`, and so on."""

from __future__ import annotations

import re

from autoglm.errors import CompileError
from autoglm.tensor.dtype import DTYPES

_ALIASES = {
    "float": "float32",
    "double": "float64",
    "float8e4m3fn": "float8_e4m3fn",
    "float8e4m3fnuz": "float8_e4m3fnuz",
    "float8e5m2": "float8_e5m2",
    "float8e5m2fnuz": "float8_e5m2fnuz",
    "float8e8m0": "float8_e8m0fnu",
    "float4e2m1": "float4_e2m1fn",
}


def dtype_of(type_text: str) -> str:
    """The dtype name inside one of the engine's type names."""
    inner = re.search(r"tensor\((\w+)\)", type_text)
    name = _ALIASES.get(inner[1], inner[1]) if inner else ""
    if name not in DTYPES:
        raise CompileError(
            "onnxruntime gives an output of type {found}, which is not known.", found=type_text
        )
    return name
