"""Whom to ask, in which protocol, and as whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from autoglm.errors import ConfigError

# Protocol -> schemes of its addresses; the first protocol of a scheme is its default.
PROTOCOLS: Mapping[str, tuple[str, ...]] = {
    "oip": ("http", "https"),
    "oip-binary": ("http", "https"),
    "rest": ("http", "https"),
    "grpc": ("grpc", "grpcs"),
    "mqtt": ("mqtt", "mqtts"),
}
SCHEMES = tuple(dict.fromkeys(s for schemes in PROTOCOLS.values() for s in schemes))
_PORTS = {"http": 80, "https": 443, "grpc": 80, "grpcs": 443, "mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True, slots=True)
class Target:
    """One model of one server; `protocol` "" is the address's default."""

    url: str
    model: str
    version: str = ""
    protocol: str = ""
    api_key: str = ""
    ca: Path | None = None  # PEM; None = the system's authorities
    timeout_s: float = 30.0  # of one question

    @property
    def shown(self) -> str:
        """The address without user and password."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @property
    def host(self) -> str:
        """Without brackets."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The address's own, or its scheme's."""
        parts = urlsplit(self.url)
        return parts.port or _PORTS[parts.scheme]

    @property
    def tls(self) -> bool:
        """Whether the scheme says so."""
        return urlsplit(self.url).scheme in ("https", "grpcs", "mqtts")

    def resolved(self) -> Target:
        """With its protocol; ConfigError where the address does not fit it."""
        scheme = scheme_of(self.url)
        own = [name for name, schemes in PROTOCOLS.items() if scheme in schemes]
        if self.protocol and self.protocol not in own:
            raise ConfigError(
                "{url!r} is no address for protocol {protocol!r}; it takes {known}.",
                url=without_user(self.url),
                protocol=self.protocol,
                known=", ".join(own),
            )
        return replace(self, protocol=self.protocol or own[0])


def without_user(url: str) -> str:
    """Any text that was given as an address, as an error may show it: without user and password."""
    scheme, mark, rest = url.rpartition("://")
    return f"{scheme.rpartition('@')[2]}{mark}{rest.rpartition('@')[2]}"


def scheme_of(url: str, schemes: Sequence[str] = SCHEMES) -> str:
    """The scheme of an address; ConfigError where it is none of those, or names no server."""
    try:
        parts = urlsplit(url)
        named = parts.hostname and parts.port != 0
    except ValueError:  # a port that is none
        named = False
    if not named or parts.scheme not in schemes:
        raise ConfigError(
            "{url!r} is no address of a server; it begins with {known}.",
            url=without_user(url),
            known=", ".join(f"{scheme}://" for scheme in schemes),
        )
    return parts.scheme
