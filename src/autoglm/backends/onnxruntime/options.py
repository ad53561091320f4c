"""Session options from ours, and the engine's refusals in one clear line."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

from autoglm.errors import BackendUnavailableError, ConfigError

if TYPE_CHECKING:
    import onnxruntime as ort

T = TypeVar("T")

# Plain keys are attributes of SessionOptions; keys with a dot are session config entries.
_INTEGERS = ("intra_op_num_threads", "inter_op_num_threads", "log_severity_level")
_SWITCHES = ("enable_cpu_mem_arena", "enable_mem_pattern", "enable_mem_reuse")
_MODES = {"sequential": "ORT_SEQUENTIAL", "parallel": "ORT_PARALLEL"}
_LEVELS = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "layout": "ORT_ENABLE_LAYOUT",
    "all": "ORT_ENABLE_ALL",
}
# The default (4) multiplies int4 weights with int8 activations: off by 0.016. 1 keeps float32.
EXACT = {"session.qdq_matmulnbits_accuracy_level": "1"}
# Its threads spin for tens of ms after a run, and so slow whatever runs next.
QUIET = {"session.force_spinning_stop": "1"}
FOLDED = {"optimization.disable_specified_optimizers": "MatMulAddFusion"}
_SILENT = 4


def session_options(
    settings: Mapping[str, str], *, threads: int = 0, optimize: bool = True
) -> ort.SessionOptions:
    """The engine's options: silent, with exactly these threads, optimised fully or not at all.

    Spinning is left as the engine has it (on): it is the fastest for one stream of calls. Who
    alternates engines in one process adds `QUIET`.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = _SILENT
    options.intra_op_num_threads = threads or usable_cores()
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    for key, value in settings.items():
        _apply(options, key, str(value))
    return options


def _apply(options: ort.SessionOptions, key: str, value: str) -> None:
    import onnxruntime as ort

    if "." in key:
        options.add_session_config_entry(key, value)
    elif key in _INTEGERS:
        setattr(options, key, _integer(key, value))
    elif key in _SWITCHES:
        setattr(
            options, key, _one_of(key, value, {"0": False, "1": True, "false": False, "true": True})
        )
    elif key == "execution_mode":
        options.execution_mode = getattr(ort.ExecutionMode, _one_of(key, value, _MODES))
    elif key == "graph_optimization_level":
        name = _one_of(key, value, _LEVELS)
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, name)
    else:
        known = (*_INTEGERS, *_SWITCHES, "execution_mode", "graph_optimization_level")
        raise ConfigError(
            "onnxruntime has no setting {key!r}; known: {known}, and config entries (with a dot).",
            key=key,
            known=", ".join(known),
        )


def _integer(key: str, value: str) -> int:
    if not value.isdecimal():
        raise ConfigError(
            "onnxruntime setting {key} takes a whole number; found {value!r}.", key=key, value=value
        )
    return int(value)


def _one_of(key: str, value: str, choices: Mapping[str, T]) -> T:
    if value.lower() not in choices:
        raise ConfigError(
            "onnxruntime setting {key} takes {choices}; found {value!r}.",
            key=key,
            choices=", ".join(choices),
            value=value,
        )
    return choices[value.lower()]


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def require_engine() -> None:
    """BackendUnavailableError where onnxruntime cannot be imported."""
    try:
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise BackendUnavailableError(
            "onnxruntime cannot be imported: {cause}.",
            hint="pip install onnxruntime",
            cause=str(error).splitlines()[0] if str(error) else "not installed",
        ) from error


def reason(error: BaseException) -> str:
    """The engine's message without its source paths, codes and line breaks."""
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error))
    # A source line, then the function's whole signature.
    text = re.sub(r"\S+\.(?:cc|h):\d+ (?:[^\n()]*\([^\n()]*\) )?", "", text)
    text = re.sub(r"Load model from \S+ failed:\s*", "", text)
    text = " ".join(text.split())
    return (text or type(error).__name__)[:300].rstrip(" .")
