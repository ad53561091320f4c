"""How much one client may ask: a token bucket of requests, and a bound on each request's size."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic

from autoglm.errors import OverloadedError, TooLargeError

_MOST_CLIENTS = 10_000


@dataclass(frozen=True, slots=True)
class Limit:
    """Of one client: requests per second with a burst (0 = no limit), and bytes per request."""

    rate: float = 0.0
    burst: float = 0.0  # 0 = one second's worth, at least 1
    max_bytes: int = 64 << 20

    @property
    def size(self) -> float:
        """How many requests may come at once."""
        return max(self.burst or self.rate, 1.0)


@dataclass(slots=True)
class Limits:
    """Buckets by client. Time is monotonic, so that a clock set back or forward changes nothing."""

    default: Limit = field(default_factory=Limit)
    clients: Mapping[str, Limit] = field(default_factory=dict)
    clock: Callable[[], float] = monotonic
    _buckets: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def admit(self, client: str, bucket: str, nbytes: int) -> None:
        """Take one token from `bucket`; TooLargeError and OverloadedError say what was passed.

        `client` chooses the limit; clients without a name have one bucket an address.
        """
        limit = self.clients.get(client, self.default)
        if nbytes > limit.max_bytes:
            raise TooLargeError(
                "The request has {size} bytes; {client} may send {limit}.",
                hint="Send fewer rows at once, or binary tensors instead of JSON.",
                size=nbytes,
                limit=limit.max_bytes,
                client=client,
            )
        if limit.rate > 0:
            self._take(limit, client, bucket)

    def _take(self, limit: Limit, client: str, bucket: str) -> None:
        now = self.clock()
        tokens, since = self._buckets.get(bucket, (limit.size, now))
        tokens = min(limit.size, tokens + (now - since) * limit.rate)
        self._buckets[bucket] = (max(tokens - 1, 0.0) if tokens >= 1 else tokens, now)
        self._buckets.move_to_end(bucket)
        # The bucket longest unused is full again, or nearly: forgetting it gives little away.
        if len(self._buckets) > _MOST_CLIENTS:
            self._buckets.popitem(last=False)
        if tokens < 1:
            raise OverloadedError(
                "{client} may send {rate:g} requests a second; try again in {retry_after_s} s.",
                client=client,
                rate=limit.rate,
                retry_after_s=max(math.ceil((1 - tokens) / limit.rate * 1000) / 1000, 0.001),
            )
