"""int8 through nncf: static with calibration data, or dynamic with int8 weights."""

from __future__ import annotations

import contextlib
import io
import logging
from typing import TYPE_CHECKING, Any

from autoglm.backends.openvino.engine import reason, without_telemetry
from autoglm.errors import CompileError
from autoglm.spec import CompileOptions, TensorInfo

if TYPE_CHECKING:
    import onnx_ir as ir
    import openvino as ov

# On MiniLM nncf's default, 0.95, is off by 0.16 to 0.22; 0.5 by 0.10 to 0.13 (12 sentences).
_SMOOTH = 0.5
# An embedding is looked up, not multiplied: int8 gains no time there, and costs accuracy.
_LOOKED_UP = ["Gather"]
_ATTENTION = frozenset(
    {"LayerNormalization", "Attention", "MultiHeadAttention", "RMSNormalization"}
)


def quantize(
    converted: ov.Model,
    model: ir.Model,
    inputs: tuple[TensorInfo, ...],
    options: CompileOptions,
) -> ov.Model:
    """The model in int8; CompileError where nncf fails."""
    nncf = _nncf()
    ignored = nncf.IgnoredScope(
        names=_kept(converted, model, options.keep_high), types=_LOOKED_UP, validate=False
    )
    try:
        # nncf draws its progress on stdout, which belongs to the caller's results.
        with contextlib.redirect_stdout(io.StringIO()):
            if options.precision == "int8":
                return _static(nncf, converted, model, inputs, options, ignored)
            mode = nncf.CompressWeightsMode.INT8_SYM
            return nncf.compress_weights(converted, mode=mode, ignored_scope=ignored)
    except Exception as error:  # nncf raises whatever its parts raise
        raise CompileError(
            "nncf cannot make this model {precision}: {cause}.",
            precision=options.precision,
            cause=reason(error),
        ) from error


def _nncf() -> Any:
    with without_telemetry():
        import nncf

    nncf.set_log_level(logging.CRITICAL)
    return nncf


def _static(
    nncf: Any,
    converted: ov.Model,
    model: ir.Model,
    inputs: tuple[TensorInfo, ...],
    options: CompileOptions,
    ignored: Any,
) -> ov.Model:
    transformer = any(node.op_type in _ATTENTION for node in model.graph.all_nodes())
    names = [info.name for info in inputs]
    feeds = [{name: feed[name] for name in names} for feed in options.calibration]
    return nncf.quantize(
        converted,
        nncf.Dataset(feeds),
        subset_size=len(feeds),
        model_type=nncf.ModelType.TRANSFORMER if transformer else None,
        target_device=nncf.TargetDevice.CPU,
        ignored_scope=ignored,
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=_SMOOTH)
        ),
    )


def _kept(converted: ov.Model, model: ir.Model, keep_high: frozenset[str]) -> list[str]:
    """OpenVINO's names of what came from these source nodes.

    It keeps a node's name, but a node that gives a graph output takes the output's name, and an
    operator that becomes several has them named below it.
    """
    from autoglm.rewrite.facts import sources

    names: set[str] = set()
    for node in model.graph.all_nodes():
        if keep_high & {node.name or "", *sources(node)}:
            names |= {node.name or "", *(v.name or "" for v in node.outputs)}
    names.discard("")
    below = tuple(f"{name}/" for name in names)
    found = [op.get_friendly_name() for op in converted.get_ordered_ops()]
    return [name for name in found if name in names or (below and name.startswith(below))]
