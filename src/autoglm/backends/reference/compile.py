"""Write one partition for the reference evaluator, and refuse what that would compute wrongly."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm.backends.reference.session import evaluator
from autoglm.errors import CompileError, ConfigError
from autoglm.spec import Artifact, CompileOptions

if TYPE_CHECKING:
    import onnx_ir as ir

_ENTRY = "model.onnx"
_SEQUENCE_LENGTHS = 4  # the position of that input in LSTM, GRU and RNN
# Read in onnx 1.23's sources: these attributes are accepted and not looked at.
_IGNORED = {
    "LSTM": ("activations", "activation_alpha", "activation_beta", "clip", "input_forget"),
    "GRU": ("activations", "activation_alpha", "activation_beta", "clip"),
    "RNN": ("clip",),
}


def compile_model(model: ir.Model, options: CompileOptions, out: Path) -> Artifact:
    """Write the model; CompileError for an operator that is missing or answers wrongly."""
    from autoglm.rewrite.save import input_infos, output_infos, save_onnx

    if options.precision != "fp32":
        raise ConfigError(
            "The reference evaluator computes only what the model says; asked for {precision}.",
            hint="Ask for fp32.",
            precision=options.precision,
        )
    for node in model.graph.all_nodes():
        _refuse_wrong(node, model)
    try:
        path = save_onnx(model, out / _ENTRY, alignment=options.memory_alignment)
        evaluator(path)
    except CompileError:
        raise
    except Exception as error:  # the IR's writer names no base class for what it refuses
        raise CompileError("The model cannot be written as ONNX: {cause}.", cause=error) from error
    return Artifact(
        "reference",
        "onnx",
        _ENTRY,
        f"onnx {version('onnx')}",
        input_infos(model),
        output_infos(model),
        options.precision,
    )


def _refuse_wrong(node: ir.Node, model: ir.Model) -> None:
    from autoglm.rewrite.facts import node_name

    given = [i for i, value in enumerate(node.inputs) if value is not None]
    cause = ""
    if node.op_type in _IGNORED and _SEQUENCE_LENGTHS in given:
        cause = "sequence_lens"
    for name in _IGNORED.get(node.op_type, ()):
        cause = name if name in node.attributes else cause
    opset = node.version or model.opset_imports.get("", 1)
    if node.op_type == "BatchNormalization" and opset < 14:
        cause = _batch_normalization(node, opset) or cause
    if cause:
        raise CompileError(
            "The reference evaluator ignores {cause} of {op} {node!r} and would answer wrongly.",
            cause=cause,
            op=node.op_type,
            node=node_name(node),
        )


def _batch_normalization(node: ir.Node, opset: int) -> str:
    if opset < 7:
        return "is_test"
    if len(node.outputs) > 1:
        return "the running statistics"
    per_channel = node.attributes.get_int("spatial", 1)
    return "" if per_channel else "spatial=0"
