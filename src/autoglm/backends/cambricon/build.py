"""The child process: parse, configure, calibrate and build with MagicMind's Python API."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def main(path: str) -> int:
    """Do what the order file says; 1 and a line on stderr where MagicMind refuses."""
    order = json.loads(Path(path).read_text("utf-8"))
    try:
        build(order)
    except (RuntimeError, ImportError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def build(order: Mapping[str, Any]) -> None:
    """Build the model; RuntimeError names the call that failed and MagicMind's status."""
    import magicmind.python.runtime as mm
    from magicmind.python.runtime.parser import Parser

    network = mm.Network()
    _ok(Parser(mm.ModelKind.kOnnx).parse(network, order["model"]), "Parser.parse")
    config = mm.BuilderConfig()
    _ok(config.parse_from_string(json.dumps(order["config"])), "BuilderConfig.parse_from_string")
    if order["calibration"]:
        _calibrate(mm, network, config, order)
    model = mm.Builder().build_model("autoglm", network, config)
    if model is None:
        raise RuntimeError("Builder.build_model returned no model")
    _ok(model.serialize_to_file(order["output"]), "Model.serialize_to_file")


def _calibrate(mm: Any, network: Any, config: Any, order: Mapping[str, Any]) -> None:
    data = [_source(mm, samples) for samples in _by_input(order["calibration"])]
    calibrator = mm.Calibrator(data)
    algorithm = {
        "linear": mm.QuantizationAlgorithm.LINEAR_ALGORITHM,
        "eqnm": mm.QuantizationAlgorithm.EQNM_ALGORITHM,
    }[order["algorithm"]]
    _ok(calibrator.set_quantization_algorithm(algorithm), "Calibrator.set_quantization_algorithm")
    with mm.System() as system:  # calibration runs on a device
        if system.device_count() < 1:
            raise RuntimeError("int8 is calibrated on an MLU, and none is here")
        device = mm.Device()
        device.id = 0
        _ok(device.active(), "Device.active")
        _ok(calibrator.calibrate(network, config), "Calibrator.calibrate")


def _by_input(path: str) -> list[list[Any]]:
    import numpy as np

    with np.load(path) as file:
        keys = sorted((tuple(map(int, k.split("."))), k) for k in file.files)
        groups: dict[int, list[Any]] = {}
        for (index, _), key in keys:
            groups.setdefault(index, []).append(file[key])
    return [groups[i] for i in sorted(groups)]


def _source(mm: Any, samples: list[Any]) -> Any:
    from magicmind.python.common.types import get_datatype_by_numpy

    class Samples(mm.CalibDataInterface):  # type: ignore[misc]
        """One input's samples, one at a time."""

        def __init__(self) -> None:
            super().__init__()
            self._next = 0

        def next(self) -> Any:
            if self._next >= len(samples):
                return mm.Status(mm.Code.OUT_OF_RANGE, "no more data")
            self._next += 1
            return mm.Status()

        def get_sample(self) -> Any:
            return samples[self._next - 1]

        def get_shape(self) -> Any:
            return mm.Dims(self.get_sample().shape)

        def get_data_type(self) -> Any:
            return get_datatype_by_numpy(self.get_sample().dtype)

        def reset(self) -> Any:
            self._next = 0
            return mm.Status()

    return Samples()


def _ok(status: Any, call: str) -> None:
    if not status.ok():
        raise RuntimeError(f"{call} failed: {status}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
