"""API keys: made at random, shown once, kept as salted hashes in a file that only its owner reads.

A key is `agk_<id>_<secret>` with 256 random bits in the secret. That cannot be guessed, so one
round of a salted hash protects it at rest as well as a slow hash would a password, and a flood of
wrong keys costs the server microseconds each.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from autoglm.errors import ConfigError, FileMissingError, InvalidRequestError
from autoglm.serve.guard.names import check_name
from autoglm.tensor.files import atomic_file, write_error

PREFIX = "agk_"
_FORMAT = 1
_MOST_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Key:
    """One line of the key file; `hash` is SHA-256 of salt and secret."""

    id: str
    name: str
    salt: str
    hash: str
    created: str
    models: tuple[str, ...] = ()
    admin: bool = False


def read_keys(path: Path) -> dict[str, Key]:
    """Key id -> key. Refuses a file that others may read, or that is not whole."""
    try:
        with path.open("rb") as source:
            _refuse_open_file(path, os.fstat(source.fileno()))
            text = source.read(_MOST_BYTES + 1)
    except FileNotFoundError as error:
        raise FileMissingError(
            "There is no key file at {path}.",
            hint="Make one: autoglm keys add NAME --keys {path}",
            path=str(path),
        ) from error
    except OSError as error:
        raise ConfigError("{path} cannot be read: {reason}.", path=path, reason=error) from error
    return _parse(path, text)


def add_key(
    path: Path, name: str, *, models: tuple[str, ...] = (), admin: bool = False
) -> tuple[Key, str]:
    """Make a key for `name` and write its hash; the key itself is returned here and nowhere else.

    A client may have several keys, so that one can be replaced without a gap.
    """
    check_name(name)
    secret, salt = secrets.token_urlsafe(32), secrets.token_hex(16)
    made = datetime.now(UTC).isoformat(timespec="seconds")
    with _changing(path) as keys:
        number = secrets.token_hex(6)
        key = Key(number, name, salt, _hash(salt, secret), made, models, admin)
        keys[number] = key
    return key, f"{PREFIX}{number}_{secret}"


def revoke_keys(path: Path, which: str) -> tuple[Key, ...]:
    """Remove the keys of a client's name, or the one key of that id."""
    with _changing(path) as keys:
        gone = tuple(k for k in keys.values() if which in (k.name, k.id))
        if not gone:
            raise InvalidRequestError(
                "No key is called {which}; there are: {known}.",
                hint="autoglm keys list shows names and ids.",
                which=which,
                known=", ".join(sorted({k.name for k in keys.values()})) or "none",
            )
        for key in gone:
            del keys[key.id]
    return gone


def verify_key(keys: Mapping[str, Key], text: str) -> Key | None:
    """The key that `text` is, or None; the hashes are compared in constant time."""
    number, _, secret = text.removeprefix(PREFIX).partition("_")
    key = keys.get(number)
    # An unknown id costs the same hash as a known one.
    salt, wanted = (key.salt, key.hash) if key else ("", "")
    same = hmac.compare_digest(_hash(salt, secret), wanted)
    return key if same else None


def _hash(salt: str, secret: str) -> str:
    return hashlib.sha256(f"{salt}:{secret}".encode("utf-8", "surrogatepass")).hexdigest()


def _refuse_open_file(path: Path, info: os.stat_result) -> None:
    if info.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            "The key file {path} has mode {mode}; others than its owner may use it.",
            hint="chmod 600 {path}",
            path=str(path),
            mode=f"{stat.S_IMODE(info.st_mode):04o}",
        )


def _parse(path: Path, text: bytes) -> dict[str, Key]:
    try:
        document = json.loads(text)
        if document["format"] != _FORMAT:
            raise ValueError(f"format {document['format']}, this reads {_FORMAT}")
        keys = [_key(row) for row in document["keys"]]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ConfigError(
            "{path} is no key file: {reason}.",
            hint="Make one: autoglm keys add NAME --keys {path}",
            path=str(path),
            reason=str(error)[:200],
        ) from error
    return {key.id: key for key in keys}


def _key(row: dict[str, Any]) -> Key:
    key = Key(**row)
    texts = (key.id, key.name, key.salt, key.hash, key.created, *key.models)
    if not all(isinstance(t, str) for t in texts) or not isinstance(key.admin, bool):
        raise ValueError("a field of a key has another type")
    if len(key.hash) != 64:
        raise ValueError(f"the hash of key {key.id} is not SHA-256")
    return replace(key, models=tuple(key.models))


@contextmanager
def _changing(path: Path) -> Iterator[dict[str, Key]]:
    """Read, change, write; two commands at once do not lose each other's key."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
    except OSError as error:
        raise write_error(path, error) from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        keys = read_keys(path) if path.exists() else {}
        yield keys
        _write(path, keys)
    finally:
        os.close(folder)


def _write(path: Path, keys: Mapping[str, Key]) -> None:
    document = {"format": _FORMAT, "keys": [asdict(key) for key in keys.values()]}
    with atomic_file(path) as temporary:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(temporary, flags, 0o600), "w", encoding="utf-8") as sink:
            json.dump(document, sink, indent=1)
