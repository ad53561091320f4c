"""Where the broker is, and how this worker speaks to it."""

from __future__ import annotations

import re
import secrets
import socket
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from autoglm.errors import ConfigError

PREFIX = "autoglm/v1"
LARGEST = 127 << 20  # bytes of a request: a packet has at most 256 MiB, and we take twice the limit
_PORTS = {"mqtt": 1883, "mqtts": 8883}
# No wildcard, no control character, no empty level; the broker keeps "$..." for itself.
_TOPIC = re.compile(r"[^$+#/\x00-\x1f\x7f-\x9f][^+#/\x00-\x1f\x7f-\x9f]*")


@dataclass(frozen=True, slots=True)
class Broker:
    """One broker's address."""

    host: str
    port: int
    tls: bool = False
    username: str = ""
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Options:
    """What one worker may be told, in the address's query."""

    prefix: str = PREFIX  # of every topic
    group: str = "autoglm"  # of the shared subscription: its workers divide the requests
    # A fixed id keeps the session: what a killed worker had not answered waits for its successor.
    client_id: str = ""
    session_expiry_s: int = 300  # how long the broker waits for it; without an id it does not
    receive_maximum: int = 256  # QoS 1 requests in work at once; the rest wait at the broker
    max_bytes: int = 64 << 20  # of one request
    keepalive_s: int = 30
    connect_timeout_s: float = 10.0
    ca: str = ""  # PEM files; "" = the system's authorities
    cert: str = ""
    key: str = ""


def parse_address(address: str) -> Broker:
    """The broker in `mqtt://[user:password@]host[:port][?option=value&…]`, or `mqtts://…`."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        raise _bad_address(address) from None
    if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/"):
        raise _bad_address(address)
    return Broker(
        parts.hostname,
        port or _PORTS[parts.scheme],
        tls=parts.scheme == "mqtts",
        username=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
    )


def _bad_address(address: str) -> ConfigError:
    return ConfigError(
        "{address} is no address of an MQTT broker.",
        hint="Write mqtt://host:1883 or mqtts://user:password@host:8883?client_id=worker-0.",
        address=repr(address.rpartition("@")[2][:200]),
    )


def parse_options(address: str, **given: object) -> Options:
    """The options in the address's query, before those `given`; an id is made where there is none.

    A made id keeps no session: nobody would come back under it.
    """
    said = parse_qsl(urlsplit(address).query, keep_blank_values=True)
    chosen = given | {name: _typed(name, text) for name, text in said}
    if not chosen.get("client_id"):
        chosen |= {
            "client_id": f"autoglm-{socket.gethostname()}-{secrets.token_hex(4)}",
            "session_expiry_s": 0,
        }
    options = Options(**chosen)  # type: ignore[arg-type]
    for name in ("prefix", "group", "client_id"):
        _check_topic(name, getattr(options, name), levels=name == "prefix")
    _check_range("receive_maximum", options.receive_maximum, 1, 65_535)
    _check_range("max_bytes", options.max_bytes, 1, LARGEST)
    _check_range("session_expiry_s", options.session_expiry_s, 0, 0xFFFFFFFF)
    _check_range("keepalive_s", options.keepalive_s, 1, 65_535)
    return options


def _typed(name: str, text: str) -> object:
    known: dict[str, type[Any]] = {item.name: type(item.default) for item in fields(Options)}
    try:
        return known[name](text)
    except (KeyError, ValueError):
        raise ConfigError(
            "The MQTT transport has no option {name}={value}; it takes {known}.",
            name=name[:100],
            value=text[:100],
            known=", ".join(f"{key} ({kind.__name__})" for key, kind in known.items()),
        ) from None


def _check_topic(name: str, value: str, *, levels: bool) -> None:
    parts = value.split("/") if levels else [value]
    if len(value) > 200 or not all(_TOPIC.fullmatch(part) for part in parts):
        raise ConfigError(
            "MQTT option {name} is {value}; it may not be empty, begin with '$' or hold '+', '#', "
            "an empty level or a control character.",
            name=name,
            value=repr(value[:200]),
        )


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ConfigError(
            "MQTT option {name} is {value}; it may be {low} to {high}.",
            name=name,
            value=value,
            low=low,
            high=high,
        )
