"""What a name from outside may look like, and which addresses are this machine's own."""

from __future__ import annotations

import ipaddress
import re

from autoglm.errors import InvalidRequestError
from autoglm.messages import tr

LOOPBACK = "127.0.0.1"  # where a server listens unless told otherwise
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.)){0,127}", re.ASCII)
_CLIENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@|:/+=, -]{0,255}", re.ASCII)


def check_name(name: str) -> str:
    """`name` of a client that gets a key; InvalidRequestError where it is no plain name.

    Letters, digits, `.`, `_`, `-`; at most 128; never `..`, a separator or a leading dot.
    """
    if _NAME.fullmatch(name) is None:
        raise InvalidRequestError(
            "{name} is no name; a name has 1 to 128 letters, digits, '.', '_' or '-', begins with "
            "a letter or digit and has no '..'.",
            name=repr(name[:140]),
        )
    return name


def check_client(name: str) -> str:
    """A client's name as an issuer or a certificate says it, fit for metrics, logs and routes.

    Raises ValueError; nothing is replaced, for two clients must not become one.
    """
    if _CLIENT.fullmatch(name) is None:
        raise ValueError(f"{name[:60]!r} is no name of a client")
    return name


def is_loopback(address: str) -> bool:
    """Whether `address` (host, host:port or [v6]:port; "" = none) can only be this machine."""
    host = host_of(address)
    if host == "localhost":
        return True
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return bool((mapped or found).is_loopback)


def open_warning(addresses: dict[str, str], *, is_open: bool) -> str:
    """What to print when anybody who reaches an address may use it; "" where that is not so.

    `addresses`: transport -> address it listens on.
    """
    exposed = {n: a for n, a in addresses.items() if not is_loopback(a)}
    if not is_open or not exposed:
        return ""
    return tr(
        "warning: open without authentication on {where}: anybody who reaches it may use every "
        "model. Give --keys, --jwks or --tls-client-ca, or listen on {loopback}.",
        where=", ".join(f"{name} {address}" for name, address in exposed.items()),
        loopback=LOOPBACK,
    )


def host_of(address: str) -> str:
    """The host of host:port or [v6]:port."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address if address.count(":") > 1 else address.partition(":")[0]
