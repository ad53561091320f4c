"""The measured operator table, and the precisions of each chip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from autoglm.backends.sophon.toolkit import version
from autoglm.catalog import load_pack
from autoglm.catalog.chips import chip, default_chip
from autoglm.errors import ConfigError
from autoglm.spec import Capabilities, Chip, Constraint, Evidence, Support, no, unknown, yes

# Ours -> `model_deploy.py --quantize`.
QUANTIZE = {"fp32": "F32", "fp16": "F16", "bf16": "BF16", "int8": "INT8"}
# Chip -> `model_deploy.py --chip` (its help text in 1.30.2), of those that make a BModel.
TARGETS = {"BM1684": "bm1684", "BM1684X": "bm1684x", "BM1688": "bm1688", "CV186X": "cv186x"}
_MEASURED = frozenset({"BM1684X"})
_RAN = ("fp32", "fp16", "int8")  # models in these ran on the simulator


def chip_of(arch: str) -> Chip:
    """The chip of that name; BM1684X where none is named."""
    found = chip(arch) if arch else default_chip("sophon")
    if found is None or found.name not in TARGETS:
        raise ConfigError(
            "TPU-MLIR compiles no BModel for {arch!r}; it does for {known}.",
            arch=arch,
            known=", ".join(TARGETS),
        )
    return found


def precisions(chip: Chip) -> Mapping[str, Support]:
    """What the chip computes in; the datasheet decides, not the vendor."""
    rows = {p: _precision(chip, p) for p in QUANTIZE}
    reason = "TPU-MLIR quantises ahead of time only: ask for int8 with calibration data"
    return {**rows, "int8-dynamic": no(Constraint.PRECISION, reason, Evidence.DOCUMENT)}


def _precision(chip: Chip, precision: str) -> Support:
    if precision in chip.precisions:
        ran = chip.name in _MEASURED and precision in _RAN
        return yes(Evidence.MEASURED if ran else Evidence.DOCUMENT)
    if precision in chip.lacks or chip.precisions:
        takes = ", ".join(chip.precisions)
        reason = f"{chip.name} computes in {takes}; found {precision}"
        return no(Constraint.PRECISION, reason, Evidence.DOCUMENT)
    return unknown(f"no source says whether {chip.name} computes in {precision}")


def table(arch: str = "") -> Capabilities:
    """The table measured for BM1684X; for another chip it is inferred."""
    found = chip_of(arch)
    measured = found.name in _MEASURED
    evidence = Evidence.MEASURED if measured else Evidence.INFERRED
    pack = load_pack("sophon", version(), evidence=evidence)
    return replace(
        pack,
        toolkit=pack.toolkit if measured else f"{pack.toolkit} (measured for BM1684X)",
        precisions=precisions(found),
        formats=found.formats,
        collectives=found.collectives,
        layouts=found.layouts or ("NCHW",),
        alignment=found.alignment or 64,
        memory_bytes=found.memory_bytes,
        chip=found,
        fixed_shapes=True,
        also={"int8": load_pack("sophon-int8", version(), evidence=evidence).table},
    )
