"""Convert in the toolchain environment, read the result, and say what was taken."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoglm.errors import (
    CompileError,
    ModelError,
    ModelSecurityError,
    UnsupportedOperatorError,
)
from autoglm.frontends import finish
from autoglm.frontends.tensorflow.source import Source, check

if TYPE_CHECKING:
    import onnx_ir as ir

WORKER = Path(__file__).with_name("worker.py")
OPSET = 18  # the newest that tf2onnx 1.17 writes
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "", "TF_ENABLE_ONEDNN_OPTS": "0"}


def load(source: Source) -> ir.Model:
    """The ONNX model, named and with shapes; layouts and values as TensorFlow has them."""
    from autoglm.toolchain.environment import require
    from autoglm.toolchain.worker import ask

    check(source)
    environment = require("tensorflow")
    with tempfile.TemporaryDirectory(prefix="autoglm-tensorflow-") as work:
        made, log = Path(work) / "model.onnx", Path(work) / "worker.log"
        try:
            facts = ask(
                environment,
                WORKER,
                *arguments(source, made),
                log=log,
                extra_env=_QUIET,
                cwd=Path(work),
            )
        except CompileError as error:
            raise _crashed(source, error) from error
        refuse(source, facts)
        model = _read(made, source)
    model.metadata_props["autoglm.frontend_note"] = note(source, facts)
    return finish(model)


def arguments(source: Source, made: Path) -> list[str]:
    """The worker's arguments."""
    given = [str(source.path.absolute()), str(made), "--kind", source.kind, "--opset", str(OPSET)]
    return [*given, "--signature", source.signature] if source.signature else given


def note(source: Source, facts: Mapping[str, Any]) -> str:
    """Which part of the model was taken, and by what."""
    tools = f"TensorFlow {facts['tensorflow']} and tf2onnx {facts['tf2onnx']}"
    taken = facts.get("signature", "")
    if not taken:
        return f"Converted by {tools}."
    others = [name for name in facts["signatures"] if name != taken]
    others = others if source.kind == "saved_model" else []
    choice = f"; `{source.path}#NAME` takes another: {', '.join(others)}" if others else ""
    return f"Signature {taken} was converted by {tools}{choice}."


def refuse(source: Source, facts: Mapping[str, Any]) -> None:
    """Raise what the worker found wrong."""
    reason = str(facts.get("reason", ""))[:300]
    kind = facts.get("error")
    if kind == "signature":
        raise ModelError(
            "{path} has no signature {wanted!r}; it has: {known}.",
            hint="Name one as {path}#NAME, or save the model again with a serving_default.",
            path=str(source.path),
            wanted=source.signature or "serving_default",
            known=", ".join(facts["signatures"]) or "none",
        )
    if kind == "unsafe":
        raise ModelSecurityError(
            "{path} would read or write files, or run code: {ops}.",
            hint="Export the model without these operators; it was not opened.",
            path=str(source.path),
            ops=", ".join(facts["ops"]),
        )
    if kind:
        raise ModelError(
            "TensorFlow or tf2onnx cannot convert {path}: {reason}.",
            hint="Check that TensorFlow itself opens it; if it does, save it as ONNX there.",
            path=str(source.path),
            reason=reason,
        )


def _crashed(source: Source, error: CompileError) -> ModelError:
    lines = str(error.facts.get("tail", "")).splitlines()
    return ModelError(
        "Converting {path} ended with {cause}: {line}.",
        hint="A damaged file does this; if TensorFlow opens it, save it again, or as ONNX.",
        path=str(source.path),
        cause=error.facts.get("cause", "no answer"),
        line=(lines[-1] if lines else "it printed nothing")[:300],
    )


def _read(made: Path, source: Source) -> ir.Model:
    import onnx
    import onnx_ir as ir
    from onnx_ir.passes.common import InlinePass

    from autoglm.frontends.tensorflow.operators import complete

    proto = onnx.load(str(made))
    left = complete(proto, OPSET)
    if left:
        raise UnsupportedOperatorError(
            "tf2onnx has no ONNX for these operators of {path}: {ops}.",
            hint="Replace them in the model, or cut it before them and save the rest.",
            path=str(source.path),
            ops=", ".join(left),
            rejected={op: ["tf2onnx has no ONNX for it"] for op in left},
        )
    model: ir.Model = ir.from_proto(proto)
    if model.functions:
        InlinePass()(model)
        model.functions.clear()
    return model
