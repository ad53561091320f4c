"""The cache as the gateway sees it: one run per question at a time, errors never kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import monotonic

from autoglm.errors import CancelledRequestError, DeadlineError
from autoglm.serve.cache.memory import Memory, frozen, shared
from autoglm.serve.cache.store import Store
from autoglm.serve.core import Response

Run = Callable[[], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class CacheOptions:
    """How much is kept, how long, and where. `redis` is a URL; "" = this process only."""

    max_bytes: int = 256 << 20
    ttl_s: float = 300.0
    redis: str = ""


@dataclass(slots=True)
class CacheStats:
    """Counters; each question is one of hit, shared_hit (Redis), joined (another's run) or miss."""

    hits: int = 0
    shared_hits: int = 0
    joined: int = 0
    misses: int = 0

    @property
    def hit_rate(self) -> float:
        """The share of questions that cost no run; 0 before the first."""
        found = self.hits + self.shared_hits + self.joined
        return found / (found + self.misses) if found + self.misses else 0.0


@dataclass(slots=True)
class _Running:
    task: asyncio.Task[Response]
    waiters: int = 0


@dataclass(slots=True)
class Cache:
    """Lives on one event loop."""

    options: CacheOptions = field(default_factory=CacheOptions)
    clock: Callable[[], float] = monotonic
    stats: CacheStats = field(default_factory=CacheStats)
    memory: Memory = field(init=False)
    store: Store | None = field(init=False)
    _running: dict[bytes, _Running] = field(default_factory=dict)

    def __post_init__(self) -> None:
        options = self.options
        self.memory = Memory(options.max_bytes, options.ttl_s, self.clock)
        self.store = Store(options.redis, options.ttl_s, self.clock) if options.redis else None

    async def answer(self, key: bytes | None, run: Run, deadline: float | None = None) -> Response:
        """The kept answer, or what `run` gives. Its arrays are read-only, its id is empty.

        Who asks while the same is being run waits for that run. A waiter that is cancelled leaves
        the others waiting; the run ends with the last of them. `deadline` (time.monotonic()) bounds
        the wait for another's run; `run` minds its own.
        """
        if key is None:
            return await run()
        while True:
            if (found := self.memory.get(key)) is not None:
                self.stats.hits += 1
                return shared(found)
            running = self._running.get(key)
            if running is None or running.task.done():
                break  # to await what has ended gives nobody else a turn, its callback neither
            try:
                answer = await self._join(running, deadline)
            except (DeadlineError, CancelledRequestError):
                if deadline is not None and monotonic() >= deadline:
                    raise
                continue  # the other's deadline is not ours: ask again
            self.stats.joined += 1
            return answer
        task = asyncio.create_task(self._find(key, run))
        self._running[key] = running = _Running(task)
        task.add_done_callback(lambda _: self._forget(key, running))
        return await self._join(running)

    async def close(self) -> None:
        """Stop what runs, close Redis; may be called twice."""
        for running in list(self._running.values()):
            running.task.cancel()
        if self.store is not None:
            await self.store.close()

    def _forget(self, key: bytes, running: _Running) -> None:
        if self._running.get(key) is running:
            del self._running[key]

    async def _join(self, running: _Running, deadline: float | None = None) -> Response:
        running.waiters += 1
        wait = None if deadline is None else max(deadline - monotonic(), 0.0)
        try:
            async with asyncio.timeout(wait):
                return shared(await asyncio.shield(running.task))
        except TimeoutError as error:
            if deadline is None or monotonic() < deadline:
                raise  # the run's own
            raise DeadlineError("The deadline passed before the answer was there.") from error
        except asyncio.CancelledError:
            # Cancelled is either this waiter, or the run under it.
            if running.task.cancelled() and not _being_cancelled():
                raise CancelledRequestError("The request was given up.") from None
            raise
        finally:
            running.waiters -= 1
            if not running.waiters and not running.task.done():
                running.task.cancel()

    async def _find(self, key: bytes, run: Run) -> Response:
        if self.store is None:
            return self._keep(key, await self._miss(run))
        if (answer := await self.store.get(key)) is not None:
            return self._shared_hit(key, answer)
        token = await self.store.lock(key)
        if not token:
            answer, token = await self.store.wait(key)
            if answer is not None:
                if token:
                    await self.store.unlock(key, token)
                return self._shared_hit(key, answer)
        try:
            answer = self._keep(key, await self._miss(run))
            await self.store.put(key, answer)
        finally:
            if token:
                await asyncio.shield(self.store.unlock(key, token))
        return answer

    async def _miss(self, run: Run) -> Response:
        self.stats.misses += 1
        return await run()

    def _shared_hit(self, key: bytes, answer: Response) -> Response:
        self.stats.shared_hits += 1
        return self._keep(key, answer)

    def _keep(self, key: bytes, answer: Response) -> Response:
        kept = frozen(answer)
        if kept is None:
            return answer
        self.memory.put(key, kept)
        return kept


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
