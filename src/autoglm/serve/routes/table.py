"""The routing table as data: which client gets which protocol, model version, priority and limits.

Rules are tried in order; the first whose every condition holds decides. A condition holds where one
of its values does: `*` and `?` match as in file names, addresses by network.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Mapping
from fnmatch import translate
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from autoglm.config import Problem, Problems
from autoglm.errors import ConfigError
from autoglm.messages import tr
from autoglm.serve.routes.cron import parse_cron

MAX_RULES = 10_000


def _network(text: str) -> str:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise PydanticCustomError(
            "network", "an address or a network such as 10.0.0.0/8 or fd00::/8"
        ) from error
    return text


def _pattern(text: str) -> str:
    if not text or len(text) > 256 or not text.isprintable():
        raise PydanticCustomError("pattern", "a printable text of 1 to 256 characters")
    re.compile(translate(text))
    return text


def _word(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", text):
        raise PydanticCustomError("word", "letters, digits, '.', '_', '-', at most 128")
    return text


def _cron(text: str) -> str:
    try:
        parse_cron(text)
    except ValueError as error:
        raise PydanticCustomError("cron", "{reason}", {"reason": str(error)}) from error
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]
Network = Annotated[str, AfterValidator(_network)]
Word = Annotated[str, AfterValidator(_word)]
Patterns = Annotated[tuple[Pattern, ...], Field(strict=False, max_length=1000)]
Networks = Annotated[tuple[Network, ...], Field(strict=False, max_length=1000)]


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True
    )


class Limits(_Strict):
    """What one client of a route may use; 0 = no limit of the route's own."""

    rate_per_s: float = Field(default=0.0, ge=0)
    max_bytes: int = Field(default=0, ge=0)
    concurrency: int = Field(default=0, ge=0)


class Match(_Strict):
    """Who a rule is for. Names, certificates and MQTT ids are proven by the guard; a header is
    only what the client says.
    """

    clients: Patterns = ()  # names of API keys or tokens
    certificates: Patterns = ()  # subjects
    mqtt: Patterns = ()  # MQTT client ids
    addresses: Networks = ()
    headers: dict[Word, Pattern] = Field(default_factory=dict)  # lower-case name -> pattern
    models: Patterns = ()  # only requests for these


class Rule(_Strict):
    """What those clients get; "" leaves a field as the request or the defaults say."""

    name: Word
    match: Match = Match()
    transport: Word | None = None
    model: Word | None = None
    version: Word | None = None  # a number, alias or label
    priority: int = Field(default=0, ge=-100, le=100)
    limits: Limits = Limits()


class Edge(_Strict):
    """Who stands at the edge of the network, where no rule says otherwise: MQTT is theirs."""

    mqtt: Patterns = ("*",)
    addresses: Networks = ("192.168.0.0/16", "169.254.0.0/16", "fe80::/10")


class Defaults(_Strict):
    """The protocols for clients that no rule names a protocol for."""

    edge: Word = "mqtt"
    data_centre: Word = "grpc"


class Preload(_Strict):
    """A model to have loaded by a time of day: minute hour day month weekday, local time."""

    model: Word
    version: Word | None = None
    cron: Annotated[str, AfterValidator(_cron)]


class Sequence(_Strict):
    """Preloading what usually follows; off unless asked for."""

    enabled: bool = False
    min_share: float = Field(default=0.5, gt=0, le=1)  # of what followed the model before
    min_count: int = Field(default=3, ge=1)  # times it must have followed


class Table(_Strict):
    """The whole table; what is left out has these defaults."""

    rules: Annotated[tuple[Rule, ...], Field(strict=False, max_length=MAX_RULES)] = ()
    edge: Edge = Edge()
    defaults: Defaults = Defaults()
    preload: Annotated[tuple[Preload, ...], Field(strict=False, max_length=1000)] = ()
    sequence: Sequence = Sequence()

    @model_validator(mode="after")
    def _names_differ(self) -> Table:
        counted = Counter(rule.name for rule in self.rules)
        twice = ", ".join(sorted(name for name, count in counted.items() if count > 1))
        if twice:
            raise PydanticCustomError(
                "twice", "each rule's name once; more than once: {names}", {"names": twice}
            )
        return self


def validate(values: Mapping[str, Any], where: str) -> Table:
    """`values` as a table; one ConfigError names everything that is wrong."""
    try:
        return Table.model_validate(dict(values))
    except ValidationError as error:
        problems = Problems(dict.fromkeys(_problem(e) for e in error.errors(include_url=False)))
        raise ConfigError(
            "{where}: {problems}",
            hint="docs/routing.md describes the table; the one before it stays in force.",
            where=where,
            problems=problems,
        ) from error


def _problem(error: Any) -> Problem:
    key = ".".join(str(part) for part in error["loc"]) or "table"
    if error["type"] == "extra_forbidden":
        return Problem(key, "", _known(error["loc"]))
    if error["type"] == "missing":
        return Problem(key, tr("nothing"), "a value, for it has no default")
    found = repr(error["input"])
    return Problem(key, found if len(found) <= 80 else found[:77] + "...", str(error["msg"]))


_TABLES: dict[str, type[BaseModel]] = {
    "rules": Rule,
    "match": Match,
    "limits": Limits,
    "edge": Edge,
    "defaults": Defaults,
    "preload": Preload,
    "sequence": Sequence,
}


def _known(loc: tuple[int | str, ...]) -> str:
    """The keys of the table that an unknown key stands in."""
    owner: type[BaseModel] = Table
    for part in loc[:-1]:
        owner = _TABLES.get(str(part), owner)
    return ", ".join(sorted(owner.model_fields))
