"""Paddle Inference: one predictor per opened model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import paddle
from paddle import inference

from .wire import Blob

_L3_BYTES = 16 << 20  # of the chip's cache, as Paddle's own default


def xpu_count() -> int:
    """Kunlun chips that this Paddle sees; 0 where its wheel was built without them."""
    return int(paddle.device.xpu.device_count()) if paddle.is_compiled_with_xpu() else 0


class Predictor:
    """One opened model."""

    def __init__(self, model: str, params: str, options: Mapping[str, Any]) -> None:
        self._predictor = inference.create_predictor(_config(model, params, options))
        self._outputs = self._predictor.get_output_names()

    def run(self, blobs: Sequence[Blob]) -> list[Blob]:
        """Arrays by input name in, arrays in the order of the outputs out."""
        for name, dtype, shape, data in blobs:
            array = np.frombuffer(data, np.dtype(dtype)).reshape(shape)
            self._predictor.get_input_handle(name).copy_from_cpu(array)
        self._predictor.run()
        handles = [self._predictor.get_output_handle(name) for name in self._outputs]
        return [_blob(name, h) for name, h in zip(self._outputs, handles, strict=True)]


def _config(model: str, params: str, options: Mapping[str, Any]) -> Any:
    config = inference.Config(model, params)
    config.disable_glog_info()
    config.switch_ir_optim(bool(options["optimize"]))
    family, _, number = options["device"].partition(":")
    if family == "xpu":
        config.enable_xpu(_L3_BYTES)
        config.set_xpu_device_id(int(number))
    else:
        # With oneDNN, Paddle 3.3.1 answers wrongly: by 28 % on a decoder block.
        config.disable_mkldnn()
        config.set_cpu_math_library_num_threads(int(options["threads"]))
    return config


def _blob(name: str, handle: Any) -> Blob:
    array = np.ascontiguousarray(handle.copy_to_cpu())
    return name, str(array.dtype), tuple(handle.shape()), array.tobytes()
