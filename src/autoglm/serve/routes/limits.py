"""What a rule lets each of its clients use: requests a second, bytes of one, how many at once.

Beside the guard's limits, which hold for a client whatever its route.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from autoglm.errors import OverloadedError
from autoglm.serve.core import Client
from autoglm.serve.guard.limits import Limit
from autoglm.serve.guard.limits import Limits as Buckets
from autoglm.serve.guard.names import host_of
from autoglm.serve.routes.table import Limits

_RETRY_S = 0.1


class Usage:
    """Counts by rule and client; one a server."""

    def __init__(self) -> None:
        self._buckets: dict[str, tuple[Limits, Buckets]] = {}
        self._running: Counter[tuple[str, str]] = Counter()

    @contextmanager
    def held(self, rule: str, limits: Limits, client: Client, nbytes: int) -> Iterator[None]:
        """Count one request in while it lasts; OverloadedError or TooLargeError where it passes a
        limit.
        """
        who = _key(client)
        self._of(rule, limits).admit(client.name, who, nbytes)
        key = (rule, who)
        if limits.concurrency and self._running[key] >= limits.concurrency:
            raise OverloadedError(
                "{client} may have {limit} requests answered at once by rule {rule}.",
                hint="Send it again when one of them is answered.",
                client=client.name,
                limit=limits.concurrency,
                rule=rule,
                retry_after_s=_RETRY_S,
            )
        self._running[key] += 1
        try:
            yield
        finally:
            self._running[key] -= 1
            if not self._running[key]:
                del self._running[key]

    def _of(self, rule: str, limits: Limits) -> Buckets:
        known = self._buckets.get(rule)
        if known is None or known[0] != limits:  # the table has changed: count anew
            most = limits.max_bytes or sys.maxsize
            known = (limits, Buckets(Limit(limits.rate_per_s, max_bytes=most)))
            self._buckets[rule] = known
        return known[1]


def _key(client: Client) -> str:
    """Clients without a name are told apart by what the transport saw of them."""
    seen = client.credentials
    return (
        f"{client.name}\0{seen.client_id or host_of(seen.address)}"
        if _unnamed(client)
        else client.name
    )


def _unnamed(client: Client) -> bool:
    return client.name == Client().name
