"""Convert in the toolchain environment, read the result, and say how."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoglm.errors import CompileError, FileMissingError, ModelError
from autoglm.frontends import finish
from autoglm.frontends.opset import raise_opset

if TYPE_CHECKING:
    import onnx_ir as ir

WORKER = Path(__file__).with_name("worker.py")
_QUIET = {"GLOG_v": "3"}
# What always works: the network itself, exported where its Python source is.
_BY_HAND = (
    "Export it where the network's source is: "
    "mindspore.onnx.export(net, *inputs, file_name='model.onnx'), then give that."
)


def load(path: Path) -> ir.Model:
    """The ONNX model, named and with shapes."""
    from autoglm.toolchain.environment import require
    from autoglm.toolchain.worker import ask

    check(path)
    environment = require("mindspore")
    with tempfile.TemporaryDirectory(prefix="autoglm-mindspore-") as work:
        made, log = Path(work) / "model.onnx", Path(work) / "worker.log"
        arguments = [str(path.absolute()), str(made)]
        try:
            facts = ask(environment, WORKER, *arguments, log=log, extra_env=_QUIET, cwd=Path(work))
        except CompileError as error:
            raise _refused(path, _last(error)) from error
        if "error" in facts:
            raise _refused(path, facts["error"])
        model = _read(made)
    model.metadata_props["autoglm.frontend_note"] = note(facts)
    plain_pads(model)
    return finish(raise_opset(finish(model)))


def check(path: Path) -> None:
    """Refuse, before MindSpore starts, what is missing or cannot be a MindIR file."""
    if not path.is_file():
        raise FileMissingError("There is no {path}.", path=str(path))
    with path.open("rb") as stream:
        head = stream.read(2)
    # A protobuf message whose first field, 1, is a text: the IR version (mind_ir.proto).
    if len(head) < 2 or head[0] != 0x0A:
        raise ModelError(
            "{path} is no MindIR file, or an encrypted one: it begins with {found}.",
            hint=_BY_HAND,
            path=str(path),
            found=head.hex(" ") or "nothing",
        )


def note(facts: Mapping[str, Any]) -> str:
    """By what it was converted."""
    return f"Exported to ONNX opset {facts['opset']} by MindSpore {facts['mindspore']}."


def plain_pads(model: ir.Model) -> None:
    """auto_pad=VALID, which MindSpore writes everywhere, as the pads of 0 that it stands for."""
    for node in model.graph:
        rounds_up = node.attributes.get_int("ceil_mode", 0)
        if node.attributes.get_string("auto_pad", "") == "VALID" and not rounds_up:
            del node.attributes["auto_pad"]


def _refused(path: Path, reason: str) -> ModelError:
    return ModelError(
        "MindSpore cannot export {path} to ONNX: {reason}.",
        hint=_BY_HAND,
        path=str(path),
        reason=reason[:300],
    )


def _last(error: CompileError) -> str:
    lines = str(error.facts.get("tail", "")).splitlines()
    return lines[-1] if lines else str(error.facts.get("cause", "it ended without a word"))


def _read(made: Path) -> ir.Model:
    import onnx
    import onnx_ir as ir

    model: ir.Model = ir.from_proto(onnx.load(str(made)))
    return model
