"""JSON, YAML and TOML as plain values: bounded, without code, without repeated keys."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autoglm.errors import ConfigError, FileMissingError

MAX_BYTES = 1 << 18
MAX_DEPTH = 16
MAX_ALIASES = 16
FORMATS = (".json", ".yaml", ".yml", ".toml")


def read_document(path: Path) -> dict[str, Any]:
    """The table in a .json, .yaml or .toml file; ConfigError says what is wrong and where."""
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(
            "{path}: expected a file that ends in {formats}.", path=path, formats=", ".join(FORMATS)
        )
    return parse_document(_text(path), path.suffix.lower(), str(path))


def parse_document(text: str, suffix: str, where: str) -> dict[str, Any]:
    """The table that `text` holds, in the format that `suffix` names."""
    try:
        value = _PARSERS[suffix](text)
    except RecursionError as error:
        raise ConfigError("{path}: nested too deeply.", path=where) from error
    except ValueError as error:  # json, tomllib and our own refusals all derive from it
        raise ConfigError(
            "{path}: {reason}", path=where, reason=" ".join(str(error).split())
        ) from error
    if not isinstance(value, dict):
        found = type(value).__name__
        raise ConfigError(
            "{path}: expected a table of keys, found {found}.", path=where, found=found
        )
    if _depth(value) > MAX_DEPTH:
        raise ConfigError("{path}: nested too deeply.", path=where)
    bad = next((key for key in value if not isinstance(key, str)), None)
    if bad is not None:
        raise ConfigError("{path}: keys are texts, found {found}.", path=where, found=repr(bad))
    return value


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise FileMissingError("There is no file {path}.", path=path) from error
    except OSError as error:
        raise ConfigError("{path}: {reason}", path=path, reason=error.strerror or error) from error
    if len(data) > MAX_BYTES:
        raise ConfigError("{path}: larger than {limit} bytes.", path=path, limit=MAX_BYTES)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError("{path}: not UTF-8 text.", path=path) from error


def _json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_once, parse_constant=_refuse_constant)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise ValueError(f"the key {key!r} is given twice")
        table[key] = value
    return table


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _yaml(text: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """SafeLoader that refuses repeated keys."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            twice = next((k for i, k in enumerate(keys) if k in keys[:i]), None)
            if twice is not None:
                raise ValueError(f"the key {twice!r} is given twice")
            return super().construct_mapping(node, deep)

    try:
        _scan_yaml(yaml, text)
        return yaml.load(text, Loader=Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {error}") from error


def _scan_yaml(yaml: Any, text: str) -> None:
    # Before anything is built: tags could name classes, and aliases multiply ("billion laughs").
    depth = aliases = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        aliases += isinstance(event, yaml.AliasEvent)
        line = event.start_mark.line + 1
        if getattr(event, "tag", None) is not None:
            raise ValueError(f"line {line}: the tag {event.tag} is not allowed")
        if depth > MAX_DEPTH:
            raise ValueError(f"line {line}: nested too deeply")
        if aliases > MAX_ALIASES:
            raise ValueError(f"line {line}: more than {MAX_ALIASES} aliases")


def _depth(value: Any, limit: int = MAX_DEPTH + 1) -> int:
    if limit == 0 or not isinstance(value, dict | list):
        return 0
    items = value.values() if isinstance(value, dict) else value
    return 1 + max((_depth(item, limit - 1) for item in items), default=0)


_PARSERS: dict[str, Callable[[str], Any]] = {
    ".json": _json,
    ".yaml": _yaml,
    ".yml": _yaml,
    ".toml": tomllib.loads,
}
