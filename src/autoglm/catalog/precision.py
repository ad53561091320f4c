"""What a chip says of a precision, and the refusal of one: one check, one wording, for all."""

from __future__ import annotations

from collections.abc import Mapping

from autoglm.errors import ConfigError
from autoglm.spec import (
    Chip,
    CompileOptions,
    Constraint,
    Evidence,
    Support,
    no,
    unknown,
    yes,
)


def of_chip(chip: Chip, precision: str) -> Support:
    """Whether the catalog says that this chip computes in `precision`; unknown where it is mute."""
    if precision in chip.precisions:
        return yes(Evidence.DOCUMENT)
    if precision in chip.lacks:
        reason = f"{chip.name} has no {precision} ({chip.sources['lacks']})"
        return no(Constraint.PRECISION, reason, Evidence.DOCUMENT)
    return unknown(f"no document says whether {chip.name} computes in {precision}")


def require_precision(
    subject: str, precisions: Mapping[str, Support], options: CompileOptions
) -> None:
    """ConfigError where `subject` lacks the precision, or int8 has nothing to be calibrated on."""
    support = precisions.get(options.precision)
    if support is None or not support.ok:
        raise ConfigError(
            "{subject} does not compile to {precision}: {cause}.",
            subject=subject,
            precision=options.precision,
            cause=support.reason if support else f"known are {', '.join(precisions)}",
        )
    if options.precision == "int8" and not options.calibration:
        raise ConfigError(
            "int8 needs calibration data; found none.",
            hint="Give representative inputs (calibration), or ask for int8-dynamic or fp16.",
        )
