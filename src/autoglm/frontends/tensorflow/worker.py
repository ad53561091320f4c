"""Runs in the toolchain environment `tensorflow`, alone: a TensorFlow model to ONNX.

    python -I worker.py SOURCE OUTPUT --kind saved_model [--signature NAME] [--opset 18]

It prints one line of JSON: what was taken, or what was wrong.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

MARK = "autoglm-answer: "
USUAL = "serving_default"
# They reach files or the network, or run Python, when a graph is loaded or folded: a deny-list, of
# TensorFlow 2.21's operators.
UNSAFE = re.compile(
    r"(Eager)?PyFunc(Stateless)?|ReadFile|WriteFile|MatchingFiles|DumpTensor|RecordInput"
    r"|Save|SaveSlices|Restore|RestoreSlice|DTensorRestoreV2|DistributedSave"
    r"|CreateSummary(File|Db)Writer|FileSystemSetConfiguration|Rpc\w+|Debug(Identity|N)\w*"
    r"|InitializeTableFromTextFile(V2)?|LoadAndRemapMatrix|GenerateVocabRemapping|Skipgram"
    r"|(TextLine|TFRecord|FixedLengthRecord|WholeFile|LMDB)Reader(V2)?|Snapshot\w*"
    r"|(Experimental)?((Save|Load|Snapshot|Cache|TextLine|TFRecord|FixedLengthRecord|CSV|LMDB|Sql"
    r"|MatchingFiles)Dataset(V2)?|DatasetToTFRecord|ListSnapshotChunksDataset|DataService\w+"
    r"|RegisterDataset(V2)?)"
)
# In every SavedModel, as its saver's own.
SAVE, RESTORE = frozenset({"SaveV2", "MergeV2Checkpoints"}), frozenset({"RestoreV2"})
_STARTUP = ("saved_model_main_op", "legacy_init_op")


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
    refused = unsafe(graph)
    if refused:
        raise Refused("unsafe", ops=sorted(refused))
    known = sorted(name for name in graph.signature_def if not name.startswith("__"))
    if not wanted:
        wanted = USUAL if USUAL in known or len(known) != 1 else known[0]
    if wanted not in known:
        raise Refused("signature", signatures=known)
    return {"signature": wanted, "signatures": known}


def unsafe(graph: Any) -> set[str]:
    """The operators that a model of somebody else's is refused for."""
    saver = graph.saver_def
    restoring = reach(graph, [saver.restore_op_name])
    starts = [o.name for s in graph.signature_def.values() for o in s.outputs.values()]
    for key in _STARTUP:
        starts += graph.collection_def[key].node_list.value if key in graph.collection_def else []
    serving = reach(graph, starts, graph.object_graph_def.concrete_functions)
    saving = reach(graph, [saver.save_tensor_name]) - restoring - serving
    restoring -= serving
    found = set()
    for place, node in places(graph):
        named = UNSAFE.fullmatch(node.op) is not None
        written = node.op == "PrintV2" and node.attr["output_stream"].s.startswith(b"file:")
        misplaced = (node.op in SAVE and place not in saving) or (
            node.op in RESTORE and place not in restoring
        )
        if named or written or misplaced:
            found.add(node.op)
    return found


def places(graph: Any) -> Iterator[tuple[tuple[str, str], Any]]:
    """Every node with where it is: by its name, or by the function that holds it."""
    for node in graph.graph_def.node:
        yield ("node", node.name), node
    for function in graph.graph_def.library.function:
        for node in function.node_def:
            yield ("function", function.signature.name), node


def reach(graph: Any, starts: Iterable[str], functions: Iterable[str] = ()) -> set[tuple[str, str]]:
    """The places that run for these tensors and functions."""
    library = graph.graph_def.library.function
    bodies: dict[tuple[str, str], Any] = {("node", n.name): [n] for n in graph.graph_def.node}
    bodies |= {("function", f.signature.name): f.node_def for f in library}
    todo = [("node", plain(name)) for name in starts] + [("function", n) for n in functions]
    found: set[tuple[str, str]] = set()
    while todo:
        place = todo.pop()
        if place in found or place not in bodies:
            continue
        found.add(place)
        for node in bodies[place]:
            todo += [("node", plain(i)) for i in node.input] if place[0] == "node" else []
            for value in node.attr.values():
                called = [value.func, *value.list.func]
                todo += [("function", function.name) for function in called if function.name]
            todo.append(("function", node.op))  # an old graph calls a function by its name
    return found


def plain(name: str) -> str:
    """The node of a tensor or a control input."""
    return name.removeprefix("^").partition(":")[0]


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
