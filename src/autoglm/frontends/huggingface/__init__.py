"""Hugging Face folders: `config.json` and safetensors; BERT-like encoders need no torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm.spec import API_VERSION, Value

if TYPE_CHECKING:
    import onnx_ir as ir


class HuggingFace:
    """Builds encoder graphs from the folder itself; other families go through transformers."""

    name = "huggingface"
    api_version = API_VERSION

    def detect(self, source: object) -> bool:
        """A folder with a config.json."""
        if not isinstance(source, (str, os.PathLike)):
            return False
        try:
            return (Path(source) / "config.json").is_file()
        except (OSError, ValueError):
            return False

    def load(self, source: object, *, example_inputs: Sequence[Value] | None = None) -> ir.Model:
        """The model in the folder; `example_inputs` only matter for families that torch exports."""
        from autoglm.frontends.huggingface.load import load_folder

        assert isinstance(source, (str, os.PathLike))
        return load_folder(Path(source), example_inputs)
