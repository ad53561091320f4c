"""The table in force, and what it says of one client: replaced whole, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoglm.documents import read_document
from autoglm.errors import AutoGLMError
from autoglm.serve.core import Client
from autoglm.serve.routes.limits import Usage
from autoglm.serve.routes.matching import Condition, address_in, compile_match, holds, mqtt_id_in
from autoglm.serve.routes.table import Limits, Rule, Table, validate

POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class Route:
    """What one client gets, and why."""

    transport: str
    model: str
    version: str  # "" = what the model's own default is
    priority: int
    limits: Limits
    why: str
    rule: str = ""  # whose limits these are; "" = none's

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "transport": self.transport,
            "model": self.model,
            "version": self.version,
            "priority": self.priority,
            "limits": self.limits.model_dump(),
            "why": self.why,
        }


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A table, ready to be asked."""

    table: Table
    rules: tuple[tuple[Rule, tuple[Condition, ...]], ...]
    edge: tuple[Condition, ...]


class Routes:
    """The routing table; `set` and the watched file change it while requests are answered.

    `fault` says why the newest table is not in force; the one before it is.
    """

    def __init__(
        self,
        table: Table | None = None,
        *,
        on_change: Callable[[Table], None] = lambda table: None,
    ) -> None:
        self.fault = ""
        self.changes = 0
        self._on_change = on_change
        self._seen: tuple[int, ...] | None = None  # of the file that was read last
        self._now = _compiled(table or Table())
        self._usage = Usage()

    @property
    def table(self) -> Table:
        """The table in force."""
        return self._now.table

    def route(self, client: Client, model: str = "") -> Route:
        """Which protocol, version, priority and limits `client` gets when it asks for `model`."""
        now = self._now
        for rule, conditions in now.rules:
            why = holds(conditions, client, model)
            if why is not None:
                return Route(
                    rule.transport or _usual(now, client)[0],
                    rule.model or model,
                    rule.version or "",
                    rule.priority,
                    rule.limits,
                    f"rule {rule.name}: {why}",
                    rule.name,
                )
        transport, why = _usual(now, client)
        return Route(transport, model, "", 0, _NO_LIMITS, why)

    def admitted(
        self, route: Route, client: Client, nbytes: int = 0
    ) -> AbstractContextManager[None]:
        """Count a request against its rule's limits while it lasts; OverloadedError or
        TooLargeError where it passes one.
        """
        if route.limits == _NO_LIMITS:
            return _FREE
        return self._usage.held(route.rule, route.limits, client, nbytes)

    def set(self, values: Mapping[str, Any], where: str = "table") -> Table:
        """Put a table in force, whole; ConfigError names every fault, and the old one stays."""
        try:
            now = _compiled(validate(values, where))
        except AutoGLMError as error:
            self.fault = error.localized()
            raise
        self._now, self.fault = now, ""
        self.changes += 1
        self._on_change(now.table)
        return now.table

    def load(self, path: Path) -> Table:
        """Put the table of a .toml, .json or .yaml file in force."""
        self._seen = _stamp(path)  # before it is read: what changes meanwhile is read again
        try:
            values = read_document(path)
        except AutoGLMError as error:
            self.fault = error.localized()
            raise
        return self.set(values, str(path))

    async def watch(self, path: Path, *, period_s: float = POLL_S) -> None:
        """Follow a file until cancelled: what cannot be read or is wrong shows in `fault`."""
        while True:
            if await asyncio.to_thread(_stamp, path) != self._seen:
                with contextlib.suppress(AutoGLMError):  # it shows in `fault`
                    self.load(path)
            await asyncio.sleep(period_s)

    def to_dict(self) -> dict[str, Any]:
        """The table in force and the fault of the one that is not, as JSON values."""
        table = self.table.model_dump(mode="json", exclude_none=True)
        table["rules"] = [
            r.model_dump(mode="json", exclude_defaults=True) for r in self.table.rules
        ]
        return {"table": table, "fault": self.fault, "changes": self.changes}


_NO_LIMITS = Limits()
_FREE = contextlib.nullcontext()


def _compiled(table: Table) -> _Compiled:
    rules = tuple((rule, compile_match(rule.match)) for rule in table.rules)
    edge = (mqtt_id_in(table.edge.mqtt), address_in(table.edge.addresses))
    return _Compiled(table, rules, edge)


def _usual(now: _Compiled, client: Client) -> tuple[str, str]:
    """The protocol for a client that no rule names one for, and why."""
    for condition in now.edge:
        if why := condition(client, ""):
            return now.table.defaults.edge, f"default for the edge: {why}"
    return now.table.defaults.data_centre, "default for the data centre: nothing says edge"


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes when a file does, also when another takes its name; () where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return (status.st_mtime_ns, status.st_size, status.st_ino)
