"""Refuse a precision that a backend's table does not have: one check, one wording, for all."""

from __future__ import annotations

from collections.abc import Mapping

from autoglm.errors import ConfigError
from autoglm.spec import CompileOptions, Support


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
