"""What Cambricon publishes of each chip and of MagicMind; most operators are unknown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from autoglm.catalog.documented import Document, capabilities, pick_chip, read_document
from autoglm.catalog.precision import of_chip
from autoglm.spec import (
    Capabilities,
    Chip,
    Constraint,
    Evidence,
    Support,
    no,
)

# precision_config.precision_mode has no bfloat16 and quantises statically.
SOURCE = "Cambricon/magicmind_cloud @ dc085c193c0a, buildin/python_common/build_param.py"
OPSET = 11


def document() -> Document:
    """The operators of models that the vendor's examples build, most of them by inference."""
    return read_document(Path(__file__).parent / "onnx.toml")


def table(arch: str = "") -> Capabilities:
    """The table of that chip; the default chip's where none is named."""
    chip = pick_chip("cambricon", arch)
    return capabilities(document(), chip, precisions(chip))


def precisions(chip: Chip) -> Mapping[str, Support]:
    """Each precision that MagicMind builds for this chip."""
    lacking = no(Constraint.PRECISION, f"MagicMind has no such mode ({SOURCE})", Evidence.DOCUMENT)
    return {
        **{name: of_chip(chip, name) for name in ("fp32", "fp16", "int8")},
        "bf16": lacking,
        "int8-dynamic": lacking,
    }
