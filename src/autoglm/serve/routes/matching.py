"""Whether a rule is for a client: the table's patterns, compiled once for all requests."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import translate
from functools import lru_cache
from typing import TypeAlias

from autoglm.serve.core import Client
from autoglm.serve.routes.table import Match

# What a client has that the condition asks for, in words; "" where it does not hold.
Condition: TypeAlias = Callable[[Client, str], str]
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


def compile_match(match: Match) -> tuple[Condition, ...]:
    """Every condition of a rule; all must hold."""
    found: list[Condition] = []
    if match.models:
        found.append(_text("model", match.models, lambda _, model: model))
    if match.clients:
        found.append(_text("client", match.clients, lambda c, _: c.name))
    if match.certificates:
        found.append(
            _text("certificate", match.certificates, lambda c, _: c.credentials.certificate)
        )
    if match.mqtt:
        found.append(_text("MQTT id", match.mqtt, lambda c, _: c.credentials.client_id))
    if match.addresses:
        found.append(address_in(match.addresses))
    for name, pattern in match.headers.items():
        found.append(_header(name.lower(), pattern))
    return tuple(found)


def holds(conditions: Sequence[Condition], client: Client, model: str) -> str | None:
    """What of the client met every condition, in words; None where one does not hold."""
    met: list[str] = []
    for condition in conditions:
        if not (why := condition(client, model)):
            return None
        met.append(why)
    return ", ".join(met) or "any client"


def mqtt_id_in(patterns: Iterable[str]) -> Condition:
    """The client's MQTT id matches one of them."""
    return _text("MQTT id", patterns, lambda c, _: c.credentials.client_id)


def address_in(networks: Iterable[str]) -> Condition:
    """The peer's address lies in one of them; an IPv4 address in IPv6 clothes is an IPv4 one."""
    known = [ipaddress.ip_network(n, strict=False) for n in networks]

    def condition(client: Client, model: str) -> str:
        address = _address(client.credentials.address)
        if address is None:
            return ""
        home = next((n for n in known if address.version == n.version and address in n), None)
        return f"address {address} in {home}" if home else ""

    return condition


@lru_cache(4096)
def _address(text: str) -> Address | None:
    """The address in `1.2.3.4`, `1.2.3.4:5`, `::1`, `[::1]:5` or `fe80::1%eth0`; None in others."""
    host = text
    if text.startswith("["):
        host = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        host = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def _text(what: str, patterns: Iterable[str], of: Callable[[Client, str], str]) -> Condition:
    known = [(p, re.compile(translate(p))) for p in patterns]

    def condition(client: Client, model: str) -> str:
        text = of(client, model)
        hit = next((p for p, regex in known if text and regex.match(text)), None)
        return f"{what} {text!r} is like {hit}" if hit is not None else ""

    return condition


def _header(name: str, pattern: str) -> Condition:
    return _text(f"header {name}", [pattern], lambda c, _: c.credentials.headers.get(name, ""))
