"""Rotary position embedding of a config.json, and how many positions it makes of those trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autoglm.llm import fields
from autoglm.llm.architecture import Rope

KINDS = ("default", "linear", "dynamic", "yarn", "llama3", "longrope", "mrope")
_OLD_NAMES = {"su": "longrope"}
# Their max_position_embeddings counts the stretched positions already.
_COUNTED = ("default", "llama3", "longrope", "mrope")


def rope_of(config: Mapping[str, Any]) -> Rope:
    """From `rope_parameters`, or `rope_scaling` and `rope_theta`; ChatGLM has `rope_ratio`."""
    stretch = _stretch(config)
    kind = fields.text(stretch, "rope_type") or fields.text(stretch, "type") or "default"
    kind = _OLD_NAMES.get(kind, kind)
    if kind not in KINDS:
        raise fields.unplanned("rope_scaling.rope_type", kind, ", ".join(KINDS))
    ratio = fields.number(config, "rope_ratio", 1.0)
    theta = fields.number(config, "rope_theta", 10_000.0 * ratio)
    part = fields.number(config, "partial_rotary_factor", 1.0)
    return Rope(
        kind=kind,
        theta=fields.number(stretch, "rope_theta", theta),
        factor=fields.number(stretch, "factor", 1.0),
        original=fields.whole(stretch, "original_max_position_embeddings", 0, low=0),
        fraction=fields.number(stretch, "partial_rotary_factor", part),
    )


def positions(rope: Rope, stated: int, *, counted: bool) -> int:
    """Positions that the model takes, of `max_position_embeddings` as `stated`."""
    if counted or rope.kind in _COUNTED:
        return stated
    return max(stated, int((rope.original or stated) * rope.factor))


def _stretch(config: Mapping[str, Any]) -> Mapping[str, Any]:
    found = fields.table(config, "rope_parameters") or fields.table(config, "rope_scaling") or {}
    # Gemma keeps one table for each kind of layer; the full layers set the reach.
    inner = fields.table(found, "full_attention")
    return inner or found
