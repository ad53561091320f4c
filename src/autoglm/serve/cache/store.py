"""Answers that several processes share, in Redis. Without Redis everything goes on, unshared."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, TypeVar

from autoglm.serve.cache.codec import decode, encode
from autoglm.serve.core import Response

_LOG = logging.getLogger("autoglm.serve.cache")
_T = TypeVar("_T")
_TIMEOUT_S = 0.5  # a cache slower than this is no cache
_PAUSE_S = 5.0  # without Redis, before it is tried again
_LOCK_MS = 3000
_POLL_S = 0.02
_MOST_BYTES = 64 << 20
# Only who holds the lock may give it back.
_UNLOCK = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end"


class Store:
    """One Redis. No call raises for what Redis does, or does not do."""

    def __init__(self, url: str, ttl_s: float, clock: Callable[[], float] = monotonic) -> None:
        from redis.asyncio import Redis

        self._redis: Any = Redis.from_url(
            url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S
        )
        self._ttl_ms = max(int(ttl_s * 1000), 1)
        self._clock = clock
        self._down_until = 0.0
        self.failures = 0

    @property
    def down(self) -> bool:
        """True while Redis is left alone after a failure."""
        return self._clock() < self._down_until

    async def get(self, key: bytes) -> Response | None:
        """The answer; None where there is none that is whole."""
        data = await self._ask(lambda r: r.get(_name(key)), None)
        if not data or len(data) > _MOST_BYTES:
            return None
        answer = decode(key, data)
        if answer is None:
            self.failures += 1
            _LOG.warning("a cached answer in Redis was damaged, and is not used")
            await self._ask(lambda r: r.delete(_name(key)), None)
        return answer

    async def put(self, key: bytes, answer: Response) -> None:
        """Store it, for `ttl_s`."""
        data = encode(key, answer)
        if data is not None and len(data) <= _MOST_BYTES:
            await self._ask(lambda r: r.set(_name(key), data, px=self._ttl_ms), None)

    async def lock(self, key: bytes) -> str:
        """A token where this process is the one to run; "" where another one is running it."""
        token = secrets.token_hex(8)
        name = b"autoglm:lock:" + key
        won = await self._ask(lambda r: r.set(name, token, nx=True, px=_LOCK_MS), True)
        return token if won else ""

    async def unlock(self, key: bytes, token: str) -> None:
        """Give the lock back, if it is still ours."""
        name = b"autoglm:lock:" + key
        await self._ask(lambda r: r.eval(_UNLOCK, 1, name, token), None)

    async def wait(self, key: bytes) -> tuple[Response | None, str]:
        """What another process's run gives; or the lock, when that one failed or takes too long."""
        until = self._clock() + _LOCK_MS / 1000
        while self._clock() < until and not self.down:
            await asyncio.sleep(_POLL_S)
            if (answer := await self.get(key)) is not None:
                return answer, ""
            if token := await self.lock(key):
                # It may have been stored between the two questions.
                return await self.get(key), token
        return None, ""

    async def close(self) -> None:
        """Close the connections; may be called twice."""
        await self._redis.aclose()

    async def _ask(self, call: Callable[[Any], Awaitable[_T]], without: _T) -> _T:
        from redis.exceptions import RedisError

        if self.down:
            return without
        try:
            return await call(self._redis)
        except (RedisError, OSError, TimeoutError, ValueError) as error:
            self.failures += 1
            if not self._down_until:
                # The text of the error may hold the URL's password; its kind does not.
                _LOG.warning("Redis does not answer (%s): serving without it", type(error).__name__)
            self._down_until = self._clock() + _PAUSE_S
            return without
        finally:
            if self._down_until and not self.down:
                self._down_until = 0.0
                _LOG.warning("Redis answers again")


def _name(key: bytes) -> bytes:
    return b"autoglm:answer:" + key
