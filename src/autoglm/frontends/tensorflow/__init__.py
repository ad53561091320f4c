"""TensorFlow: SavedModel folders, Keras files (.keras, .h5) and TFLite files, through tf2onnx."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from autoglm.spec import API_VERSION, Value

if TYPE_CHECKING:
    import onnx_ir as ir


class TensorFlow:
    """Converts in the toolchain environment `tensorflow`; TensorFlow is never imported here."""

    name = "tensorflow"
    api_version = API_VERSION

    def detect(self, source: object) -> bool:
        """A folder with a saved_model.pb (`folder#signature` names one), a Keras or TFLite file."""
        from autoglm.frontends.tensorflow.source import recognise

        return isinstance(source, (str, os.PathLike)) and recognise(source) is not None

    def load(self, source: object, *, example_inputs: Sequence[Value] | None = None) -> ir.Model:
        """The model as ONNX, its layouts as they are; `example_inputs` are not needed."""
        from autoglm.frontends.tensorflow.load import load
        from autoglm.frontends.tensorflow.source import recognise

        found = recognise(source) if isinstance(source, (str, os.PathLike)) else None
        assert found is not None
        return load(found)
