"""Versions come and go while others answer: one load at a time, within a memory budget.

All methods belong to the event loop; only opening, warming up and closing happen in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

from autoglm.errors import AutoGLMError, DeadlineError, ExecutionError, LimitError
from autoglm.serve.batch import Batcher, BatchLimits
from autoglm.serve.core import ModelInfo, Request
from autoglm.serve.pool.engine import Engine, close_all
from autoglm.serve.pool.entries import Entry, Model, entries_of, not_ready, still_loading
from autoglm.serve.pool.opening import Opened, batched, needed_bytes, open_version
from autoglm.serve.pool.repository import Source
from autoglm.serve.pool.served import Outputs, Served
from autoglm.serve.pool.threads import in_thread

_DRAIN_S = 60.0
_CLOSE_S = 3.0  # an engine that hangs is waited for for a second
_LOOK_S = 0.25
_STOOD_STILL_S = 2.0
_OPEN_S = 600.0  # for each engine


class Loader:
    """Opens, replaces, evicts and closes the versions of `models`."""

    def __init__(
        self,
        models: Mapping[str, Model],
        again: Callable[[Request], Awaitable[Outputs]],
        *,
        memory_bytes: int,
        limits: BatchLimits,
        run_timeout_s: float,
    ) -> None:
        self.evictions = 0
        self._models = models
        self._again = again
        self._memory_bytes = memory_bytes
        self._limits = limits
        self._run_timeout_s = run_timeout_s
        self._turn = asyncio.Lock()  # one load at a time: each is measured against the budget
        self._leaving: dict[Served, int] = {}  # bytes of what no new request reaches
        self._tasks: set[asyncio.Task[Any]] = set()

    async def load(self, entry: Entry, source: Source, *, evict: bool = True) -> None:
        """Open `source` as `entry`'s; what serves goes on until the new one is warm."""
        async with self._turn:
            await self._load(entry, source, evict)

    async def there(self, entry: Entry, deadline: float | None = None) -> Served:
        """What answers for `entry`; one that was evicted is loaded again first, which may take
        until the deadline.
        """
        try:
            async with asyncio.timeout(deadline and deadline - time.monotonic()):
                while entry.served is None:
                    await asyncio.shield(self.bring_back(entry))
                    if entry.served is None and entry.state != "loading":
                        raise still_loading(entry) if entry.wanted else not_ready(entry)
                return entry.served
        except TimeoutError as error:
            raise DeadlineError(
                "The deadline passed before model {model} ran.", model=entry.source.name
            ) from error

    def bring_back(self, entry: Entry) -> asyncio.Task[None]:
        """Load again what was evicted; one task, however many wait for it."""
        if entry.returning is None or entry.returning.done():
            entry.returning = self._background(self._reload(entry))
        return entry.returning

    async def unload(self, entries: Sequence[Entry]) -> None:
        """Stop serving them, after what was accepted is answered."""
        for entry in entries:
            async with self._turn:  # what is loading now is unloaded when it is there
                served, entry.served = entry.served, None
                entry.wanted = False
                entry.reason = "unloaded on request"
                entry.state = "unloading" if served else "unloaded"
            if served is not None:
                leaving = self._background(self._retire(served, entry.memory_bytes))
                await asyncio.wait({leaving}, timeout=_DRAIN_S)
                if entry.state == "unloading":  # it may be loaded again by now
                    entry.state = "unloaded"
                    if served.inflight:
                        left = served.inflight
                        entry.reason = f"{left} requests did not end within {_DRAIN_S:g} s"

    async def kept(self, work: Coroutine[Any, Any, None]) -> None:
        """Await `work`, which goes on where the caller does not."""
        await asyncio.shield(self._background(work))

    def watch(self) -> None:
        """From now on, find engines that hang."""
        self._background(self._watch())

    def tune(self, limits: BatchLimits) -> None:
        """Batch by these limits from now on, every model."""
        self._limits = limits
        for served in (e.served for e in entries_of(self._models) if e.served is not None):
            for engine, batcher in zip(served.engines, served.batchers, strict=True):
                batcher.limits = self._limits_of(engine)

    async def close(self, timeout_s: float) -> None:
        """Close everything. What loads is left to its thread, and what hangs too."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for entry in entries_of(self._models):
            if entry.served is not None:
                self._leaving[entry.served] = entry.memory_bytes
            entry.served, entry.state, entry.wanted = None, "unloaded", False
        if self._leaving:
            closing = [asyncio.create_task(s.retire(timeout_s)) for s in self._leaving]
            await asyncio.wait(closing, timeout=timeout_s + _CLOSE_S)
        self._leaving.clear()

    @property
    def used_bytes(self) -> int:
        """Artifact bytes of all that is open."""
        there = (e.memory_bytes for e in entries_of(self._models) if e.served is not None)
        return sum(self._leaving.values()) + sum(there)

    # -- one load

    async def _load(self, entry: Entry, source: Source, evict: bool) -> None:
        entry.state = "ready" if entry.served else "loading"
        try:
            needed, opened = await self._open(source, entry, evict)
        except AutoGLMError as error:
            entry.failed(error)
            raise
        self._admit(entry, source, opened, needed)

    async def _open(self, source: Source, entry: Entry, evict: bool) -> tuple[int, Opened]:
        if source.fault is not None:
            raise source.fault
        try:
            needed = await in_thread(needed_bytes, source)
            await self._make_room(entry, needed, evict)
            opening = in_thread(
                open_version, source, self._run_timeout_s, undo=lambda o: close_all(o.engines)
            )
            limit_s = _OPEN_S * len(source.engines)
            opened = await asyncio.wait_for(opening, limit_s)
        except AutoGLMError:
            raise
        except TimeoutError as error:
            raise ExecutionError(
                "Version {version} of model {model} did not open within {limit:g} s.",
                model=source.name,
                version=source.version,
                limit=limit_s,
            ) from error
        except Exception as error:  # a plug-in may raise anything
            raise ExecutionError(
                "{kind}: {text}", kind=type(error).__name__, text=str(error)[:300]
            ) from error
        return needed, opened

    def _admit(self, entry: Entry, source: Source, opened: Opened, needed: int) -> None:
        """From here on the new one answers; the old one ends what it has begun."""
        info = ModelInfo(
            source.name,
            source.version,
            opened.inputs,
            opened.outputs,
            "ready",
            digest=opened.digest,
            engines=tuple(e.name for e in opened.engines),
        )
        seen = batched(info, source.batch)
        batchers = [Batcher(e.run, seen, self._limits_of(e), joins=e.joins) for e in opened.engines]
        old, entry.served = entry.served, Served(info, opened.engines, batchers, self._again)
        held, entry.memory_bytes = entry.memory_bytes, needed
        entry.source, entry.state, entry.reason, entry.wanted = source, "ready", "", True
        entry.resident_bytes, entry.load_s = opened.resident_bytes, opened.seconds
        entry.loads += 1
        if old is not None:
            self._background(self._retire(old, held))

    def _limits_of(self, engine: Engine) -> BatchLimits:
        # A process that died is started again by the next run: never on the event loop.
        return replace(self._limits, inline_below_s=0.0) if engine.restarts else self._limits

    async def _reload(self, entry: Entry) -> None:
        with contextlib.suppress(AutoGLMError):  # the reason is the entry's
            async with self._turn:
                if entry.served is None and entry.wanted:  # it may be unloaded meanwhile
                    await self._load(entry, entry.source, True)

    async def _retire(self, served: Served, memory_bytes: int) -> None:
        """Close what no new request reaches, however long its last ones take."""
        self._leaving[served] = memory_bytes
        while not await served.retire(_DRAIN_S):
            pass
        del self._leaving[served]

    async def _watch(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(_LOOK_S)
            if time.monotonic() - before > _STOOD_STILL_S:
                continue  # so did the engines: the process was stopped, or swapped out
            there = (e.served for e in entries_of(self._models) if e.served is not None)
            for served in (*there, *self._leaving):
                served.look()

    # -- memory

    async def _make_room(self, entry: Entry, needed: int, evict: bool) -> None:
        if not self._memory_bytes:
            return
        over = self.used_bytes + needed - self._memory_bytes
        chosen = _enough(self._idle(entry), over) if evict else []
        if over > 0 and not chosen:
            raise LimitError(
                "Model {model} needs {needed} MiB; {used} of the budget of {budget} MiB are taken.",
                hint="Unload another model, or raise the memory budget.",
                model=entry.source.name,
                needed=_mib(needed),
                budget=_mib(self._memory_bytes),
                used=_mib(self.used_bytes),
            )
        for victim in chosen:
            await self._evict(victim, entry)

    def _idle(self, reloading: Entry) -> list[Entry]:
        """What may be evicted, the longest unused first; never what has requests in flight."""
        idle = [
            (e.served.used_at, i, e)
            for i, e in enumerate(entries_of(self._models))
            if e.served is not None and not e.served.inflight and e is not reloading
        ]
        return [e for _, _, e in sorted(idle)]

    async def _evict(self, victim: Entry, newcomer: Entry) -> None:
        served = victim.served
        if served is None:
            return
        if served.inflight:  # a request came while another victim was closing
            raise LimitError(
                "Model {model} does not fit: {other} is in use again.",
                hint="Ask again later, or raise the memory budget.",
                model=newcomer.source.name,
                other=victim.source.name,
            )
        victim.served, victim.state = None, "unloaded"
        victim.reason = f"evicted to make room for {newcomer.source.name}; a request loads it again"
        self.evictions += 1
        await self._retire(served, victim.memory_bytes)

    def _background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _enough(candidates: list[Entry], over: int) -> list[Entry]:
    """As many as give `over` bytes, in order; none where all together do not."""
    chosen: list[Entry] = []
    for entry in candidates:
        if over <= 0:
            break
        chosen.append(entry)
        over -= entry.memory_bytes
    return chosen if over <= 0 else []


def _mib(count: int) -> str:
    return f"{count / (1 << 20):.3g}"
