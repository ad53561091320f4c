"""The adaptation config: one typed model, and every mistake in it named at once.

The JSON Schema (`docs/config.schema.json`), the reference page and the command line's options all
come from `AdaptConfig` and `keys.KEYS`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from autoglm.documents import read_document
from autoglm.errors import ConfigError
from autoglm.keys import KEYS
from autoglm.messages import tr
from autoglm.settings import Settings

__all__ = [
    "AdaptConfig",
    "Budget",
    "Problem",
    "Problems",
    "Settings",
    "json_schema",
    "load_config",
    "merge",
    "validate",
]

MAX_ALIGNMENT = 2 << 20
MAX_TEXT = 4096
_NUMBER = re.compile(r"-\d+(\.\d+)?([eE][+-]?\d+)?")

Precision = Literal["fp32", "fp16", "bf16", "int8", "int8-dynamic", "auto"]


def _text(value: Any) -> Any:
    # A vendor compiler is started with these texts in its argv, so none may look like an option.
    if isinstance(value, str):
        if value.startswith("-"):
            raise PydanticCustomError("dash", "a text that does not begin with '-'")
        if len(value) > MAX_TEXT or any(ord(c) < 32 or ord(c) == 127 for c in value):
            raise PydanticCustomError(
                "text", "a text of at most 4096 characters without control characters"
            )
    return value


def _setting(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return value
    return _text(value)


def _alignment(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        if 1 <= value <= MAX_ALIGNMENT and value & (value - 1) == 0:
            return value
        nearest = min((1 << k for k in range(22)), key=lambda power: abs(power - value))
        raise PydanticCustomError(
            "alignment",
            "a power of two from 1 to 2097152; the nearest is {nearest}",
            {"nearest": nearest},
        )
    return value


Text = Annotated[str, BeforeValidator(_text)]
Name = Annotated[str, BeforeValidator(_text), Field(min_length=1)]
SettingValue = Annotated[str, BeforeValidator(_setting)]
Dims = Annotated[tuple[Annotated[int, Field(ge=0, lt=2**63)], ...], Field(strict=False)]
Names = Annotated[tuple[Name, ...], Field(strict=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True
    )


class Budget(_Strict):
    """What fallbacks may cost before the plan counts as unfit."""

    max_fallback_time_pct: float | None = Field(
        default=None, ge=0, le=100, description=KEYS["budget.max_fallback_time_pct"]
    )
    max_partitions: int | None = Field(
        default=None, ge=1, description=KEYS["budget.max_partitions"]
    )
    forbid: Names = Field(default=(), description=KEYS["budget.forbid"])


class AdaptConfig(_Strict):
    """How one model is adapted to a target; every key is also a command-line option."""

    backend: Name = Field(default="auto", description=KEYS["backend"])
    arch: Text = Field(default="", description=KEYS["arch"])
    device: Text = Field(default="", description=KEYS["device"])
    precision: Precision = Field(default="fp32", description=KEYS["precision"])
    fallback_policy: Annotated[
        Literal["cpu", "error"] | Names, Field(union_mode="left_to_right")
    ] = Field(default="cpu", description=KEYS["fallback_policy"])
    memory_alignment: Annotated[int, BeforeValidator(_alignment)] = Field(
        default=64,
        description=KEYS["memory_alignment"],
        ge=1,
        le=MAX_ALIGNMENT,
        json_schema_extra={"enum": [1 << k for k in range(22)]},
    )
    max_error: float | None = Field(default=None, gt=0, description=KEYS["max_error"])
    accept_accuracy: bool = Field(default=False, description=KEYS["accept_accuracy"])
    calibration: Text = Field(default="", description=KEYS["calibration"])
    inputs: Text = Field(default="", description=KEYS["inputs"])
    input_shapes: dict[Name, Dims] = Field(default_factory=dict, description=KEYS["input_shapes"])
    pins: dict[Name, Name] = Field(default_factory=dict, description=KEYS["pins"])
    budget: Budget = Field(default_factory=Budget, description=KEYS["budget"])
    passes: dict[Name, bool] = Field(default_factory=dict, description=KEYS["passes"])
    threads: int = Field(default=0, ge=0, le=4096, description=KEYS["threads"])
    timeout_s: float = Field(default=600.0, gt=0, le=7 * 86400, description=KEYS["timeout_s"])
    memory_limit_bytes: int = Field(
        default=0, ge=0, lt=2**63, description=KEYS["memory_limit_bytes"]
    )
    optimize: bool = Field(default=True, description=KEYS["optimize"])
    settings: dict[Name, SettingValue] = Field(default_factory=dict, description=KEYS["settings"])


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a config: which key, what was found, what is allowed."""

    key: str
    found: str
    allowed: str
    near: str = ""

    def __str__(self) -> str:
        if self.near:
            return tr("{key}: unknown key; did you mean {near}?", key=self.key, near=self.near)
        if not self.found:
            return tr("{key}: unknown key; known: {allowed}", key=self.key, allowed=self.allowed)
        return tr(
            "{key}: found {found}; allowed: {allowed}",
            key=self.key,
            found=self.found,
            allowed=tr(self.allowed),
        )


class Problems(tuple[Problem, ...]):
    """All that is wrong, one line each."""

    __slots__ = ()

    def __str__(self) -> str:
        return str(self[0]) if len(self) == 1 else "".join(f"\n  {problem}" for problem in self)


def validate(values: Mapping[str, Any], where: str = "config") -> AdaptConfig:
    """`values` as a config; one ConfigError names everything that is wrong."""
    try:
        return AdaptConfig.model_validate(dict(values))
    except ValidationError as error:
        found = dict.fromkeys(_problem(e) for e in error.errors(include_url=False))
        inner = {key.rpartition(".")[0] for key in (p.key for p in found)}
        problems = Problems(p for p in found if p.key not in inner)
        raise ConfigError(
            "{where}: {problems}",
            hint="`autoglm config schema` prints every key with what it allows.",
            where=where,
            problems=problems,
        ) from error


def load_config(path: str | Path) -> AdaptConfig:
    """Read a .json, .yaml or .toml file."""
    return validate(read_document(Path(path)), str(path))


def merge(config: AdaptConfig | None = None, **overrides: Any) -> AdaptConfig:
    """`config` with every override that is not None; tables are merged key by key."""
    values = (config or AdaptConfig()).model_dump(exclude_unset=True)
    for key, value in overrides.items():
        if value is None:
            continue
        if isinstance(value, BaseModel):
            value = value.model_dump(exclude_unset=True)
        old = values.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = {**old, **value}
        values[key] = value
    return validate(values, "options" if overrides else "config")


def json_schema() -> dict[str, Any]:
    """The published JSON Schema of the config file."""
    schema = AdaptConfig.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _problem(error: Any) -> Problem:
    path, owner = _path(error["loc"])
    key = ".".join(path) or "config"
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(path[-1], owner, 1, 0.6)
        prefix = ".".join(path[:-1])
        suggestion = (f"{prefix}.{near[0]}" if prefix else near[0]) if near else ""
        return Problem(key, "", ", ".join(sorted(owner)), suggestion)
    return Problem(key, _short(error["input"]), _allowed(error))


def _path(loc: tuple[int | str, ...]) -> tuple[list[str], list[str]]:
    """A pydantic location as key path without union markers, and the keys of its table."""
    path: list[str] = []
    owner = list(AdaptConfig.model_fields)
    for part in loc:
        text = str(part)
        if text == "[key]" or (path and path[0] == "fallback_policy" and isinstance(part, str)):
            continue
        if path == ["budget"]:
            owner = list(Budget.model_fields)
        path.append(text)
    return path, owner


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


_TYPES = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "dict_type": "a table",
    "model_type": "a table",
    "tuple_type": "a list",
    "string_too_short": "a text that is not empty",
    "too_short": "a text that is not empty",
}


def _allowed(error: Any) -> str:
    kind, facts = error["type"], error.get("ctx") or {}
    if (
        error["loc"]
        and error["loc"][0] == "fallback_policy"
        and kind in ("literal_error", "tuple_type")
    ):
        return "cpu, error, or a list of backends"
    if kind == "literal_error":
        return str(facts["expected"]).replace("'", "").replace(" or ", ", ")
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        sign = {"greater_than": ">", "greater_than_equal": ">=", "less_than": "<"}.get(kind, "<=")
        return f"{sign} {next(iter(facts.values()))}"
    return _TYPES.get(kind) or str(error["msg"])
