"""ATC's command line from our options: pure functions, every value checked before ATC runs.

Flags, values and which exclude each other: cann/ge @ ffdcbc9f7496, api/atc/atc_flags.cc and
docs/zh/user_guides/atc_tools/CLI_options.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from autoglm.errors import ConfigError
from autoglm.spec import CompileOptions, TensorInfo

_BOOL, _BIT = ("true", "false"), ("0", "1")
_IMPL = ("high_precision", "high_performance")
_TYPES = (
    *("FP32", "FP16", "UINT8", "INT8", "UINT16", "INT16", "UINT32", "INT32"),
    *("UINT64", "INT64", "DOUBLE", "HIF8", "FP8E5M2", "FP8E4M3FN"),
)
PRECISION = {"fp32": "origin", "fp16": "fp16", "bf16": "mixed_bfloat16"}
# What --mode=0 takes for an ONNX model: the allowed values, or () for a text or a file.
FLAGS: Mapping[str, tuple[str, ...]] = {
    "input_shape": (),
    "input_format": ("NCHW", "NCDHW", "ND"),
    "dynamic_batch_size": (),
    "dynamic_image_size": (),
    "dynamic_dims": (),
    "precision_mode_v2": (
        *("fp16", "origin", "cube_fp16in_fp32out"),
        *("mixed_float16", "mixed_bfloat16", "mixed_hif8"),
    ),
    "precision_mode": (
        *("force_fp32", "force_fp16", "allow_fp32_to_fp16", "must_keep_origin_dtype"),
        *("allow_mix_precision", "allow_mix_precision_fp16", "allow_mix_precision_bf16"),
        *("allow_fp32_to_bf16", "cube_fp16in_fp32out"),
    ),
    "op_select_implmode": (*_IMPL, *(f"{mode}_for_all" for mode in _IMPL)),
    "optypelist_for_implmode": (),
    "op_precision_mode": (),
    "modify_mixlist": (),
    "keep_dtype": (),
    "customize_dtypes": (),
    "allow_hf32": _BOOL,
    "insert_op_conf": (),
    "input_fp16_nodes": (),
    "output_type": _TYPES,
    "out_nodes": (),
    "is_input_adjust_hw_layout": _BOOL,
    "is_output_adjust_hw_layout": _BOOL,
    "log": ("debug", "info", "warning", "error", "null"),
    "check_report": (),
    "debug_dir": (),
    "op_debug_level": ("0", "1", "2"),
    "op_debug_config": (),
    "op_name_map": (),
    "core_type": ("AiCore", "VectorCore"),
    "aicore_num": (),
    "virtual_type": _BIT,
    "host_env_os": (),
    "host_env_cpu": (),
    "disable_reuse_memory": _BIT,
    "buffer_optimize": ("l1_optimize", "l2_optimize", "off_optimize"),
    "fusion_switch_file": (),
    "optimization_switch": (),
    "enable_small_channel": _BIT,
    "enable_attr_compression": _BOOL,
    "compression_optimize_conf": (),
    "sparsity": _BIT,
    "enable_single_stream": _BOOL,
    "ac_parallel_enable": _BIT,
    "tiling_schedule_optimize": _BIT,
    "status_check": _BIT,
    "op_compiler_cache_dir": (),
    "op_compiler_cache_mode": ("enable", "force", "disable"),
    "mdl_bank_path": (),
    "op_bank_path": (),
    "shape_generalized_build_mode": ("shape_generalized", "shape_precise"),
    "atomic_clean_policy": _BIT,
    "external_weight": ("0", "1", "2"),
    "deterministic": _BIT,
    "deterministic_level": ("0", "1", "2", "3"),
    "quant_dumpable": _BIT,
    "jit_compile": ("0", "1", "2"),
    "oo_level": ("O1", "O3"),
    "oo_constant_folding": _BOOL,
    "oo_dead_code_elimination": _BOOL,
    "is_weight_clip": _BIT,
    "topo_sorting_mode": ("0", "1", "2", "3"),
    "export_compile_stat": ("0", "1", "2"),
    "static_model_ops_lower_limit": (),
    "multi_stream_parallel_mode": (),
    "h2d_overlapped_with_compute": (),
    "cluster_config": (),
    "hccl_sub_comm_config": (),
    "raw_ge_options": (),
}
GEARS = ("dynamic_batch_size", "dynamic_image_size", "dynamic_dims")
_PAIRS = (
    ("precision_mode", "precision_mode_v2"),
    ("dynamic_batch_size", "dynamic_image_size"),
    ("dynamic_batch_size", "dynamic_dims"),
    ("dynamic_image_size", "dynamic_dims"),
    ("insert_op_conf", "dynamic_dims"),
    ("op_precision_mode", "op_select_implmode"),
)
_GEAR = {
    "dynamic_batch_size": re.compile(r"[1-9]\d*(,[1-9]\d*)+"),
    "dynamic_image_size": re.compile(r"[1-9]\d*,[1-9]\d*(;[1-9]\d*,[1-9]\d*)+"),
    "dynamic_dims": re.compile(r"[1-9]\d*(,[1-9]\d*)*(;[1-9]\d*(,[1-9]\d*)*)+"),
}
_EXAMPLE = {"dynamic_batch_size": "1,2,4", "dynamic_image_size": "416,416;832,832"}
_SHAPE = re.compile(r"[^:;\s]+(:[^:;\s]+)*:(-?\d+(~-?\d+)?(,-?\d+(~-?\d+)?)*)?")


def command(
    model: str, output: str, soc_version: str, flags: Mapping[str, str] | None = None
) -> list[str]:
    """The argv of one ATC run."""
    head = ["atc", f"--model={model}", "--framework=5", f"--output={output}"]
    given = [f"--{name}={value}" for name, value in (flags or {}).items()]
    return [*head, f"--soc_version={soc_version}", *given]


def flags(inputs: tuple[TensorInfo, ...], options: CompileOptions) -> dict[str, str]:
    """The flags for these inputs and options; ConfigError names what is allowed."""
    told = {k: v for k, v in options.settings.items() if k != "engine"}
    for name, value in told.items():
        _check(name, value)
    for first, second in _PAIRS:
        if first in told and second in told:
            raise ConfigError(
                "ATC takes --{first} or --{second}, not both.", first=first, second=second
            )
    if "precision_mode" not in told:
        told.setdefault("precision_mode_v2", PRECISION[options.precision])
    gear = next((name for name in GEARS if name in told), "")
    shape = told.get("input_shape") or _input_shape(inputs, gear)
    if shape:
        told["input_shape"] = shape
    if gear:
        _check_gear(gear, told)
    return told


def gears(told: Mapping[str, str]) -> tuple[str, list[list[int]]]:
    """Which dynamic flag is set, and its gears; ("", []) for a fixed model."""
    name = next((name for name in GEARS if name in told), "")
    separator = "," if name == "dynamic_batch_size" else ";"
    return name, [_numbers(g) for g in told[name].split(separator)] if name else []


def _numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",")]


def _check(name: str, value: str) -> None:
    if name not in FLAGS:
        raise ConfigError(
            "ATC has no flag --{name} for an ONNX model; it takes {known}.",
            hint="Settings of backend ascend are ATC's flags without dashes, and engine.",
            name=name,
            known=", ".join(FLAGS),
        )
    allowed = FLAGS[name]
    per_node = name == "output_type" and ":" in value  # "node:0:FP16;…", with --out_nodes
    if allowed and not per_node and value not in allowed:
        raise ConfigError(
            "ATC's --{name} takes {allowed}; found {value!r}.",
            name=name,
            allowed=", ".join(allowed),
            value=value,
        )
    if name == "input_shape" and not all(_SHAPE.fullmatch(part) for part in value.split(";")):
        raise ConfigError(
            "ATC's --input_shape takes name:n,c,h,w;name2:… in whole numbers; found {value!r}.",
            value=value,
        )
    if name == "input_shape" and re.search(r"[:,]0(?=[,;]|$)", value):
        raise ConfigError("ATC allows no dimension of 0; found --input_shape={value}.", value=value)


def _check_gear(name: str, told: dict[str, str]) -> None:
    value = told[name]
    found = gears(told)[1] if _GEAR[name].fullmatch(value) else []
    if not 2 <= len(found) <= 100:
        raise ConfigError(
            "ATC's --{name} takes 2 to 100 gears of whole numbers ({example}); found {value!r}.",
            name=name,
            example=_EXAMPLE.get(name, "1,20;1,40"),
            value=value,
        )
    opened = told.get("input_shape", "").count("-1")
    if name == "dynamic_dims":
        told.setdefault("input_format", "ND")
        if told["input_format"] != "ND" or any(len(gear) != opened for gear in found):
            raise ConfigError(
                "ATC's --dynamic_dims needs --input_format=ND and one number for each of the "
                "{count} open dimensions in every gear; found {value!r}.",
                count=opened,
                value=value,
            )
    elif name == "dynamic_batch_size" and re.search(r",-1", told.get("input_shape", "")):
        raise ConfigError(
            "ATC's --dynamic_batch_size opens only the first dimension; found {shape!r}.",
            hint="Fix the others with input_shapes, or give settings dynamic_dims.",
            shape=told["input_shape"],
        )
    elif not opened:
        raise ConfigError(
            "ATC's --{name} needs a dimension of -1 in --input_shape; found {shape!r}.",
            name=name,
            shape=told.get("input_shape", ""),
        )


def _input_shape(inputs: tuple[TensorInfo, ...], gear: str) -> str:
    """What --input_shape is told: nothing for a fixed model, -1 where a gear fills the size in."""
    opened = [info for info in inputs if info.shape is None or not _fixed(info)]
    if not opened and not gear:
        return ""
    unknown = next((info for info in opened if info.shape is None), None)
    if unknown is not None or not gear:
        raise ConfigError(
            "Input {name!r} has open dimensions, and ATC needs their sizes.",
            hint="Fix them with input_shapes, or give settings dynamic_batch_size, "
            "dynamic_image_size or dynamic_dims.",
            name=(unknown or opened[0]).name,
        )
    return ";".join(f"{info.name}:{_dims(info)}" for info in inputs)


def _fixed(info: TensorInfo) -> bool:
    return all(isinstance(d, int) for d in info.shape or ())


def _dims(info: TensorInfo) -> str:
    return ",".join(str(d) if isinstance(d, int) else "-1" for d in info.shape or ())
