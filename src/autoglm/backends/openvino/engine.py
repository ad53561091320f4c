"""OpenVINO's core, its settings from our options, and its refusals in one clear line."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from autoglm.backends.openvino.probe import BF16, cpu_flags
from autoglm.errors import BackendUnavailableError, CompileError

if TYPE_CHECKING:
    import openvino as ov

_HINT = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
TYPE = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
# Left alone, int4 and int8 weights are multiplied with activations quantised in groups of 32.
_GROUP = {"int8-dynamic": "128"}


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Import Intel's packages without telemetry, which reports and writes to the home folder.

    Each falls back to a stub where the telemetry package is missing, so it is made to look so.
    """
    hidden = [
        m for m in ("openvino_telemetry", "openvino_telemetry.backend") if m not in sys.modules
    ]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None means "not there"
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@cache
def core() -> ov.Core:
    """One core for the process: it holds the loaded plug-ins, no model and no setting of ours."""
    try:
        with without_telemetry():
            import openvino as ov
    except ImportError as error:
        raise BackendUnavailableError(
            "openvino cannot be imported: {cause}.",
            hint="pip install 'open-autoglm[openvino]'",
            cause=reason(error),
        ) from error
    return ov.Core()


def configuration(
    precision: str,
    settings: Mapping[str, str],
    *,
    beside_int8: str = "fp32",
    threads: int = 0,
    profile: bool = False,
) -> dict[str, str]:
    """What every compiled model is told; the caller's own keys come last and win.

    `beside_int8`: what int8 leaves is computed in this, in fp32 where the CPU has no bf16.
    """
    told = {
        "INFERENCE_PRECISION_HINT": _HINT.get(precision) or _beside(beside_int8),
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": _GROUP.get(precision, "0"),
        "PERFORMANCE_HINT": "LATENCY",
        "PERF_COUNT": "YES" if profile else "NO",
    }
    if threads:
        told["INFERENCE_NUM_THREADS"] = str(threads)
    return {**told, **{key: str(value) for key, value in settings.items()}}


def _beside(wanted: str) -> str:
    # AlexNet (its LRN) and MiniLM (products kept higher) take a quarter to a third less in bf16.
    return "f32" if wanted == "bf16" and not cpu_flags() & BF16 else _HINT[wanted]


def load(model: ov.Model, device: str, told: Mapping[str, str]) -> ov.CompiledModel:
    """Compile for the device; CompileError where it refuses, or takes another precision."""
    try:
        compiled = core().compile_model(model, device, dict(told))
        found = str(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())
    except Exception as error:  # the engine raises bare RuntimeError for everything
        raise CompileError("OpenVINO refuses the model: {cause}.", cause=reason(error)) from error
    asked = told["INFERENCE_PRECISION_HINT"]
    if asked in TYPE and found not in (asked, TYPE[asked]):
        raise CompileError(
            "OpenVINO was asked to compute in {asked} and would compute in {found}.",
            hint="Ask for a precision that `autoglm backends` lists for this machine.",
            asked=asked,
            found=found,
        )
    return compiled


_NOISE = re.compile(
    r"Exception from \S+:\d+:|Check '.*?' failed at \S+:\d+:|\[ (?:ERROR|GENERAL_ERROR) \]"
    r"|FrontEnd API failed with \w+:|Loading input model|Model wasn't fully converted\.|Summary:"
)


def reason(error: BaseException) -> str:
    """The engine's message without source paths and ceremony; the refused operators are kept."""
    text = " ".join(_NOISE.sub(" ", str(error)).replace("--", " ").split())
    return (text or type(error).__name__)[:300].rstrip(" .:")
