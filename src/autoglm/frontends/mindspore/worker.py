"""Runs in the toolchain environment `mindspore`, alone: a MindIR file to ONNX.

    python -I worker.py SOURCE OUTPUT

It prints one line of JSON: what was written, or what was wrong.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

MARK = "autoglm-answer: "


def main(argv: list[str]) -> int:
    """Convert, and answer."""
    source, output = map(Path, argv)
    try:
        facts = convert(source, output)
    except Exception as error:  # whatever MindSpore meets in a file is an answer
        facts = {"error": f"{type(error).__name__}: {first_line(error)}"}
    print(f"\n{MARK}{json.dumps(facts)}", flush=True)
    return 0


def first_line(error: Exception) -> str:
    """The first line of its text that says something."""
    lines = [line.strip(" -\t") for line in str(error).splitlines()]
    return next(filter(None, lines), "no reason given")[:400]


def convert(source: Path, output: Path) -> dict[str, Any]:
    """Write the ONNX file, and say what is in it."""
    import mindspore
    import onnx
    from mindspore import nn

    # A graph that has already run in the other mode cannot be exported (2.10.0).
    mindspore.set_context(mode=mindspore.GRAPH_MODE, device_target="CPU")
    net = nn.GraphCell(mindspore.load(str(source)))
    given, made = edges(source)
    mindspore.onnx.export(
        net,
        *[example(value) for value in given],
        file_name=str(output),
        input_names=short([value.name for value in given]),
        output_names=[f"output_{index}" for index in range(len(made))],
    )
    opsets = onnx.load(str(output)).opset_import
    return {
        "mindspore": mindspore.__version__,
        "opset": next(o.version for o in opsets if o.domain in ("", "ai.onnx")),
    }


def edges(source: Path) -> tuple[list[Any], list[Any]]:
    """The inputs and outputs that the file declares; weights are not among them."""
    from mindspore.train.mind_ir_pb2 import ModelProto

    proto = ModelProto()
    proto.ParseFromString(source.read_bytes())
    return list(proto.graph.input), list(proto.graph.output)


def short(names: list[str]) -> list[str]:
    """Names without the graph's own in front, where that leaves them different."""
    last = [name.rpartition(":")[2] for name in names]
    return last if len(set(last)) == len(names) else names


def example(value: Any) -> Any:
    """Zeros of the input's shape and dtype, which is all that an export looks at."""
    import mindspore
    import numpy as np

    (tensor,) = value.tensor
    open_ones = [dim for dim in tensor.dims if dim < 1]
    if open_ones:
        raise ValueError(f"input {value.name} has open dimensions: {list(tensor.dims)}")
    kind = tensor.DataType.Name(tensor.data_type).lower()
    names = {"float": "float32", "double": "float64"}
    return mindspore.Tensor(np.zeros(tuple(tensor.dims), names.get(kind, kind)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
