"""The table measured on Paddle's CPU kernels, and what is only inferred of the chips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from autoglm.catalog import load_pack
from autoglm.catalog.chips import chip, default_chip
from autoglm.spec import Capabilities, Evidence, Support, Verdict, unknown, yes

CPU = "cpu"
_UNMEASURED = "the Paddle that computes it on a Kunlun chip was never at hand"
PRECISIONS: Mapping[str, Support] = {
    "fp32": yes(Evidence.MEASURED),
    "fp16": unknown(_UNMEASURED),
    "bf16": unknown(_UNMEASURED),
    "int8": unknown(_UNMEASURED),
}


def table(arch: str, version: str) -> Capabilities:
    """What was measured, for `arch` cpu; any chip (or "") takes it as inferred."""
    evidence = Evidence.MEASURED if arch == CPU else Evidence.INFERRED
    found = load_pack("kunlun", version, evidence=evidence)
    found = replace(found, precisions=PRECISIONS, formats=("paddle", "onnx"))
    toolkit = found.toolkit.replace("kunlun", "paddle", 1)
    if arch == CPU:
        return replace(found, toolkit=f"{toolkit} (cpu)")
    target = chip(arch) if arch else default_chip("kunlun")
    assert target is not None  # the catalog names one
    return replace(
        found,
        toolkit=f"{toolkit} (measured on the cpu: the chip's route, not the chip)",
        precisions={name: _inferred(support) for name, support in PRECISIONS.items()},
        evidence=Evidence.INFERRED,
        chip=target,
        memory_bytes=target.memory_bytes,
        alignment=target.alignment or found.alignment,
        layouts=target.layouts or found.layouts,
    )


def _inferred(support: Support) -> Support:
    known = support.verdict is not Verdict.UNKNOWN
    return replace(support, evidence=Evidence.INFERRED) if known else support
