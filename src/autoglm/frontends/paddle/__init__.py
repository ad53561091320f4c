"""Paddle inference models: a folder, or `model.json` / `.pdmodel` with its `.pdiparams`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from autoglm.spec import API_VERSION, Value

if TYPE_CHECKING:
    import onnx_ir as ir


class Paddle:
    """Converts with paddle2onnx in the toolchain environment; Paddle is never imported here."""

    name = "paddle"
    api_version = API_VERSION

    def detect(self, source: object) -> bool:
        """A Paddle program file, its parameters, or a folder that holds one program."""
        from autoglm.frontends.paddle.source import recognise

        return isinstance(source, (str, os.PathLike)) and recognise(source) is not None

    def load(self, source: object, *, example_inputs: Sequence[Value] | None = None) -> ir.Model:
        """The model as ONNX; it remembers its files, which the kunlun backend takes as they are."""
        from autoglm.frontends.paddle.load import load
        from autoglm.frontends.paddle.source import recognise

        found = recognise(source) if isinstance(source, (str, os.PathLike)) else None
        assert found is not None
        return load(found)
