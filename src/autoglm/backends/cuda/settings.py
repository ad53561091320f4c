"""TensorRT's builder settings from our options: a pure function, every value checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autoglm.errors import ConfigError
from autoglm.spec import CompileOptions, TensorInfo

_BOOL = ("true", "false")
# NVIDIA/TensorRT @ a892d22267d9 (11.1), python/src/infer/pyCore.cpp; FP16, BF16 and INT8 are
# builder flags of TensorRT 10 only: 11 builds what the model's own dtypes say.
CHOICES: Mapping[str, tuple[str, ...]] = {
    "builder_optimization_level": ("0", "1", "2", "3", "4", "5"),
    "tf32": _BOOL,
    "refit": _BOOL,
    "sparse_weights": _BOOL,
    "version_compatible": _BOOL,
    "strip_plan": _BOOL,
    "hardware_compatibility_level": ("NONE", "AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY"),
    "profiling_verbosity": ("LAYER_NAMES_ONLY", "DETAILED", "NONE"),
}
_TEXTS = ("workspace_bytes", "timing_cache", "profile", "max_aux_streams")
FLAGS = {
    "refit": "REFIT",
    "sparse_weights": "SPARSE_WEIGHTS",
    "version_compatible": "VERSION_COMPATIBLE",
    "strip_plan": "STRIP_PLAN",
}
PRECISION = {"fp32": "", "fp16": "FP16", "bf16": "BF16"}


def build_order(
    inputs: tuple[TensorInfo, ...], options: CompileOptions, *, quantised: bool
) -> dict[str, Any]:
    """What the builder is told; ConfigError names what is allowed."""
    told = {k: v for k, v in options.settings.items() if k != "engine"}
    for key, value in told.items():
        _check(key, value)
    flags = [FLAGS[key] for key in FLAGS if told.get(key) == "true"]
    return {
        "precision_flag": PRECISION[options.precision],
        "int8": quantised,
        "flags": flags,
        # TF32 is TensorRT's default and keeps 10 bits of mantissa: not what fp32 asks for.
        "tf32": told.get("tf32", "false") == "true",
        "optimization_level": int(told.get("builder_optimization_level", "3")),
        "hardware": told.get("hardware_compatibility_level", "NONE"),
        "verbosity": told.get("profiling_verbosity", "LAYER_NAMES_ONLY"),
        "workspace_bytes": int(told.get("workspace_bytes", "0")),
        "aux_streams": int(told.get("max_aux_streams", "-1")),
        "timing_cache": told.get("timing_cache", ""),
        "profile": _profile(told.get("profile", ""), inputs),
    }


def _check(key: str, value: str) -> None:
    allowed = CHOICES.get(key)
    if allowed is None and key not in _TEXTS:
        raise ConfigError(
            "TensorRT has no setting {key!r} here; known: {known}.",
            key=key,
            known=", ".join(sorted((*CHOICES, *_TEXTS, "engine"))),
        )
    whole = key in ("workspace_bytes", "max_aux_streams")
    if (allowed and value not in allowed) or (whole and not value.isdecimal()):
        raise ConfigError(
            "TensorRT setting {key} takes {allowed}; found {value!r}.",
            key=key,
            allowed=", ".join(allowed or ("a whole number",)),
            value=value,
        )


def _profile(text: str, inputs: tuple[TensorInfo, ...]) -> dict[str, list[list[int]]]:
    """Smallest, usual and largest shape of every input with an open dimension."""
    given = dict(_shapes(part) for part in text.split(";") if part)
    known = {info.name: info for info in inputs}
    for name, shapes in given.items():
        if name not in known or not all(_fits(shape, known[name]) for shape in shapes):
            raise ConfigError(
                "profile names {name!r} of shapes {shapes}; the inputs are {known}.",
                name=name,
                shapes=shapes,
                known=", ".join(f"{i.name} {list(i.shape or ())}" for i in inputs),
            )
    for info in inputs:
        if info.name not in given and not _fixed(info):
            raise ConfigError(
                "Input {name!r} has open dimensions, and TensorRT needs their range.",
                hint="Give settings profile (NAME:smallest~usual~largest, "
                "x:1,3,224,224~8,3,224,224~32,3,224,224), or fix them with input_shapes.",
                name=info.name,
            )
    return given


def _fixed(info: TensorInfo) -> bool:
    return info.shape is not None and all(isinstance(d, int) for d in info.shape)


def _shapes(part: str) -> tuple[str, list[list[int]]]:
    name, _, sizes = part.rpartition(":")
    try:
        shapes = [[int(n) for n in shape.split(",")] for shape in sizes.split("~")]
    except ValueError:
        shapes = []
    ordered = len(shapes) == 3 and all(0 <= a <= b <= c for a, b, c in zip(*shapes, strict=False))
    if not name or not ordered or len({len(s) for s in shapes}) != 1:
        raise ConfigError(
            "profile takes NAME:smallest~usual~largest (x:1,8~4,8~16,8); found {value!r}.",
            value=part,
        )
    return name, shapes


def _fits(shape: list[int], info: TensorInfo) -> bool:
    if info.shape is None:
        return True
    return len(shape) == len(info.shape) and all(
        not isinstance(d, int) or d == n for n, d in zip(shape, info.shape, strict=True)
    )
