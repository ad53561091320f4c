"""Every config key's meaning in one line; apart, so that `--help` loads no pydantic."""

from __future__ import annotations

KEYS = {
    "backend": "a backend's name, or auto: measure the candidates here and keep the fastest",
    "arch": "chip or instruction set to compile for; empty: what is here",
    "device": "which of the backend's devices; empty: the first",
    "precision": "of the arithmetic; auto: the fastest that stays within max_error",
    "fallback_policy": "where refused nodes go: cpu, error, or backends in order of preference",
    "memory_alignment": "of the weights in a bundle, in bytes: a power of two from 1 to 2097152",
    "max_error": "largest accepted error against fp32: max abs difference / max abs reference",
    "accept_accuracy": "keep a result that is out of tolerance, and say so in its certificate",
    "calibration": "file or folder of inputs that int8 is calibrated with",
    "inputs": "file of typical inputs to measure and certify with; empty: seeded random ones",
    "input_shapes": "input name -> dimensions, where the model leaves them open",
    "pins": "node name or pattern (*, ?) -> backend it must run on",
    "budget": "what fallbacks may cost before the plan counts as unfit",
    "budget.max_fallback_time_pct": "most of the predicted time, in per cent, that fallbacks take",
    "budget.max_partitions": "most partitions",
    "budget.forbid": "operators that must not fall back, for example MatMul",
    "passes": "graph pass -> on or off; `autoglm config passes` lists them",
    "threads": "threads per session; 0: all this process may use",
    "timeout_s": "most seconds that one command may take",
    "memory_limit_bytes": "most memory that one command may take; 0: nine tenths of what is free",
    "optimize": "let the engine optimise the graph itself",
    "settings": "the engine's own keys, handed through unchanged",
}
