"""What transports are told beside their address; each takes the keys that it knows."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from autoglm.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM. With `client_ca`, peers must show a certificate that it signed."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True)
class TransportOptions:
    """Bounds of one listener."""

    tls: Tls | None = None
    max_bytes: int = 64 << 20  # of one request's body
    head_timeout_s: float = 10.0  # from the connection, or the first byte, to the end of a head
    body_timeout_s: float = 60.0
    idle_timeout_s: float = 75.0  # between two requests of a connection
    max_connections: int = 4096


def server_context(tls: Tls, protocols: list[str]) -> ssl.SSLContext:
    """A server's TLS, 1.2 or later, that offers `protocols` by ALPN. Raises ConfigError."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.certificate, tls.key)
        if tls.client_ca is not None:
            context.load_verify_locations(tls.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            "The certificate, its key or the client CA cannot be read: {reason}.",
            hint="All three are PEM files; the key has no password.",
            reason=str(error),
        ) from error
    context.set_alpn_protocols(protocols)
    return context
