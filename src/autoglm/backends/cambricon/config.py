"""The builder's JSON configuration, from our options: a pure function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autoglm.errors import ConfigError
from autoglm.spec import CompileOptions, TensorInfo

# Names and values: Cambricon/magicmind_cloud @ dc085c193c0a, buildin/python_common.
MODES = {"fp32": "force_float32", "fp16": "force_float16", "int8": "qint8_mixed_float16"}
CLUSTERS = {"mtp_372": [2, 6, 8], "tp_322": [1], "mtp_592": [1]}
_CHOICES = {
    "precision_mode": (
        "force_float32",
        "force_float16",
        "qint8_mixed_float16",
        "qint16_mixed_float16",
        "qint8_mixed_float32",
        "qint16_mixed_float32",
    ),
    "weight_quant_granularity": ("per_tensor", "per_axis"),
    "activation_quant_algo": ("symmetric", "asymmetric"),
    "computation_preference": ("auto", "fast", "high_precision"),
    "type64to32_conversion": ("true", "false"),
    "conv_scale_fold": ("true", "false"),
    "mlu_arch": tuple(CLUSTERS),
    "calibration_algo": ("linear", "eqnm"),
}
KNOWN = (*_CHOICES, "cluster_num", "dim_range", "cross_compile_toolchain_path")


def builder_config(
    inputs: tuple[TensorInfo, ...], options: CompileOptions, *, int64: bool = False
) -> dict[str, Any]:
    """What `BuilderConfig.parse_from_string` is told; ConfigError names what is allowed.

    `int64`: the model holds 64-bit integers, which MagicMind lacks and turns into 32-bit ones.
    """
    settings = checked(options.settings)
    arch = settings.get("mlu_arch") or _arch(options.arch)
    ranges = _ranges(settings.get("dim_range", ""), inputs)
    quantised = options.precision == "int8"
    precision = {"precision_mode": settings.get("precision_mode", MODES[options.precision])}
    for key in ("weight_quant_granularity", "activation_quant_algo"):
        if quantised or key in settings:
            precision[key] = settings.get(key, _CHOICES[key][0])
    told: dict[str, Any] = {
        "archs": [{arch: _clusters(settings.get("cluster_num", ""), arch)}],
        "precision_config": precision,
        "graph_shape_mutable": bool(ranges),
        "opt_config": {
            "type64to32_conversion": _flag(settings, "type64to32_conversion", int64),
            "conv_scale_fold": _flag(settings, "conv_scale_fold", False),
        },
    }
    if ranges:
        told["dim_range"] = ranges
    for key in ("computation_preference", "cross_compile_toolchain_path"):
        if key in settings:
            told[key] = settings[key]
    return told


def checked(settings: Mapping[str, str]) -> Mapping[str, str]:
    """The settings, once every key and value is one that MagicMind documents."""
    for key, value in settings.items():
        if key not in KNOWN:
            raise ConfigError(
                "MagicMind has no setting {key!r}; known: {known}.",
                key=key,
                known=", ".join(sorted(KNOWN)),
            )
        allowed = _CHOICES.get(key)
        if allowed and value not in allowed:
            raise ConfigError(
                "MagicMind setting {key} takes {allowed}; found {value!r}.",
                key=key,
                allowed=", ".join(allowed),
                value=value,
            )
    return settings


def _arch(name: str) -> str:
    digits = "".join(c for c in name if c.isdigit())
    found = next((a for a in CLUSTERS if digits[:2] == a[-3:-1]), "")
    if digits and not found:
        raise ConfigError(
            "MagicMind 1.7 builds for {known}; found chip {name!r}.",
            hint="Name the architecture itself: settings mlu_arch.",
            known=", ".join(CLUSTERS),
            name=name,
        )
    return found or "mtp_372"


def _clusters(text: str, arch: str) -> list[int]:
    if not text:
        return CLUSTERS[arch]
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(
            "MagicMind setting cluster_num takes whole numbers (2,6,8); found {value!r}.",
            value=text,
        )
    return [int(part) for part in parts]


def _flag(settings: Mapping[str, str], key: str, default: bool) -> bool:
    return settings.get(key, str(default).lower()) == "true"


def _ranges(text: str, inputs: tuple[TensorInfo, ...]) -> dict[str, dict[str, list[int]]]:
    """`x:1,3,224,224~64,3,224,224;…` as ranges by input number; open dimensions need one."""
    given = dict(_range(part) for part in text.split(";") if part)
    known = {info.name: index for index, info in enumerate(inputs)}
    for name in given:
        if name not in known:
            raise ConfigError(
                "dim_range names {name!r}; the inputs are {known}.",
                name=name,
                known=", ".join(known),
            )
    if not given and all(_fixed(info) for info in inputs):
        return {}
    return {str(i): _sizes(info, given.get(info.name)) for i, info in enumerate(inputs)}


def _range(part: str) -> tuple[str, tuple[list[int], list[int]]]:
    name, _, sizes = part.rpartition(":")
    low, _, high = sizes.partition("~")
    try:
        least, most = [int(n) for n in low.split(",")], [int(n) for n in high.split(",")]
    except ValueError:
        least, most = [], [0]
    fits = len(least) == len(most) and all(0 < a <= b for a, b in zip(least, most, strict=False))
    if not name or not fits:
        raise ConfigError(
            "dim_range takes NAME:smallest~largest (x:1,3,224,224~64,3,224,224); found {value!r}.",
            value=part,
        )
    return name, (least, most)


def _sizes(info: TensorInfo, given: tuple[list[int], list[int]] | None) -> dict[str, list[int]]:
    if given is not None:
        return {"min": given[0], "max": given[1]}
    if not _fixed(info):
        raise ConfigError(
            "Input {name!r} has open dimensions, and MagicMind needs a range for them.",
            hint="Fix them with input_shapes, or give settings dim_range.",
            name=info.name,
        )
    sizes = [int(d) for d in info.shape or () if isinstance(d, int)]
    return {"min": sizes, "max": sizes}


def _fixed(info: TensorInfo) -> bool:
    return info.shape is not None and all(isinstance(d, int) for d in info.shape)
