"""What Huawei's sources and manuals say of each chip; what they do not say is unknown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from autoglm.catalog.documented import (
    Document,
    capabilities,
    first_dtype,
    pick_chip,
    read_document,
)
from autoglm.catalog.precision import of_chip
from autoglm.spec import (
    Capabilities,
    Chip,
    Constraint,
    Evidence,
    NodeFacts,
    Support,
    no,
    unknown,
)

# cann/ge @ ffdcbc9f7496, docs/zh/user_guides/atc_tools/CLI_options.
MANUAL = "ATC manual, CANN 9"
_DTYPES = frozenset(
    {"float32", "float16", "bfloat16", "int8", "uint8", "int16", "int32", "int64", "bool"}
)


def document() -> Document:
    """The operators that ATC's ONNX parser maps."""
    return read_document(Path(__file__).parent / "onnx.toml")


def table(arch: str = "") -> Capabilities:
    """The table of that chip (`Ascend910B`); the default chip's where none is named."""
    chip = pick_chip("ascend", arch)

    def also(node: NodeFacts) -> Support | None:
        return _dtype(node, chip) or _dims(node)

    return capabilities(document(), chip, precisions(chip), also)


def precisions(chip: Chip) -> Mapping[str, Support]:
    """Each precision, and why ATC does not make it for this chip."""
    int8 = no(
        Constraint.PRECISION,
        f"ATC quantises nothing: AMCT makes the int8 model, and ATC takes that ({MANUAL})",
        Evidence.DOCUMENT,
    )
    return {
        **{name: of_chip(chip, name) for name in ("fp32", "fp16", "bf16")},
        "int8": int8,
        "int8-dynamic": int8,
    }


def _dtype(node: NodeFacts, chip: Chip) -> Support | None:
    dtype = first_dtype(node)
    if dtype == "bfloat16" and "bf16" in chip.lacks:
        reason = (
            f"{chip.name} has no bfloat16 (--precision_mode_v2, {MANUAL}); found {node.op} of it"
        )
        return no(Constraint.DTYPE, reason, Evidence.DOCUMENT)
    if dtype and dtype not in _DTYPES:
        reason = f"no document says that {node.op} takes {dtype} on {chip.name}"
        return unknown(reason, Constraint.DTYPE)
    return None


def _dims(node: NodeFacts) -> Support | None:
    """A dimension of 0 is refused on every input and output of a layer."""
    values = [v for v in (*node.inputs, *node.outputs) if v is not None and not v.constant]
    if all(v.shape is None or 0 not in v.shape for v in values):
        return None
    reason = f"dimension 0 is not allowed ({MANUAL}, general restrictions); found {node.op} with it"
    return no(Constraint.SHAPE, reason, Evidence.DOCUMENT)
