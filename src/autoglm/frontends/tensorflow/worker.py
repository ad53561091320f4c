"""Runs in the toolchain environment `tensorflow`, alone: a TensorFlow model to ONNX.

    python -I worker.py SOURCE OUTPUT --kind saved_model [--signature NAME] [--opset 18]

It prints one line of JSON: what was taken, or what was wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

MARK = "autoglm-answer: "
USUAL = "serving_default"
# They reach files, or run Python, when a graph is loaded or folded. A checkpoint's own SaveV2,
# RestoreV2 and MergeV2Checkpoints are in every SavedModel and are not among them.
UNSAFE = frozenset(
    {"EagerPyFunc", "MatchingFiles", "PyFunc", "PyFuncStateless", "ReadFile", "WriteFile"}
)


class Refused(Exception):
    """What is wrong with the model, as the answer says it."""

    def __init__(self, error: str, **facts: Any) -> None:
        super().__init__(error)
        self.facts = {"error": error, **facts}


def main(argv: list[str]) -> int:
    """Convert, and answer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--kind", choices=["saved_model", "keras", "tflite"], required=True)
    parser.add_argument("--signature", default="")
    parser.add_argument("--opset", type=int, default=18)
    options = parser.parse_args(argv)
    try:
        facts = convert(options)
    except Refused as refused:
        facts = refused.facts
    except Exception as error:  # whatever the two meet in a file is an answer, not a traceback
        facts = {"error": "failed", "reason": f"{type(error).__name__}: {first_line(error)}"}
    print(f"\n{MARK}{json.dumps(facts)}", flush=True)
    return 0


def first_line(error: Exception) -> str:
    """The first line of its text that says something."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next(filter(None, lines), "no reason given")[:400]


def convert(options: argparse.Namespace) -> dict[str, Any]:
    """Write the ONNX file, and say what is in it."""
    import onnx
    import tensorflow
    import tf2onnx

    facts: dict[str, Any] = {"tensorflow": tensorflow.__version__, "tf2onnx": tf2onnx.__version__}
    source = options.source
    with tempfile.TemporaryDirectory() as work:
        if options.kind == "keras":
            source = from_keras(source, Path(work) / "saved")
        flags = ["--tflite" if options.kind == "tflite" else "--saved-model", str(source)]
        if options.kind != "tflite":
            facts |= signature(source, options.signature)
            flags += ["--signature_def", facts["signature"]]
        run_tf2onnx([*flags, "--opset", str(options.opset), "--output", str(options.output)])
    made = onnx.load(str(options.output))
    facts["opset"] = next(o.version for o in made.opset_import if o.domain in ("", "ai.onnx"))
    facts["inputs"] = [value.name for value in made.graph.input]
    facts["outputs"] = [value.name for value in made.graph.output]
    return facts


def from_keras(path: Path, saved: Path) -> Path:
    """A Keras file as a SavedModel; code in it (Lambda layers) is refused by Keras."""
    import tensorflow as tf

    model = tf.keras.models.load_model(str(path), compile=False, safe_mode=True)
    model.export(str(saved), verbose=False)
    return saved


def signature(folder: Path, wanted: str) -> dict[str, Any]:
    """The signature that is taken, and all there are; the graph is read, not loaded."""
    graph = read_graph(folder)
    used = {node.op for node in graph.graph_def.node}
    used |= {n.op for f in graph.graph_def.library.function for n in f.node_def}
    if used & UNSAFE:
        raise Refused("unsafe", ops=sorted(used & UNSAFE))
    known = sorted(name for name in graph.signature_def if not name.startswith("__"))
    if not wanted:
        wanted = USUAL if USUAL in known or len(known) != 1 else known[0]
    if wanted not in known:
        raise Refused("signature", signatures=known)
    return {"signature": wanted, "signatures": known}


def read_graph(folder: Path) -> Any:
    """The part of a SavedModel that serves."""
    from tensorflow.python.saved_model import loader_impl

    saved = loader_impl.parse_saved_model(str(folder))
    serving = [g for g in saved.meta_graphs if "serve" in g.meta_info_def.tags]
    if not serving:
        tags = sorted({t for g in saved.meta_graphs for t in g.meta_info_def.tags})
        raise Refused("failed", reason=f"no part of it is tagged `serve`; tags: {tags}")
    return serving[0]


def run_tf2onnx(flags: list[str]) -> None:
    """tf2onnx's own command, less its optimiser that moves transposes: autoglm's rules do that,
    each with its proof.
    """
    from tf2onnx import convert as command
    from tf2onnx import optimizer

    optimizer._optimizers.pop("optimize_transpose")
    sys.argv = ["tf2onnx", *flags]
    try:
        command.main()
    except SystemExit as error:
        raise Refused("failed", reason=f"tf2onnx ended with status {error.code}") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
