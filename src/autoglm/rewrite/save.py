"""Write a model as an ONNX file with aligned weights beside it, which engines can map."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import onnx_ir as ir

from autoglm.errors import BundleError
from autoglm.rewrite.facts import value_facts
from autoglm.spec import Artifact, TensorInfo

T = TypeVar("T")

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


def load_artifact(artifact: Artifact, folder: Path, build: Callable[[ir.Model], T]) -> T:
    """What `build` makes of a model that `save_onnx` wrote as the artifact's entry; BundleError for
    a file that is no such model.
    """
    path = folder / artifact.entry
    if not path.is_file():
        raise BundleError(
            "The {backend} artifact {path} is missing.",
            backend=artifact.backend,
            path=artifact.entry,
        )
    try:
        model = ir.load(path)
        _require_edges(model, artifact)
        return build(model)
    except MemoryError:
        raise
    except Exception as error:  # protobuf, onnx_ir and kernels raise anything on a crafted file
        raise BundleError(
            "{path} does not load: {cause}.",
            hint="The file is not what compiling wrote: compile the model again.",
            path=artifact.entry,
            cause=f"{type(error).__name__}: {error}"[:300].rstrip("."),
        ) from error


def _require_edges(model: ir.Model, artifact: Artifact) -> None:
    for found, named in (
        (input_infos(model), artifact.inputs),
        (output_infos(model), artifact.outputs),
    ):
        names = [[info.name for info in infos] for infos in (found, named)]
        if names[0] != names[1]:
            raise ValueError(f"it takes or gives {names[0]}, the manifest says {names[1]}")


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
