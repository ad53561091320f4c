"""sentence-transformers' last steps, pooling and normalisation, as extra nodes and one output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from autoglm.frontends.huggingface.builder import Builder
from autoglm.frontends.huggingface.folder import read_any_json, read_json

_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
}
_KNOWN = {"Transformer", "Pooling", "Normalize"}


def pooling_plan(folder: Path) -> tuple[str, bool, str]:
    """(mode, normalise, note): mode is "" where there is no sentence embedding, note says why."""
    if not (folder / "1_Pooling" / "config.json").is_file():
        return "", False, ""
    config = read_json(folder, "1_Pooling/config.json")
    wanted = [
        key for key, value in config.items() if key.startswith("pooling_mode_") and value is True
    ]
    mode = str(config.get("pooling_mode", "")) if not wanted else ""
    modes = [_MODES.get(key, key) for key in wanted] or [mode]
    if len(modes) != 1 or modes[0] not in _MODES.values():
        return (
            "",
            False,
            f"no sentence_embedding: pooling {', '.join(modes) or 'unnamed'} is not built",
        )
    kinds = _modules(folder)
    strange = [kind for kind in kinds if kind not in _KNOWN]
    if strange:
        return "", False, f"no sentence_embedding: module {strange[0]} is not built"
    return modes[0], "Normalize" in kinds, ""


def _modules(folder: Path) -> list[str]:
    if not (folder / "modules.json").is_file():
        return []
    modules: Any = read_any_json(folder, "modules.json")
    items = modules if isinstance(modules, list) else []
    return [str(m.get("type", "")).rpartition(".")[2] for m in items if isinstance(m, dict)]


def sentence_embedding(
    build: Builder, hidden: ir.Value, mask: ir.Value, mode: str, normalize: bool
) -> ir.Value:
    """One vector per sentence."""
    pooled = _pool(build, hidden, mask, mode)
    if normalize:
        axis = build.ints("axis_1", 1)
        length = build.op("pooling.length", "ReduceL2", pooled, axis, keepdims=1)
        floor = build.scalar("pooling.epsilon_length", 1e-12)
        length = build.op("pooling.length_floor", "Max", length, floor)
        pooled = build.op("pooling.normalized", "Div", pooled, length)
    return build.op("sentence_embedding", "Identity", pooled)


def _pool(build: Builder, hidden: ir.Value, mask: ir.Value, mode: str) -> ir.Value:
    if mode == "cls":
        first = build.weight("zero", np.int64(0))
        return build.op("pooling.first_token", "Gather", hidden, first, axis=1)
    wide = build.op("pooling.mask", "Unsqueeze", mask, build.ints("axis_2", 2))
    axis = build.ints("axis_1", 1)
    if mode == "max":
        absent = build.op("pooling.absent", "Equal", wide, build.weight("zero", np.int64(0)))
        low = build.scalar("pooling.lowest", -1e9)
        kept = build.op("pooling.kept", "Where", absent, low, hidden)
        return build.op("pooling.max", "ReduceMax", kept, axis, keepdims=0)
    floats = build.op("pooling.mask_float", "Cast", wide, to=ir.DataType.FLOAT.value)
    kept = build.op("pooling.kept", "Mul", hidden, floats)
    total = build.op("pooling.sum", "ReduceSum", kept, axis, keepdims=0)
    count = build.op("pooling.count", "ReduceSum", floats, axis, keepdims=0)
    count = build.op("pooling.count_floor", "Max", count, build.scalar("pooling.epsilon", 1e-9))
    return build.op("pooling.mean", "Div", total, count)
