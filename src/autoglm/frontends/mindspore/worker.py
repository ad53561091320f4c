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

    mindspore.set_context(device_target="CPU")
    mindspore.convert_model(str(source), str(output), "ONNX")
    made = onnx.load(str(output))
    return {
        "mindspore": mindspore.__version__,
        "opset": next(o.version for o in made.opset_import if o.domain in ("", "ai.onnx")),
        "inputs": [value.name for value in made.graph.input],
        "outputs": [value.name for value in made.graph.output],
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
