"""JSON Web Tokens: signature, issuer, audience and expiry, with keys from a JWKS file on this disk.

Keys rotate by changing the file: it is read again when it changed. Nothing is ever fetched: what a
token's own header says of keys (`jku`, `x5u`, `jwk`) is not looked at.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoglm.errors import ConfigError, UnauthenticatedError
from autoglm.serve.guard.names import check_client

# Of private-public pairs only: a secret that the server shares could sign tokens as well.
ALGORITHMS = (
    "EdDSA",
    "ES256",
    "ES384",
    "ES512",
    "PS256",
    "PS384",
    "PS512",
    "RS256",
    "RS384",
    "RS512",
)
_TYPES = frozenset({"RSA", "EC", "OKP"})
_HINT = "Get a new token from the issuer."


@dataclass(frozen=True, slots=True)
class TokenOptions:
    """Whose tokens are believed, and by which keys."""

    jwks: Path
    issuer: str
    audience: str
    leeway_s: float = 10.0  # by which the issuer's clock may differ
    scope: str = "autoglm:admin"  # in the claim `scope`: may load, unload, and change routes


@dataclass(frozen=True, slots=True)
class Token:
    """What a believed token says."""

    subject: str
    expires: float  # time.time() seconds
    models: tuple[str, ...]
    admin: bool


def read_jwks(path: Path) -> dict[str, Any]:
    """Key id -> key. Symmetric keys and private ones are refused: this file is for verifying."""
    import jwt

    try:
        rows = json.loads(path.read_bytes())["keys"]
        keys = {row.get("kid", ""): _public(row) for row in rows}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, jwt.PyJWTError) as error:
        raise ConfigError(
            "{path} is no JSON Web Key Set: {reason}.",
            hint='It reads {{"keys": [{{"kid": …, "kty": "RSA", …}}]}}, public keys only.',
            path=str(path),
            reason=str(error)[:200],
        ) from error
    if len(keys) != len(rows) or not keys:
        raise ConfigError(
            "{path} holds {count} keys with {ids} different ids.",
            hint="Give each key its own `kid`.",
            path=str(path),
            count=len(rows),
            ids=len(keys),
        )
    return keys


def verify_token(keys: dict[str, Any], options: TokenOptions, text: str) -> Token:
    """The claims of a token that is signed, meant for us and in force; UnauthenticatedError."""
    import jwt

    try:
        header = jwt.get_unverified_header(text)
        key = keys.get(str(header.get("kid", "")))
        if key is None:
            raise _refused("its key is not among the issuer's present keys")
        # The key decides the algorithm, never the token.
        claims = jwt.decode(
            text,
            key.key,
            algorithms=[key.algorithm_name],
            audience=options.audience,
            issuer=options.issuer,
            leeway=options.leeway_s,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )
        return _token(claims, options)
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError, OverflowError) as error:
        raise _refused(str(error)[:120] or type(error).__name__) from error


def _public(row: dict[str, Any]) -> Any:
    import jwt

    if row["kty"] not in _TYPES or "d" in row:
        raise ValueError(f"key {row.get('kid', '')!r} is not a public RSA, EC or OKP key")
    key = jwt.PyJWK(row)
    if key.algorithm_name not in ALGORITHMS:
        raise ValueError(f"key {row.get('kid', '')!r} is for {key.algorithm_name}")
    return key


def _token(claims: dict[str, Any], options: TokenOptions) -> Token:
    models = claims.get("models", ())
    if not isinstance(models, list | tuple) or not all(isinstance(m, str) for m in models):
        raise ValueError("its claim `models` is no list of texts")
    if "models" in claims and not models:
        models = ("",)  # an empty list allows none, where a missing one allows all
    scopes = str(claims.get("scope", "")).split()
    return Token(
        check_client(str(claims["sub"])),
        float(claims["exp"]),
        tuple(models),
        options.scope in scopes,
    )


def _refused(reason: str) -> UnauthenticatedError:
    return UnauthenticatedError("The token is not accepted: {reason}.", hint=_HINT, reason=reason)
