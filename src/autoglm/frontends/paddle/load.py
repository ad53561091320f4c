"""Convert in the toolchain environment, read the result, and note where it came from."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoglm.errors import CompileError, ModelError
from autoglm.frontends import finish
from autoglm.frontends.paddle.source import Source, check

if TYPE_CHECKING:
    import onnx_ir as ir

_WORKER = Path(__file__).with_name("worker.py")
_OPSET = 17
# The kunlun backend reads it and takes the files themselves.
_KEY = "autoglm.paddle"


def load(source: Source) -> ir.Model:
    """The ONNX model, named and with shapes."""
    from autoglm.toolchain.environment import require
    from autoglm.toolchain.worker import ask

    weighted = check(source)
    environment = require("paddle")
    params = str(source.params.absolute()) if weighted else ""
    with tempfile.TemporaryDirectory(prefix="autoglm-paddle-") as work:
        made, log = Path(work) / "model.onnx", Path(work) / "worker.log"
        arguments = (str(source.model.absolute()), params, str(made), str(_OPSET))
        try:
            facts = ask(environment, _WORKER, *arguments, log=log)
        except CompileError as error:
            raise _crashed(source, error) from error
        if "error" in facts:
            raise _failed(source, str(facts["error"]))
        model = _read(made)
    _remember(model, source, weighted, facts)
    return finish(model)


def _read(made: Path) -> ir.Model:
    import onnx
    import onnx_ir as ir

    model: ir.Model = ir.from_proto(onnx.load(str(made)))
    return model


def _remember(model: ir.Model, source: Source, weighted: bool, facts: Mapping[str, Any]) -> None:
    """Names as Paddle has them, and the files with their digests."""
    edges = ((model.graph.inputs, facts["inputs"]), (model.graph.outputs, facts["outputs"]))
    if any(len(values) != len(names) for values, names in edges):
        return  # paddle2onnx dropped an input that nothing reads: the files are not this model
    files = [source.model, *([source.params] if weighted else [])]
    model.metadata_props[_KEY] = json.dumps({
        "model": str(source.model.absolute()),
        "params": str(source.params.absolute()) if weighted else "",
        "sha256": {path.name: _sha256(path) for path in files},
        "inputs": [v.name for v in model.graph.inputs],
        "outputs": [v.name for v in model.graph.outputs],
        "feeds": facts["inputs"],
    })  # fmt: skip
    model.metadata_props["autoglm.frontend_note"] = (
        f"Converted by paddle2onnx {facts['paddle2onnx']} with Paddle {facts['paddle']}."
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _failed(source: Source, reason: str) -> ModelError:
    return ModelError(
        "Paddle or paddle2onnx cannot convert {path}: {reason}.",
        hint="Check that Paddle itself opens it, and that both files are of one model.",
        path=str(source.model),
        reason=reason,
    )


def _crashed(source: Source, error: CompileError) -> ModelError:
    lines = str(error.facts.get("tail", "")).splitlines()
    return ModelError(
        "Converting {path} ended with {cause}: {line}.",
        hint="A damaged file does this; if Paddle opens it, save it again, or as ONNX.",
        path=str(source.model),
        cause=error.facts.get("cause", "no answer"),
        line=(lines[-1] if lines else "it printed nothing")[:300],
    )
