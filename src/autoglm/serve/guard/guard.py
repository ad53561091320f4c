"""The door: a believed client out of what a transport saw, and a no that says why."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, time
from typing import Any

from autoglm.errors import AutoGLMError, ForbiddenError, UnauthenticatedError
from autoglm.serve.core import Client, Credentials
from autoglm.serve.guard.keys import PREFIX, Key, read_keys, verify_key
from autoglm.serve.guard.limits import Limit, Limits
from autoglm.serve.guard.names import check_client, host_of, is_loopback
from autoglm.serve.guard.tokens import TokenOptions, read_jwks, verify_token

_LONGEST = 8192  # bytes of an Authorization header
_MOST_BELIEVED = 10_000
_LOOK_S = 1.0  # between two looks at whether a file changed
_HINT = "Send Authorization: Bearer KEY; autoglm keys add NAME makes one."


@dataclass(frozen=True, slots=True)
class GuardOptions:
    """Who is let in. With none of keys, tokens and certificates the server is open to anybody."""

    keys: Path | None = None
    tokens: TokenOptions | None = None
    certificates: bool = False  # the subject of a verified client certificate is an identity
    subjects: Mapping[str, str] = field(default_factory=dict)  # subject -> client; empty = its CN
    admins: frozenset[str] = frozenset()  # clients by certificate that may change the server
    limit: Limit = field(default_factory=Limit)
    limits: Mapping[str, Limit] = field(default_factory=dict)  # client -> its own


@dataclass(frozen=True, slots=True)
class _Belief:
    name: str
    models: tuple[str, ...]
    admin: bool
    expires: float  # time.time() seconds


class _File:
    """A file's parsed content, read again when the file changed; a broken change keeps the old."""

    def __init__(self, path: Path, read: Callable[[Path], Any], report: Callable[[str], None]):
        self._path, self._read, self._report = path, read, report
        self._mark = self._look()
        self.content = read(path)

    def refresh(self) -> bool:
        """Whether the content is new."""
        mark = self._look()
        if mark == self._mark:
            return False
        self._mark = mark
        try:
            self.content = self._read(self._path)
        except AutoGLMError as error:
            self._report(f"{error.localized()} What was read before stays in force.")
            return False
        return True

    def _look(self) -> tuple[int, ...]:
        try:
            info = self._path.stat()
        except OSError:
            return ()
        return (info.st_mtime_ns, info.st_ino, info.st_size, info.st_mode)


class Guard:
    """Authenticates, permits and admits. Called on the event loop; no call waits for a network."""

    def __init__(
        self,
        options: GuardOptions | None = None,
        *,
        clock: Callable[[], float] = monotonic,
        report: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._options = options = options or GuardOptions()
        self._clock = clock
        self._keys = _File(options.keys, read_keys, report) if options.keys else None
        tokens = options.tokens
        self._jwks = _File(tokens.jwks, read_jwks, report) if tokens else None
        self._limits = Limits(options.limit, options.limits, clock)
        # Digest under a secret of this process -> belief: the hot path is one lookup, and the time
        # it takes says nothing about any key.
        self._secret = secrets.token_bytes(32)
        self._believed: dict[bytes, _Belief] = {}
        self._looked = clock()

    @property
    def is_open(self) -> bool:
        """True where nobody needs to say who they are."""
        return not (self._keys or self._jwks or self._options.certificates)

    def authenticate(self, credentials: Credentials) -> Client:
        """The client; UnauthenticatedError where nobody we know, ForbiddenError where a known
        certificate is not for us.
        """
        if self.is_open:
            return Client(credentials=credentials)
        self._refresh()
        text = _bearer(credentials.authorization)
        if text and (self._keys or self._jwks):
            belief = self._believe(text)
            return Client(belief.name, credentials, belief.models, belief.admin)
        if credentials.certificate and self._options.certificates:
            name = self._subject(credentials.certificate)
            return Client(name, credentials, (), name in self._options.admins)
        raise UnauthenticatedError("No key, token or certificate came with this.", hint=_HINT)

    def permit(self, client: Client, model: str = "", *, admin: bool = False) -> None:
        """ForbiddenError where this client may not use `model`, or not change the server."""
        if model and not client.may_use(model):
            # The patterns are not shown: a client learns of its own models only.
            raise ForbiddenError(
                "{client} may not use model {model}.",
                hint="Ask whoever made the key or token.",
                client=client.name,
                model=model,
            )
        if admin and not (self._local(client.credentials) if self.is_open else client.admin):
            raise ForbiddenError(
                "{client} may not change the server.",
                hint="autoglm keys add NAME --admin makes a key that may.",
                client=client.name,
            )

    def admit(self, client: Client, nbytes: int = 0) -> None:
        """Count one request of `nbytes` against the client's limits; OverloadedError has
        `retry_after_s`, TooLargeError the limit.
        """
        self._limits.admit(client.name, self._bucket(client), nbytes)

    def _bucket(self, client: Client) -> str:
        if not self.is_open:
            return client.name
        # Nobody has a name here; behind a broker nobody has an address either.
        seen = client.credentials
        return host_of(seen.address) or f"{seen.transport} {seen.client_id}"

    def _refresh(self) -> None:
        now = self._clock()
        if now - self._looked < _LOOK_S:
            return
        self._looked = now
        changed = [f.refresh() for f in (self._keys, self._jwks) if f]
        if any(changed):
            self._believed.clear()  # a revoked key is not believed any longer

    def _believe(self, text: str) -> _Belief:
        digest = hashlib.blake2b(
            text.encode("utf-8", "surrogatepass"), key=self._secret, digest_size=16
        ).digest()
        belief = self._believed.get(digest)
        if belief is None or belief.expires < time():
            self._believed.pop(digest, None)
            belief = self._check(text)
            if len(self._believed) >= _MOST_BELIEVED:
                self._believed.clear()
            self._believed[digest] = belief
        return belief

    def _check(self, text: str) -> _Belief:
        if text.startswith(PREFIX) and self._keys:
            key: Key | None = verify_key(self._keys.content, text)
            if key is None:
                raise UnauthenticatedError("The API key is not known here.", hint=_HINT)
            return _Belief(key.name, key.models, key.admin, float("inf"))
        if self._jwks and self._options.tokens:
            token = verify_token(self._jwks.content, self._options.tokens, text)
            expires = token.expires + self._options.tokens.leeway_s
            return _Belief(token.subject, token.models, token.admin, expires)
        raise UnauthenticatedError("The API key is not known here.", hint=_HINT)

    def _subject(self, subject: str) -> str:
        known = self._options.subjects
        name = known.get(subject, "") if known else _common_name(subject)
        try:
            return check_client(name)
        except ValueError as error:
            raise ForbiddenError(
                "The certificate of {subject} is valid, but no client here.",
                hint="Add its subject to the table of --clients.",
                subject=subject[:200],
            ) from error

    def _local(self, credentials: Credentials) -> bool:
        # On an open server only this machine's own programs may change it, and no web page that
        # its browser shows: such a request names a foreign origin, or a foreign host.
        headers = credentials.headers
        origin = headers.get("origin", "").rpartition("//")[2]
        names = (headers.get("host", ""), origin)
        return is_loopback(credentials.address) and all(is_loopback(n) for n in names if n)


def _bearer(authorization: str) -> str:
    if len(authorization) > _LONGEST:
        raise UnauthenticatedError(
            "The Authorization header has {size} bytes; {limit} are read.",
            size=len(authorization),
            limit=_LONGEST,
        )
    scheme, _, rest = authorization.partition(" ")
    return rest.strip() if scheme.lower() == "bearer" else authorization.strip()


def _common_name(subject: str) -> str:
    """CN of a subject as RFC 4514 writes it; "" where it has none, several, or needs escapes.

    Only the two separators of that form split it, so that no other field can hold a CN.
    """
    if "\\" in subject or '"' in subject:
        return ""
    parts = [part.strip() for part in re.split("[,+]", subject)]
    names = [part[3:] for part in parts if part.upper().startswith("CN=")]
    return names[0] if len(names) == 1 else ""
