"""One version that answers: its engines, by expected latency; a failing one is left alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from autoglm.errors import BackendError, DrainingError
from autoglm.serve.core import ModelInfo, Request
from autoglm.serve.pool.engine import LONGEST_REST_S, Engine, Quarantine, rows_of
from autoglm.spec import Feeds, Value

Outputs = dict[str, Value]
Run = Callable[[Feeds], Outputs]


class Queue(Protocol):
    """What of a batcher is used here."""

    async def submit(self, request: Request) -> Outputs:
        """The answer to one request."""


@dataclass(slots=True)
class Direct:
    """No batches: each request runs by itself in a thread."""

    run: Run

    async def submit(self, request: Request) -> Outputs:
        """The answer to one request."""
        return await asyncio.to_thread(self.run, dict(request.inputs))


MakeQueue = Callable[[Run, ModelInfo], Queue]


@dataclass(slots=True)
class Served:
    """One version of one model, ready. All but `run` belongs to the event loop."""

    info: ModelInfo
    engines: tuple[Engine, ...]
    queues: Sequence[Queue]
    again: Callable[[Request], Awaitable[Outputs]]  # looks the version up anew
    used_at: float = field(default_factory=time.monotonic)
    inflight: int = 0
    closed: bool = False
    _idle: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def run(self, feeds: Feeds) -> Outputs:
        """Run at once on the engine that is free soonest; for callers that batch by themselves."""
        return self.engines[self._pick(rows_of(feeds), ())].run(feeds)

    async def infer(self, request: Request) -> Outputs:
        """Answer; what one engine fails at, another tries once."""
        if self.closed:
            # It was replaced, evicted or unloaded since it was looked up.
            return await self.again(replace(request, version=self.info.version))
        self.used_at = time.monotonic()
        self.inflight += 1
        try:
            return await self._infer(request, rows_of(request.inputs))
        finally:
            self.inflight -= 1
            if not self.inflight:
                self._idle.set()

    async def retire(self, timeout_s: float) -> bool:
        """Close, once what was accepted is answered; False where that took too long, and the
        engines stay open.
        """
        self.closed = True
        deadline = time.monotonic() + timeout_s
        while self.inflight:
            self._idle.clear()
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            try:
                await asyncio.wait_for(self._idle.wait(), left)
            except TimeoutError:
                return False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._close)
        return True

    def _close(self) -> None:
        for engine in self.engines:
            engine.close()

    async def _infer(self, request: Request, rows: int) -> Outputs:
        first = self._pick(rows, ())
        try:
            return await self._ask(first, request, rows)
        except BackendError as error:
            failed, cause = self.engines[first], error
        failed.failures += 1
        self._examine(failed)
        second = self._spare(rows, first)
        if second is None:
            raise cause
        outputs = await self._ask(second, request, rows)
        # Another engine could answer it, so the request was not at fault.
        if second != first and failed.failed_alone():
            self._put_away(failed, str(cause))
        return outputs

    async def _ask(self, index: int, request: Request, rows: int) -> Outputs:
        engine = self.engines[index]
        engine.waiting_rows += rows
        try:
            outputs = await self.queues[index].submit(request)
        finally:
            engine.waiting_rows -= rows
        engine.answered()
        return outputs

    def _pick(self, rows: int, without: tuple[int, ...]) -> int:
        best, soonest = -1, float("inf")
        for index, engine in enumerate(self.engines):
            if engine.quarantine is None and index not in without:
                expected = engine.expected_s(rows)
                if expected < soonest or best < 0:
                    best, soonest = index, expected
        if best >= 0:
            return best
        rests = (e.quarantine.rest_s for e in self.engines if e.quarantine)
        raise DrainingError(
            "No engine of model {model} works at the moment.",
            hint="They are tried again by and by; ask again later.",
            model=self.info.name,
            retry_after_s=min(rests, default=1.0),
        )

    def _spare(self, rows: int, failed: int) -> int | None:
        """Who tries again: another engine, or the same where its process has been replaced."""
        try:
            return self._pick(rows, (failed,))
        except DrainingError:
            return failed if self.engines[failed].restarts else None

    def _examine(self, engine: Engine) -> None:
        """Ask it a question that it has answered before: was it the engine, or the request?"""
        if not engine.probing:
            engine.probing = True
            self._start(self._probe(engine))

    async def _probe(self, engine: Engine) -> None:
        try:
            if reason := await asyncio.to_thread(engine.probe):
                self._put_away(engine, reason)
        finally:
            engine.probing = False

    def _put_away(self, engine: Engine, reason: str) -> None:
        if engine.quarantine is None:
            engine.quarantine = Quarantine(reason)
            self._start(self._readmit(engine, engine.quarantine))

    async def _readmit(self, engine: Engine, quarantine: Quarantine) -> None:
        """Try it after ever longer rests until it answers."""
        while True:
            await asyncio.sleep(quarantine.rest_s)
            reason = await asyncio.to_thread(engine.probe)
            if not reason:
                engine.quarantine, engine.strikes = None, 0.0
                return
            quarantine.reason = reason
            quarantine.rest_s = min(2 * quarantine.rest_s, LONGEST_REST_S)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
