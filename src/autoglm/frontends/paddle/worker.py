"""Runs in the Paddle environment: one inference model to ONNX, and the names of its edge."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

MARK = "autoglm-answer: "


def main(arguments: list[str]) -> int:
    """Arguments: program, weights ("" = none), where the ONNX goes, opset."""
    model, params, made, opset = arguments
    try:
        answer = convert(model, params, made, int(opset))
    except Exception as error:  # Paddle and paddle2onnx raise anything
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        chosen = next((x for x in lines if "Error:" in x), lines[-1] if lines else "")
        answer = {"error": f"{type(error).__name__}: {chosen}"[:300]}
    print(MARK + json.dumps(answer), flush=True)
    return 0


def convert(model: str, params: str, made: str, opset: int) -> dict[str, Any]:
    """Write the ONNX; the names as Paddle has them, in its order."""
    import paddle
    import paddle2onnx
    from paddle import inference

    predictor = inference.create_predictor(_config(inference, model, params))
    names = {"inputs": predictor.get_input_names(), "outputs": predictor.get_output_names()}
    paddle2onnx.export(
        model, params, made, opset_version=opset, enable_onnx_checker=False, verbose=False
    )
    if not Path(made).is_file():
        return {"error": "paddle2onnx wrote no file"}
    versions = {"paddle": paddle.__version__, "paddle2onnx": paddle2onnx.__version__}
    return {**names, **versions}


def _config(inference: Any, model: str, params: str) -> Any:
    config = inference.Config(model, params)
    config.disable_glog_info()
    config.switch_ir_optim(False)
    return config


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
