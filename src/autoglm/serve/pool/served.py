"""One version that answers: its engines, by expected latency; a failing one is left alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from autoglm.errors import (
    AutoGLMError,
    BackendError,
    BackendUnavailableError,
    DeadlineError,
    DrainingError,
    OverloadedError,
)
from autoglm.serve.batch import Batcher
from autoglm.serve.core import ModelInfo, Request
from autoglm.serve.pool.engine import (
    FIRST_REST_S,
    LONGEST_REST_S,
    Engine,
    Quarantine,
    close_all,
    rows_of,
)
from autoglm.serve.pool.threads import in_thread
from autoglm.spec import Feeds, Value

Outputs = Mapping[str, Value]


@dataclass(slots=True, eq=False)
class Served:
    """One version of one model, ready. All but `run` belongs to the event loop."""

    info: ModelInfo
    engines: tuple[Engine, ...]
    batchers: Sequence[Batcher]  # one for each engine
    again: Callable[[Request], Awaitable[Outputs]]  # looks the version up anew
    used_at: float = field(default_factory=time.monotonic)
    inflight: int = 0
    closed: bool = False
    _idle: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def run(self, feeds: Feeds) -> Outputs:
        """Run at once on the engine that is free soonest; for callers that batch by themselves."""
        return self.engines[self._pick(rows_of(feeds))].run(feeds)

    async def infer(self, request: Request) -> Outputs:
        """Answer; what one engine fails at, another tries once."""
        if self.closed:
            # It was replaced, evicted or unloaded since it was looked up.
            return await self.again(replace(request, version=self.info.version))
        rows = rows_of(request.inputs)
        first = self._pick(rows)
        self.used_at = time.monotonic()
        self.inflight += 1
        engine = self.engines[first]
        engine.waiting_rows += rows
        try:  # the way of nearly every request: no call more than it takes
            outputs = await self.batchers[first].submit(request)
        except (OverloadedError, BackendError) as error:
            engine.waiting_rows -= rows
            rows = 0  # it waits elsewhere now
            return await self._elsewhere(request, first, error)
        else:
            if engine.strikes:
                engine.answered()
            return outputs
        finally:
            engine.waiting_rows -= rows
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
        for batcher in self.batchers:
            batcher.close()
        await in_thread(close_all, self.engines)
        return True

    def look(self) -> None:
        """Leave every engine alone whose run hangs. What it runs may be why, and is not tried
        again; what waits for it is asked elsewhere. Examine what ended such a run by itself.
        """
        if self.closed and not self.inflight:
            return  # its engines close
        for engine, batcher in zip(self.engines, self.batchers, strict=True):
            if engine.late:
                self._examine(engine)
            if reason := engine.hangs():
                self._put_away(engine, reason)
                batcher.abandon(
                    self._no_answer(DeadlineError, engine, reason),
                    self._no_answer(BackendUnavailableError, engine, reason),
                )

    def _no_answer(self, kind: type[AutoGLMError], engine: Engine, reason: str) -> AutoGLMError:
        return kind(
            "Engine {engine} of model {model} gives no answer: {reason}.",
            hint="A thread cannot be ended; the process of an engine that has one (--process) is.",
            engine=engine.name,
            model=self.info.name,
            reason=reason,
        )

    async def _elsewhere(
        self, request: Request, first: int, cause: OverloadedError | BackendError
    ) -> Outputs:
        """Try it once more: on another engine, or on the same where its process is replaced."""
        rows, failed = rows_of(request.inputs), self.engines[first]
        second = self._other(rows, first)
        if isinstance(cause, BackendError):
            failed.failures += 1
            self._examine(failed)
            second = first if second is None and failed.restarts else second
        if second is None:
            raise cause
        engine = self.engines[second]
        engine.waiting_rows += rows
        try:
            outputs = await self.batchers[second].submit(request)
        finally:
            engine.waiting_rows -= rows
        # Another engine could answer it, so the request was not at fault.
        if second != first and isinstance(cause, BackendError) and failed.failed_alone():
            self._put_away(failed, str(cause))
        return outputs

    def _pick(self, rows: int) -> int:
        """Whose answer is expected soonest; DrainingError where every engine rests."""
        if len(self.engines) == 1 and self.engines[0].quarantine is None:
            return 0
        index = self._other(rows, -1)
        if index is not None:
            return index
        rests = (e.quarantine.rest_s for e in self.engines if e.quarantine)
        raise DrainingError(
            "No engine of model {model} works at the moment.",
            hint="They are tried again by and by; ask again later.",
            model=self.info.name,
            retry_after_s=min(rests, default=1.0),
        )

    def _other(self, rows: int, without: int) -> int | None:
        """The best engine but one; None where there is no other."""
        able = [i for i, e in enumerate(self.engines) if e.quarantine is None and i != without]
        return min(able, key=lambda i: self.engines[i].expected_s(rows), default=None)

    def _examine(self, engine: Engine) -> None:
        """Ask it a question that it has answered before: was it the engine, or the request?"""
        if not engine.probing:
            engine.probing = True
            self._start(self._probe(engine))

    async def _probe(self, engine: Engine) -> None:
        try:
            if reason := await in_thread(engine.probe):
                self._put_away(engine, reason)
        finally:
            engine.probing = False

    def _put_away(self, engine: Engine, reason: str) -> None:
        if engine.quarantine is None:
            engine.quarantine = Quarantine(reason, FIRST_REST_S)
            self._start(self._readmit(engine, engine.quarantine))

    async def _readmit(self, engine: Engine, quarantine: Quarantine) -> None:
        """Try it after ever longer rests until it answers."""
        while True:
            await asyncio.sleep(quarantine.rest_s)
            reason = engine.hangs() or await in_thread(engine.probe)
            if not reason:
                engine.quarantine, engine.strikes = None, 0.0
                return
            quarantine.reason = reason
            quarantine.rest_s = min(2 * quarantine.rest_s, LONGEST_REST_S)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
