"""Gather requests while the engine is busy, run them as one, and give each its own rows back.

There is no timer: a batch leaves as soon as the engine is idle, so a lone request waits for nobody
and a crowd forms batches by itself. A run that is short is made on the event loop; a longer one in
one worker thread, where it holds nobody up. Which of the two follows from the time measured.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from autoglm.errors import AutoGLMError, DeadlineError, ExecutionError, OverloadedError
from autoglm.serve.core import ModelInfo, Request
from autoglm.serve.rows import Batching, batching_of, check_shapes, join, split
from autoglm.spec import Feeds, Value

Run = Callable[[Feeds], Mapping[str, Value]]
Outputs = Mapping[str, Value]
_RETIME = 100  # runs in the thread
_INTERPRETER_S = 0.006
_FIRST = 1 << 30  # above every priority that a request may have


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The knobs; `Batcher.limits` may be replaced while serving."""

    max_batch_rows: int = 64
    max_queue_rows: int = 1024
    inline_below_s: float = 0.0005  # a run expected to take longer leaves the event loop
    buckets: tuple[int, ...] = ()  # row counts to pad to, ascending; () = none


@dataclass(slots=True)
class BatchStats:
    """Counted since the start."""

    batches: int = 0
    requests: int = 0
    rows: int = 0
    padded_rows: int = 0  # computed and thrown away
    failed: int = 0
    refused: int = 0
    dropped: int = 0  # cancelled or late before they ran
    run_s: float = 0.0


class _Item:
    """One queued request."""

    __slots__ = ("future", "key", "priority", "request", "rows", "timer")

    def __init__(
        self, future: asyncio.Future[Outputs], request: Request, rows: int, key: Hashable
    ) -> None:
        self.future = future
        self.request = request
        self.rows = rows
        self.key = key
        self.priority = request.priority
        self.timer: asyncio.TimerHandle | None = None

    def forget(self) -> None:
        """Nobody waits for it: its timer would keep it until the deadline."""
        if self.timer is not None:
            self.timer.cancel()


class _Batch:
    """Requests that run together, and what became of them; times are perf_counter_ns()."""

    __slots__ = ("answers", "began", "ended", "error", "items", "rows", "taken")

    def __init__(self, items: list[_Item]) -> None:
        self.items = items
        self.rows = [item.rows for item in items]
        self.answers: list[Outputs] = []
        self.error: AutoGLMError | None = None
        self.taken = time.perf_counter_ns()
        self.began = self.ended = self.taken


class _Lanes:
    """What waits, first by priority, then in turns between clients. Who comes is put in a lane
    only where not all go into the next batch.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._arrived: list[_Item] = []
        self._keyed = False  # whether some of them may have to run apart
        self._lanes: dict[int, dict[str, deque[_Item]]] = {}

    def add(self, item: _Item) -> None:
        """Let it wait."""
        self._arrived.append(item)
        self.rows += item.rows
        if item.key is not None:
            self._keyed = True

    def __iter__(self) -> Iterator[_Item]:
        self._line_up()
        return (i for level in self._lanes.values() for lane in level.values() for i in lane)

    def _line_up(self) -> None:
        for item in self._arrived:
            level = self._lanes.setdefault(item.priority, {})
            level.setdefault(item.request.client.name, deque()).append(item)
        self._arrived = []

    def _take_arrived(self) -> tuple[list[_Item], int]:
        arrived, self._arrived, self.rows = self._arrived, [], 0
        batch = [item for item in arrived if not item.future.done()]
        if len(batch) < len(arrived):
            for item in arrived:
                if item.future.done():
                    item.forget()
        return batch, len(arrived) - len(batch)

    def take(self, max_rows: int, alone: bool) -> tuple[list[_Item], int]:
        """The next batch: one key, at most `max_rows` (a first item may be over it alone), and
        how many waiting items were dropped because nobody waits for them any more.
        """
        if self.rows <= max_rows and not (alone or self._keyed or self._lanes):
            return self._take_arrived()
        self._line_up()
        batch: list[_Item] = []
        room, dropped = max_rows, 0
        for priority in sorted(self._lanes, reverse=True):
            level = self._lanes[priority]
            turns = deque(level)
            while turns and room > 0:
                client = turns.popleft()
                lane = level[client]
                only = not turns
                while lane:
                    item = lane[0]
                    if item.future.done():
                        item.forget()
                        lane.popleft()
                        self.rows -= item.rows
                        dropped += 1
                        continue
                    if batch and (alone or item.key != batch[0].key or item.rows > room):
                        room = 0 if alone else room
                        only = True  # this lane has to wait for the next batch
                        break
                    lane.popleft()
                    self.rows -= item.rows
                    room -= item.rows
                    batch.append(item)
                    if room <= 0 or not only:
                        break
                if not lane:
                    del level[client]
                elif not only:
                    turns.append(client)
                    level[client] = level.pop(client)  # whoever was served goes to the back
            if not level:
                del self._lanes[priority]
        self._keyed = bool(self._lanes)
        return batch, dropped

    def drop_dead(self) -> int:
        """Forget what nobody waits for; how many there were."""
        self._line_up()
        dead = 0
        for level in self._lanes.values():
            for client, lane in level.items():
                live = deque[_Item]()
                for item in lane:
                    if item.future.done():
                        item.forget()
                    else:
                        live.append(item)
                dead += len(lane) - len(live)
                level[client] = live
        self.rows = sum(i.rows for v in self._lanes.values() for lane in v.values() for i in lane)
        return dead


class Batcher:
    """The queue in front of one engine. All methods but the engine's run belong to the loop."""

    def __init__(
        self, run: Run, info: ModelInfo, limits: BatchLimits | None = None, *, joins: bool = True
    ) -> None:
        self.run = run
        self.info = info
        self.limits = limits or BatchLimits()
        self.stats = BatchStats()
        # Of one run, by the bit length of its rows. What disturbs a run only makes it longer, so
        # the shortest counts, and a longer one raises it by a tenth at most.
        self._times: dict[int, float] = {}
        self._offloaded = 0
        self._batching: Batching = batching_of(info)
        if not joins:
            self._batching = replace(self._batching, joins=False, fixed=0)
        self._lanes = _Lanes()
        self._busy = False
        self._running: _Batch | None = None  # in the thread
        self._scheduled = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: ThreadPoolExecutor | None = None

    @property
    def queued_rows(self) -> int:
        """Rows that wait."""
        return self._lanes.rows

    @property
    def busy(self) -> bool:
        """Whether the engine runs, or is about to."""
        return self._busy or self._scheduled

    def retry_after_s(self) -> float:
        """When the present queue will have been answered, by the measured run time."""
        batches = self._lanes.rows / max(1, self.limits.max_batch_rows) + 1
        return batches * max(self._times.values(), default=0.01)

    def expected_s(self, rows: int) -> float | None:
        """Of a run of so many rows, as measured; None before the first."""
        size = rows.bit_length()
        known = self._times.get(size)
        if known is None and (smaller := [s for s in self._times if s < size]):
            return 2 * self._times[max(smaller)]
        return known

    def submit(self, request: Request) -> asyncio.Future[Outputs]:
        """Queue it; awaiting the future gives the outputs, cancelling it drops the request.

        Raises InvalidRequestError for what does not fit, OverloadedError when the queue is full.
        """
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        rows, key = check_shapes(self._batching, request.inputs)
        lanes = self._lanes
        if lanes.rows + rows > self.limits.max_queue_rows and lanes.rows:
            self._make_room(rows)
        future: asyncio.Future[Outputs] = loop.create_future()
        item = _Item(future, request, rows, key)
        if request.deadline is not None:
            left = request.deadline - time.monotonic()
            if left <= 0:
                raise self._late()
            item.timer = loop.call_later(left, self._expire, future)
        if request.marks is not None:
            request.marks.append(("queue", time.perf_counter_ns()))
        lanes.add(item)
        if not (self._scheduled or self._busy):
            self._scheduled = True
            loop.call_soon(self._flush)
        return future

    def close(self) -> None:
        """Let the worker thread go, after what it runs; may be called twice."""
        if self._thread is not None:
            self._thread.shutdown(wait=False)
            self._thread = None

    def abandon(self, running: AutoGLMError, waiting: AutoGLMError) -> None:
        """Fail what runs in the thread, and what waits: the engine hangs. Should it come back, the
        queue goes on.
        """
        runs = self._running.items if self._running is not None else []
        for items, error in ((runs, running), (list(self._lanes), waiting)):
            for item in items:
                if not item.future.done():
                    item.future.set_exception(error)
                item.forget()
        self.stats.dropped += self._lanes.drop_dead()

    def _make_room(self, rows: int) -> None:
        self.stats.dropped += self._lanes.drop_dead()
        if self._lanes.rows + rows > self.limits.max_queue_rows and self._lanes.rows:
            self.stats.refused += 1
            raise OverloadedError(
                "Model {model} has {queued} rows waiting; its queue takes {limit}.",
                hint="Send it again after {retry_after_s} s.",
                model=self.info.name,
                queued=self._lanes.rows,
                limit=self.limits.max_queue_rows,
                retry_after_s=round(self.retry_after_s(), 3),
            )

    def _late(self) -> DeadlineError:
        return DeadlineError("The deadline passed before model {model} ran.", model=self.info.name)

    def _expire(self, future: asyncio.Future[Outputs]) -> None:
        if not future.done():
            future.set_exception(self._late())

    def _flush(self) -> None:
        self._scheduled = False
        limits = self.limits
        most = self._batching.fixed or limits.max_batch_rows
        items, dropped = self._lanes.take(most, not self._batching.joins)
        self.stats.dropped += dropped
        if not items:
            return
        batch = _Batch(items)
        if self._on_loop(sum(batch.rows)):
            self._answer(batch)
            self._deliver(batch)
            self._next()
            return
        assert self._loop is not None
        if self._thread is None:
            name = f"engine {self.info.name}"
            self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._busy, self._running = True, batch
        self._thread.submit(self._answer_apart, batch, self._loop)

    def _on_loop(self, rows: int) -> bool:
        expected, limit = self.expected_s(rows), self.limits.inline_below_s
        if expected is None or expected < limit:
            return expected is not None
        # A busy loop makes a thread wait for the interpreter for up to 5 ms after each run, which
        # looks like the run itself: now and then such a model is timed on the loop.
        self._offloaded += 1
        return limit > 0 and self._offloaded % _RETIME == 0 and expected < limit + _INTERPRETER_S

    def _answer_apart(self, batch: _Batch, loop: asyncio.AbstractEventLoop) -> None:
        self._answer(batch)
        loop.call_soon_threadsafe(self._returned, batch)

    def _returned(self, batch: _Batch) -> None:
        self._busy, self._running = False, None
        # The engine is idle: the next batch starts before the answers of this one are handed out.
        if self._lanes.rows and not self._scheduled:
            self._flush()
        self._deliver(batch)

    def _next(self) -> None:
        if self._lanes.rows and not (self._busy or self._scheduled):
            assert self._loop is not None
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _answer(self, batch: _Batch) -> None:
        """One run for all of them."""
        items = batch.items
        try:
            pads = self._batching.pads or self.limits.buckets
            if not self._batching.joins or (len(items) == 1 and not pads):
                item = items[0]
                batch.answers = [self._timed(batch, item.request.inputs, item.rows, 0)]
            else:
                batch.answers = self._together(batch)
        except BaseException as error:  # an engine may raise anything; the client is told why
            batch.error = as_error(error)

    def _together(self, batch: _Batch) -> list[Outputs]:
        feeds, total = [item.request.inputs for item in batch.items], sum(batch.rows)
        size = max(total, self._batching.fixed or _bucket(total, self.limits.buckets))
        outputs = self._timed(batch, join(feeds, size - total), total, size - total)
        parts = split(outputs, batch.rows, size)
        if parts is None:  # some output has no row for each input row: this model takes no batches
            self._batching = replace(self._batching, joins=False, fixed=0)
            each = zip(feeds, batch.rows, strict=True)
            return [self._timed(batch, one, rows, 0) for one, rows in each]
        return parts

    def _timed(self, batch: _Batch, feeds: Feeds, rows: int, padding: int) -> Outputs:
        batch.began = time.perf_counter_ns()
        outputs = self.run(feeds)
        batch.ended = time.perf_counter_ns()
        took = (batch.ended - batch.began) * 1e-9
        stats, size = self.stats, (rows + padding).bit_length()
        stats.batches += 1
        stats.rows += rows
        stats.padded_rows += padding
        stats.run_s += took
        self._times[size] = min(took, 1.1 * self._times.get(size, took))
        return outputs

    def _deliver(self, batch: _Batch) -> None:
        items, error = batch.items, batch.error
        # One that took too long would do so again, each by itself.
        if error is not None and len(items) > 1 and not isinstance(error, DeadlineError):
            self._one_by_one(items)
            return
        answers: Sequence[Outputs | AutoGLMError] = batch.answers
        if error is not None:
            answers = [error] * len(items)
            self.stats.failed += len(items)
        self.stats.requests += len(items)
        times = (("batch", batch.taken), ("device", batch.began), ("reply", batch.ended))
        for item, answer in zip(items, answers, strict=True):
            if item.request.marks is not None:
                item.request.marks += times
            if item.timer is not None:
                item.timer.cancel()
            if item.future.done():
                continue
            if isinstance(answer, AutoGLMError):
                item.future.set_exception(answer)
            else:
                item.future.set_result(answer)

    def _one_by_one(self, items: list[_Item]) -> None:
        """A batch failed: each runs by itself, so that nobody pays for a neighbour."""
        for item in items:
            item.key = object()  # equal to no other
            item.priority = _FIRST
            self._lanes.add(item)
        self._next()


def as_error(error: BaseException) -> AutoGLMError:
    """What an engine raised, as one of our errors."""
    if isinstance(error, AutoGLMError):
        return error
    if isinstance(error, MemoryError):
        return OverloadedError("Not enough memory for this batch.", hint="Send fewer rows.")
    cause = " ".join(str(error).split())[:300] or type(error).__name__
    return ExecutionError("The engine failed: {cause}.", cause=cause)


def _bucket(rows: int, buckets: tuple[int, ...]) -> int:
    return next((size for size in buckets if size >= rows), rows)
