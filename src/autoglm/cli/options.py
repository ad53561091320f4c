"""Every config key as an option: one table, from which the commands' signatures are made.

What does not parse is handed on as text, so that the config refuses everything at once.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autoglm.keys import KEYS

if TYPE_CHECKING:
    from autoglm.config import AdaptConfig


@dataclass(frozen=True, slots=True)
class Option:
    """One config key on the command line."""

    key: str
    parse: Callable[[Any], Any]
    metavar: str = "TEXT"
    flags: tuple[str, ...] = ()
    type: Any = str | None

    @property
    def parameter(self) -> str:
        """The Python name of the option."""
        return "adapt_" + self.key.replace(".", "_")

    @property
    def all_flags(self) -> tuple[str, ...]:
        """How it is spelt; the key's own name is always one of them."""
        own = "--" + self.key.rpartition(".")[2].replace("_", "-")
        return (f"{own}/--no-{own[2:]}" if self.type == (bool | None) else own, *self.flags)


def same(value: Any) -> Any:
    """The value as it is."""
    return value


def whole(text: str) -> int | str:
    """A whole number, or the text for the config to refuse."""
    try:
        return int(text)
    except ValueError:
        return text


def number(text: str) -> float | str:
    """A number, or the text for the config to refuse."""
    try:
        return float(text)
    except ValueError:
        return text


def policy(text: str) -> str | list[str]:
    """`cpu`, `error`, or a list of backends with commas."""
    return text if text in ("cpu", "error") else words([text])


def words(texts: Sequence[str]) -> list[str]:
    """Names, given one by one or with commas."""
    return [word.strip() for text in texts for word in text.split(",")]


def pairs(texts: Sequence[str]) -> dict[str, str]:
    """`name=value`, cut at the last equals sign: node names may hold one, backends do not."""
    return {name: value for name, _, value in (text.rpartition("=") for text in texts)}


def settings(texts: Sequence[str]) -> dict[str, str]:
    """`key=value`, cut at the first equals sign: an engine's values may hold one."""
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


def switches(texts: Sequence[str]) -> dict[str, bool | str]:
    """`name=on` or `name=off`."""
    known = {"on": True, "true": True, "off": False, "false": False}
    return {name: known.get(value.lower(), value) for name, value in pairs(texts).items()}


def shapes(texts: Sequence[str]) -> dict[str, list[int | str]]:
    """`name=1,3,224,224` or `name=1x3x224x224`; `name=` is a scalar."""
    return {
        name: [whole(dim) for dim in value.replace("x", ",").split(",") if value]
        for name, value in pairs(texts).items()
    }


_MANY = list[str] | None
_PRECISIONS = "fp32|fp16|bf16|int8|int8-dynamic|auto"
OPTIONS: tuple[Option, ...] = (
    Option("backend", same, "NAME", ("-b",)),
    Option("precision", same, _PRECISIONS, ("-p",)),
    Option("fallback_policy", policy, "cpu|error|NAME,…"),
    Option("arch", same),
    Option("device", same),
    Option("memory_alignment", whole, "BYTES"),
    Option("max_error", number, "FLOAT"),
    Option("accept_accuracy", same, type=bool | None),
    Option("calibration", same, "PATH"),
    Option("inputs", same, "PATH", ("-i", "--input")),
    Option("input_shapes", shapes, "NAME=1,3,224,224", ("--shape", "--input-shape"), _MANY),
    Option("pins", pairs, "PATTERN=BACKEND", ("--pin",), _MANY),
    Option("budget.max_fallback_time_pct", number, "PERCENT"),
    Option("budget.max_partitions", whole, "COUNT"),
    Option("budget.forbid", words, "OP,…", type=_MANY),
    Option("passes", switches, "NAME=on|off", ("--pass",), _MANY),
    Option("threads", whole, "COUNT"),
    Option("timeout_s", number, "SECONDS"),
    Option("memory_limit_bytes", whole, "BYTES"),
    Option("optimize", same, type=bool | None),
    Option("settings", settings, "KEY=VALUE", ("--setting",), _MANY),
)


@dataclass(frozen=True, slots=True)
class Adapt:
    """The config file and the options over it, not yet read: reading needs pydantic."""

    file: Path | None
    values: Mapping[str, Any]

    def config(self) -> AdaptConfig:
        """The config in force; ConfigError names everything that is wrong with it."""
        from autoglm.config import load_config, merge

        base = load_config(self.file) if self.file else None
        overrides: dict[str, Any] = {}
        for option in OPTIONS:
            value = self.values.get(option.parameter)
            if value is None or value == []:
                continue
            table, _, key = option.key.rpartition(".")
            place = overrides.setdefault(table, {}) if table else overrides
            place[key] = option.parse(value)
        return merge(base, **overrides)


def configurable(*, without: Sequence[str] = ()) -> Callable[[Callable[..., Any]], Any]:
    """Give a command `--config` and every config key; its `adapt` parameter receives them."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        own = inspect.signature(command, eval_str=True).parameters.values()
        kept = [p.replace(kind=p.KEYWORD_ONLY) for p in own if p.name != "adapt"]
        extra = [_parameter(o, without) for o in OPTIONS]
        parameters = [*kept, _config_file(), *extra]

        @functools.wraps(command)
        def wrapper(**values: Any) -> Any:
            given = {o.parameter: values.pop(o.parameter) for o in OPTIONS}
            adapt = Adapt(values.pop("config_file"), given)
            return command(**values, adapt=adapt)

        del wrapper.__wrapped__  # or inspect would look through to the command itself
        vars(wrapper)["__signature__"] = inspect.Signature(parameters)
        wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapper

    return decorate


def _config_file() -> inspect.Parameter:
    info = typer.Option(
        "--config", "-c", metavar="FILE", help="adaptation config: .json, .yaml or .toml"
    )
    return _keyword("config_file", Annotated[Path | None, info])


def _parameter(option: Option, without: Sequence[str]) -> inspect.Parameter:
    flags = [flag for flag in option.all_flags if flag not in without]
    metavar = None if option.type == (bool | None) else option.metavar
    info = typer.Option(*flags, help=KEYS[option.key], metavar=metavar, show_default=False)
    return _keyword(option.parameter, Annotated[option.type, info])


def _keyword(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )
