"""Convert one partition to OpenVINO's files, and refuse what it would compute wrongly."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm.backends.openvino.engine import configuration, core, load, reason
from autoglm.backends.openvino.probe import version
from autoglm.catalog.precision import require_precision
from autoglm.errors import CompileError, ConfigError
from autoglm.spec import Artifact, CompileOptions, TensorInfo

if TYPE_CHECKING:
    import onnx_ir as ir
    import openvino as ov

_ENTRY = "model.xml"
# The CPU plug-in computes these in float32 or int32 and says nothing (measured with 2026.4).
_NARROWED = {"float64": "float32", "uint64": "int32", "uint32": "int32"}
TYPES = {
    "f32": "float32",
    "f16": "float16",
    "bf16": "bfloat16",
    "f8e4m3": "float8_e4m3fn",
    "f8e5m2": "float8_e5m2",
    "f8e8m0": "float8_e8m0fnu",
    "f4e2m1": "float4_e2m1fn",
    "i4": "int4",
    "i8": "int8",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
    "u2": "uint2",
    "u4": "uint4",
    "u8": "uint8",
    "u16": "uint16",
    "boolean": "bool",
}


def compile_model(model: ir.Model, options: CompileOptions, out: Path) -> Artifact:
    """Compile into `out`; CompileError with the reason where OpenVINO does not take the model."""
    from autoglm.backends.openvino.capabilities import precisions
    from autoglm.rewrite.save import input_infos, output_infos

    core()
    require_precision("openvino", precisions(), options)
    if options.keep_high and options.precision in ("bf16", "fp16"):
        raise ConfigError(
            "OpenVINO computes a whole model in {precision}; it cannot keep single nodes in fp32.",
            hint="Leave those nodes to another backend, or ask for fp32 or int8.",
            precision=options.precision,
        )
    _refuse_narrowed(model)
    inputs, outputs = input_infos(model), output_infos(model)
    work = out / "work"
    work.mkdir(parents=True)
    try:
        converted = _convert(model, options, work)
        inputs = _matched(converted.inputs, inputs)
        outputs = _matched(converted.outputs, outputs)
        lowered = _lower(converted, model, inputs, options)
        device = options.device or "CPU"
        # What an int8 kernel leaves is bf16 only on the CPU.
        beside = options.beside_int8 if device == "CPU" else "fp32"
        told = configuration(
            options.precision, options.settings, beside_int8=beside, threads=options.threads
        )
        load(lowered, device, told)
        _save(lowered, out / _ENTRY)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Artifact(
        backend="openvino",
        kind="openvino-ir",
        entry=_ENTRY,
        toolkit=f"openvino {version()}",
        inputs=inputs,
        outputs=outputs,
        precision=options.precision,
        meta={
            "settings": dict(options.settings),
            "threads": options.threads,
            "device": device,
            "beside_int8": beside,
            "renamed": _renamed(model),
        },
    )


def _renamed(model: ir.Model) -> dict[str, str]:
    """OpenVINO calls a node that gives a graph output by the output's name."""
    from autoglm.rewrite.facts import node_name

    made = [(value, value.producer()) for value in model.graph.outputs]
    return {v.name or "": node_name(n) for v, n in made if n is not None}


def _refuse_narrowed(model: ir.Model) -> None:
    from autoglm.rewrite.facts import dtype_name, node_name, op_name

    for node in model.graph.all_nodes():
        read = [v for v in node.inputs if v is not None and v.const_value is None]
        for value in (*node.outputs, *read):
            dtype = dtype_name(value)
            if dtype in _NARROWED and value.const_value is None and node.op_type != "Constant":
                raise CompileError(
                    "OpenVINO's CPU plug-in computes {dtype} in {narrow}: node {node!r} ({op}).",
                    dtype=dtype,
                    narrow=_NARROWED[dtype],
                    node=node_name(node),
                    op=op_name(node),
                )


def _convert(model: ir.Model, options: CompileOptions, work: Path) -> ov.Model:
    from autoglm.rewrite.save import save_onnx

    try:
        path = save_onnx(model, work / "model.onnx", alignment=options.memory_alignment)
        return core().read_model(str(path))
    except Exception as error:  # the engine raises bare RuntimeError for everything
        raise CompileError(
            "OpenVINO cannot convert the model: {cause}.", cause=reason(error)
        ) from error


def _matched(ports: Sequence[ov.Output], infos: tuple[TensorInfo, ...]) -> tuple[TensorInfo, ...]:
    """Our names and shapes, once the engine's ports are seen to be the same, in order."""
    if len(ports) != len(infos):
        raise CompileError(
            "OpenVINO's model has {found} values at its edge; the ONNX model has {expected}.",
            found=len(ports),
            expected=len(infos),
        )
    return tuple(_same(port, info) for port, info in zip(ports, infos, strict=True))


def _same(port: ov.Output, info: TensorInfo) -> TensorInfo:
    found = TYPES.get(port.get_element_type().get_type_name(), "")
    names = port.get_names()
    if not found:
        raise CompileError(
            "{name!r} is of type {found}, which cannot be exchanged with OpenVINO.",
            name=info.name,
            found=port.get_element_type().get_type_name(),
        )
    fits = info.kind == "tensor" and info.dtype in ("", found)
    if not fits or (names and info.name not in names):
        raise CompileError(
            "OpenVINO makes {kind} {name!r} ({dtype}) into {names} ({found}).",
            kind=info.kind,
            name=info.name,
            dtype=info.dtype or "unknown",
            names=", ".join(sorted(names)) or "a value without a name",
            found=found,
        )
    if not _agrees(port.get_partial_shape(), info):
        raise CompileError(
            "OpenVINO would give {name!r} the shape {found}; the model declares {expected}.",
            name=info.name,
            found=str(port.get_partial_shape()),
            expected=list(info.shape or ()),
        )
    return TensorInfo(info.name, found, info.shape)


def _agrees(found: ov.PartialShape, info: TensorInfo) -> bool:
    """Whether the engine's inference leaves room for the declared shape."""
    if info.shape is None or found.rank.is_dynamic:
        return True
    if len(found) != len(info.shape):
        return False
    pairs = zip(found, info.shape, strict=True)
    return all(not isinstance(d, int) or f.is_dynamic or f.get_length() == d for f, d in pairs)


def _lower(
    converted: ov.Model, model: ir.Model, inputs: tuple[TensorInfo, ...], options: CompileOptions
) -> ov.Model:
    if not options.precision.startswith("int8"):
        return converted
    from autoglm.backends.openvino.quantize import quantize

    return quantize(converted, model, inputs, options)


def _save(model: ov.Model, path: Path) -> None:
    import openvino as ov

    try:
        ov.save_model(model, str(path), compress_to_fp16=False)
    except RuntimeError as error:
        raise CompileError(
            "OpenVINO cannot write the model: {cause}.", cause=reason(error)
        ) from error
