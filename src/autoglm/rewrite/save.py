"""Write a model as an ONNX file with aligned weights beside it, which engines can map."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import onnx_ir as ir

from autoglm.rewrite.facts import value_facts
from autoglm.spec import TensorInfo

PAGE = 4096
INLINE_BYTES = (
    1024  # smaller tensors stay in the graph file: an aligned page each would only waste space
)


def save_onnx(model: ir.Model, path: Path, *, alignment: int = PAGE) -> Path:
    """Write `path` and `<stem>.data`; external tensors start on a page, or `alignment` if larger.

    The location is relative, so the folder can be moved. The model is unchanged afterwards.
    """
    ir.save(
        model,
        path,
        external_data=f"{path.stem}.data",
        size_threshold_bytes=INLINE_BYTES - 1,
        alignment=max(PAGE, alignment),
        align_threshold=0,
    )
    return path


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all initialisers, bodies of If / Loop / Scan included."""
    values = [v for graph in model.graphs() for v in graph.initializers.values()]
    tensors = [v.const_value for v in values if v.const_value is not None]
    return sum(t.nbytes for t in tensors if t.dtype is not ir.DataType.STRING)


def input_infos(model: ir.Model) -> tuple[TensorInfo, ...]:
    """What the model must be fed: its inputs without those that an initialiser already gives."""
    return _infos(v for v in model.graph.inputs if v.name not in model.graph.initializers)


def output_infos(model: ir.Model) -> tuple[TensorInfo, ...]:
    """What the model gives."""
    return _infos(model.graph.outputs)


def _infos(values: Iterable[ir.Value]) -> tuple[TensorInfo, ...]:
    facts = ((v.name or "", value_facts(v)) for v in values)
    return tuple(TensorInfo(name, f.dtype, f.shape, f.kind) for name, f in facts)
