"""Write one partition as the engine wants it: lowered, optimised, weights packed and aligned."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoglm.backends.onnxruntime.align import align_weights
from autoglm.backends.onnxruntime.options import (
    EXACT,
    FOLDED,
    reason,
    require_engine,
    session_options,
)
from autoglm.backends.onnxruntime.probe import cpu_identity, version
from autoglm.backends.onnxruntime.session import create
from autoglm.backends.onnxruntime.typed import unreachable
from autoglm.catalog.precision import require_precision
from autoglm.errors import AutoGLMError, CompileError, ExecutionError
from autoglm.spec import Artifact, CompileOptions, TensorInfo

if TYPE_CHECKING:
    import onnx_ir as ir
    import onnxruntime as ort

# Below this there is nothing worth sharing between processes: kept as it is, good for any CPU.
_SHARE_BYTES = 1 << 20
_ENTRY = "model.onnx"
_PREPACK = {
    "session.optimized_model_external_initializers_file_name": "model.data",
    "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
    "session.save_external_prepacked_constant_initializers": "1",
}


def compile_model(model: ir.Model, options: CompileOptions, out: Path) -> Artifact:
    """Compile into `out`; CompileError with the engine's reason where it refuses the model."""
    from autoglm.backends.onnxruntime.capabilities import precisions
    from autoglm.rewrite.save import input_infos, output_infos, weight_bytes

    require_engine()
    require_precision("onnxruntime", precisions(), options)
    inputs, outputs = input_infos(model), output_infos(model)
    lone = unreachable((*inputs, *outputs))
    if lone is not None:
        raise CompileError(
            "onnxruntime cannot exchange {name!r} ({kind} of {dtype}) beside 4-bit, fp8 or bf16.",
            name=lone.name,
            kind=lone.kind,
            dtype=lone.dtype,
        )
    work = out / "work"
    work.mkdir(parents=True)
    try:
        lowered = _lower(model, options, work)
        share = options.optimize and weight_bytes(model) >= _SHARE_BYTES
        meta, engine = _finish(lowered, options, out, share=share)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Artifact(
        backend="onnxruntime",
        kind="onnx",
        entry=_ENTRY,
        toolkit=f"onnxruntime {version()}",
        inputs=inputs,
        outputs=_typed(outputs, engine),
        precision=options.precision,
        meta=meta,
    )


def _lower(model: ir.Model, options: CompileOptions, work: Path) -> Path:
    """The model as a file, in the precision asked for."""
    from autoglm.rewrite.save import save_onnx

    try:
        plain = save_onnx(model, work / _ENTRY, alignment=options.memory_alignment)
    except AutoGLMError:
        raise
    except Exception as error:  # the IR's writer names no base class for what it refuses
        raise CompileError(
            "The model cannot be written as ONNX: {cause}.", cause=reason(error)
        ) from error
    if options.precision == "fp32":
        return plain
    from autoglm.backends.onnxruntime.precision import lower

    return lower(plain, model, options, work)


def _finish(
    lowered: Path, options: CompileOptions, out: Path, *, share: bool
) -> tuple[dict[str, Any], ort.InferenceSession]:
    """Move or optimise the model into `out`, open it once, and say what `open` must know."""
    settings = {**_defaults(options), **options.settings}
    meta: dict[str, Any] = {"settings": settings, "threads": options.threads}
    if share:
        try:
            engine = _optimise(lowered, settings, out, options.memory_alignment)
            return {**meta, "optimize": False, "cpu": cpu_identity()}, engine
        except (ExecutionError, ValueError, OSError) as error:
            meta["note"] = f"weights are packed at every load: {reason(error)}"
            for path in (out / _ENTRY, out / "model.data"):
                path.unlink(missing_ok=True)
    for path in lowered.parent.glob(f"{lowered.stem}.*"):
        path.rename(out / f"model{path.suffix}")
    try:
        engine = create(out / _ENTRY, session_options(settings, optimize=options.optimize))
    except ExecutionError as error:
        raise CompileError(str(error)) from error
    return {**meta, "optimize": options.optimize}, engine


def _optimise(
    lowered: Path, settings: dict[str, str], out: Path, alignment: int
) -> ort.InferenceSession:
    # The engine packs weights for its kernels while it loads. Written beside the optimised graph
    # they are mapped, not copied, so a second process shares them.
    raw = session_options({**settings, **_PREPACK})
    raw.optimized_model_filepath = str(out / _ENTRY)
    create(lowered, raw)
    align_weights(out / _ENTRY, alignment)
    return create(out / _ENTRY, session_options(settings, optimize=False))


def _defaults(options: CompileOptions) -> dict[str, str]:
    # A model to be quantised was folded, and a second fusion would name its constants the same.
    return dict(FOLDED if options.precision.startswith("int8") else EXACT)


def _typed(outputs: tuple[TensorInfo, ...], engine: ort.InferenceSession) -> tuple[TensorInfo, ...]:
    """The outputs, with the dtypes that only the engine's own inference knows."""
    from autoglm.backends.onnxruntime.names import dtype_of

    found = {value.name: value.type for value in engine.get_outputs()}
    return tuple(
        info if info.dtype else replace(info, dtype=dtype_of(found[info.name])) for info in outputs
    )
