"""Which requests a new version gets: the same ones every time, and as many as were asked for."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, field

from autoglm.errors import InvalidRequestError

# Multiples of it fill [0, 1) evenly: any run of requests splits as evenly as whole numbers allow.
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, slots=True)
class Canary:
    """`percent` of a model's requests that name no version go to `version`."""

    version: str
    percent: float
    by: str = "client"  # client: one client sees one version | request: every id decides anew
    _turns: itertools.count[int] = field(default_factory=itertools.count, compare=False)

    def takes(self, model: str, client: str, request_id: str) -> bool:
        """Whether this request is the canary's. Raising the percentage takes nobody away from it.

        Without a client or an id to go by, requests are dealt out in turn.
        """
        key = (client or request_id) if self.by == "client" else (request_id or client)
        point = share(model, key) if key else next(self._turns) * _GOLDEN % 1.0
        return point * 100.0 < self.percent


def canary(version: str, percent: float, by: str = "client") -> Canary:
    """A canary, where its percentage is one."""
    if not 0.0 <= percent <= 100.0 or by not in ("client", "request"):
        raise InvalidRequestError(
            "A canary takes 0 to 100 per cent by 'client' or 'request'; found {percent} by {by!r}.",
            percent=percent,
            by=by,
        )
    return Canary(version, percent, by)


def share(model: str, key: str) -> float:
    """Where `key` stands in [0, 1) for `model`: evenly spread, the same on every machine."""
    digest = hashlib.blake2b(f"{model}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2.0**64
