"""Typed fields of a config.json: each refusal names the field, what it is and what it may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autoglm.errors import ModelError

MOST = 1 << 24  # no model has a wider or longer dimension


def refuse(field: str, found: object, allowed: str) -> ModelError:
    """The one error for a wrong field."""
    text = repr(found)
    return ModelError(
        "config.json: {field} is {found}; allowed: {allowed}.",
        hint="The file is incomplete or damaged: download it again.",
        field=field,
        found="missing" if found is None else text if len(text) <= 80 else text[:80] + "…",
        allowed=allowed,
    )


def unplanned(field: str, found: object, allowed: str) -> ModelError:
    """The one error for what is well written, and not planned here."""
    return ModelError(
        "config.json: {field} is {found}; planned: {allowed}.",
        hint="Others are not planned yet; an exported .onnx file can be checked.",
        field=field,
        found="missing" if found is None else repr(found)[:80],
        allowed=allowed,
    )


def whole(
    config: Mapping[str, Any],
    field: str,
    default: int | None = None,
    *,
    low: int = 1,
    high: int = MOST,
) -> int:
    """A whole number of that field; `default` where it is missing or null."""
    value = config.get(field)
    value = default if value is None else value
    if type(value) is not int or not low <= value <= high:
        raise refuse(field, value, f"a whole number from {low} to {high}")
    return value


def number(config: Mapping[str, Any], field: str, default: float) -> float:
    """A positive number of that field."""
    value = config.get(field)
    value = default if value is None else value
    if type(value) not in (int, float) or not 0 < value < 1e12:
        raise refuse(field, value, "a number above 0")
    return float(value)


def flag(config: Mapping[str, Any], field: str, default: bool = False) -> bool:
    """true or false of that field."""
    value = config.get(field)
    value = default if value is None else value
    if not isinstance(value, bool):
        raise refuse(field, value, "true or false")
    return value


def table(config: Mapping[str, Any], field: str) -> Mapping[str, Any] | None:
    """A table of that field; None where it is missing, null or empty."""
    value = config.get(field)
    if value is not None and not isinstance(value, Mapping):
        raise refuse(field, value, "a table or null")
    return value or None


def text(config: Mapping[str, Any], field: str, default: str = "") -> str:
    """A text of that field."""
    value = config.get(field)
    value = default if value is None else value
    if not isinstance(value, str):
        raise refuse(field, value, "a text")
    return value


def kinds(
    config: Mapping[str, Any], field: str, length: int, allowed: tuple[str, ...]
) -> tuple[str, ...] | None:
    """A list with one of `allowed` for each layer; None where the field is missing."""
    value = config.get(field)
    if value is None:
        return None
    if not isinstance(value, list) or len(value) < length:
        raise refuse(field, value, f"a list of {length}")
    if odd := [v for v in value if v not in allowed]:
        error = unplanned if isinstance(odd[0], str) else refuse
        raise error(field, odd[0], ", ".join(allowed))
    return tuple(value[:length])
