"""The batcher: who runs with whom, who is refused, and that everybody gets their own rows."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import numpy as np
import pytest

from autoglm.errors import (
    DeadlineError,
    ExecutionError,
    InputError,
    InvalidRequestError,
    OverloadedError,
)
from autoglm.serve.batch import Batcher, BatchLimits
from autoglm.serve.core import Client, ModelInfo, Request
from autoglm.serve.rows import rows_are_independent
from autoglm.spec import Dim, TensorInfo


def info(first: Dim = "n", out: Dim = "n") -> ModelInfo:
    return ModelInfo(
        "m",
        "1",
        (TensorInfo("x", "float32", (first, 2)),),
        (TensorInfo("y", "float32", (out, 2)),),
        "ready",
    )


def request(value: float, rows: int = 1, **more: Any) -> Request:
    return Request("m", {"x": np.full((rows, 2), value, np.float32)}, **more)


class Engine:
    """Doubles its input; remembers the rows of each run; may be held."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.first: list[float] = []
        self.gate = threading.Event()
        self.gate.set()
        self.threads: set[str] = set()

    def __call__(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        self.threads.add(threading.current_thread().name)
        assert self.gate.wait(30)
        self.rows.append(len(feeds["x"]))
        self.first.extend(feeds["x"][:, 0].tolist())
        return {"y": feeds["x"] * 2}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


def play(scene: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(60):
            await scene()

    asyncio.run(whole())


def test_each_request_gets_its_own_rows_back() -> None:
    async def scene() -> None:
        engine = Engine()
        batcher = Batcher(engine, info())
        await batcher.submit(request(1))

        answers = await asyncio.gather(
            *(batcher.submit(request(i, rows=1 + i % 3)) for i in range(30))
        )

        for i, answer in enumerate(answers):
            assert answer["y"].shape == (1 + i % 3, 2)
            assert (answer["y"] == 2 * i).all()
        assert max(engine.rows) > 1
        assert max(engine.rows) <= 64
        assert batcher.stats.requests == 31

    play(scene)


def test_what_waits_while_the_engine_runs_forms_the_next_batch() -> None:
    async def scene() -> None:
        engine = Engine()
        batcher = Batcher(engine, info(), BatchLimits(max_batch_rows=4, inline_below_s=0))
        engine.gate.clear()
        first = batcher.submit(request(0))
        await until(lambda: bool(engine.threads))
        rest = [batcher.submit(request(i)) for i in range(1, 10)]
        engine.gate.set()
        await asyncio.gather(first, *rest)

        assert engine.rows == [1, 4, 4, 1]

    play(scene)


@pytest.mark.parametrize(("below_s", "on_loop"), [(0.0, False), (1000.0, True)])
def test_measured_time_decides_between_loop_and_thread(below_s: float, on_loop: bool) -> None:
    async def scene() -> None:
        engine = Engine()
        batcher = Batcher(engine, info(), BatchLimits(inline_below_s=below_s))
        await batcher.submit(request(0))  # nothing is known yet: in the thread
        engine.threads.clear()

        await batcher.submit(request(0))

        assert (threading.current_thread().name in engine.threads) is on_loop

    play(scene)


def test_a_full_queue_refuses_and_says_when_to_come_again() -> None:
    async def scene() -> None:
        engine = Engine()
        batcher = Batcher(engine, info(), BatchLimits(max_queue_rows=3, inline_below_s=0))
        engine.gate.clear()
        running = batcher.submit(request(0))
        await until(lambda: bool(engine.threads))
        waiting = [batcher.submit(request(i)) for i in range(3)]

        with pytest.raises(OverloadedError) as caught:
            batcher.submit(request(9))

        assert caught.value.facts["retry_after_s"] > 0
        assert caught.value.row.http == 429
        engine.gate.set()
        await asyncio.gather(running, *waiting)
        assert batcher.stats.refused == 1

    play(scene)


def test_cancelled_requests_leave_the_queue_and_are_never_run() -> None:
    async def scene() -> None:
        engine = Engine()
        batcher = Batcher(engine, info(), BatchLimits(max_queue_rows=2, inline_below_s=0))
        engine.gate.clear()
        running = batcher.submit(request(0))
        await until(lambda: bool(engine.threads))
        gone = [batcher.submit(request(7)) for _ in range(2)]
        for future in gone:
            future.cancel()
        kept = batcher.submit(request(5))
        engine.gate.set()
        await asyncio.gather(running, kept)

        assert 7.0 not in engine.first
        assert batcher.stats.dropped == 2
        assert batcher.queued_rows == 0

    play(scene)


def test_a_request_past_its_deadline_is_told_at_once_and_never_run() -> None:
    async def scene() -> None:
        engine = Engine()
        batcher = Batcher(engine, info(), BatchLimits(inline_below_s=0))
        engine.gate.clear()
        running = batcher.submit(request(0))
        await until(lambda: bool(engine.threads))

        with pytest.raises(DeadlineError):
            await batcher.submit(request(7, deadline=time.monotonic() + 0.01))
        with pytest.raises(DeadlineError):
            batcher.submit(request(7, deadline=time.monotonic() - 1))

        engine.gate.set()
        await running
        await batcher.submit(request(1))
        assert 7.0 not in engine.first

    play(scene)


def test_a_neighbour_that_left_takes_nobody_s_deadline_with_it() -> None:
    async def scene() -> None:
        engine = Engine()
        batcher = Batcher(engine, info(), BatchLimits(inline_below_s=0))
        engine.gate.clear()
        gone = batcher.submit(request(7, deadline=time.monotonic() + 3600))
        late = batcher.submit(request(1, deadline=time.monotonic() + 0.05))
        gone.cancel()
        await until(lambda: bool(engine.threads))

        with pytest.raises(DeadlineError):  # while the engine hangs over it
            await late
        engine.gate.set()
        await batcher.submit(request(2))
        assert engine.first == [1.0, 2.0]

    play(scene)


def test_a_crowd_of_all_clients_and_priorities_that_fits_is_one_batch() -> None:
    async def scene() -> None:
        engine = Engine()
        batcher = Batcher(engine, info(), BatchLimits(max_batch_rows=16))
        await batcher.submit(request(0))
        asked = [
            batcher.submit(request(i, rows, priority=i % 3, client=Client(f"client {i % 2}")))
            for i, rows in enumerate((1, 3, 2, 1, 4))
        ]
        answers = await asyncio.gather(*asked)

        assert engine.rows == [1, 11]
        for i, (answer, rows) in enumerate(zip(answers, (1, 3, 2, 1, 4), strict=True)):
            assert np.array_equal(answer["y"], np.full((rows, 2), 2 * i, np.float32))

    play(scene)


def test_clients_take_turns_and_priority_goes_first() -> None:
    async def scene() -> None:
        engine = Engine()
        batcher = Batcher(engine, info(), BatchLimits(max_batch_rows=4, inline_below_s=0))
        engine.gate.clear()
        running = batcher.submit(request(0))
        await until(lambda: bool(engine.threads))
        greedy = [batcher.submit(request(1, client=Client("greedy"))) for _ in range(20)]
        modest = batcher.submit(request(2, client=Client("modest")))
        urgent = batcher.submit(request(3, client=Client("greedy"), priority=5))
        engine.gate.set()
        await asyncio.gather(running, modest, urgent, *greedy)

        assert engine.first[1] == 3.0
        assert 2.0 in engine.first[2:5]

    play(scene)


def test_one_bad_request_does_not_fail_its_neighbours() -> None:
    def picky(feeds: Mapping[str, Any]) -> dict[str, Any]:
        if (feeds["x"] == 13).any():
            raise RuntimeError("thirteen")
        return {"y": feeds["x"]}

    async def scene() -> None:
        batcher = Batcher(picky, info())
        await batcher.submit(request(0))

        answers = await asyncio.gather(
            *(batcher.submit(request(i)) for i in (11, 12, 13, 14)), return_exceptions=True
        )

        assert isinstance(answers[2], ExecutionError)
        assert "thirteen" in str(answers[2])
        assert [a["y"][0, 0] for a in answers if isinstance(a, dict)] == [11, 12, 14]
        assert batcher.stats.failed == 1

    play(scene)


def test_what_took_too_long_is_not_tried_again_one_by_one() -> None:
    runs: list[int] = []

    def late(feeds: Mapping[str, Any]) -> dict[str, Any]:
        runs.append(len(feeds["x"]))
        if len(runs) > 1:
            raise DeadlineError("late")
        return {"y": feeds["x"]}

    async def scene() -> None:
        batcher = Batcher(late, info())
        await batcher.submit(request(0))

        answers = await asyncio.gather(
            *(batcher.submit(request(i)) for i in range(3)), return_exceptions=True
        )

        assert [type(a) for a in answers] == [DeadlineError] * 3
        assert runs == [1, 3]
        assert (batcher.stats.requests, batcher.stats.failed) == (4, 3)

    play(scene)


@pytest.mark.parametrize("raised", [SystemExit(2), KeyboardInterrupt(), GeneratorExit()])
def test_whatever_an_engine_raises_in_the_thread_the_next_request_runs(
    raised: BaseException,
) -> None:
    errors = [raised]

    def engine(feeds: Mapping[str, Any]) -> dict[str, Any]:
        if errors:
            raise errors.pop()
        return {"y": feeds["x"]}

    async def scene() -> None:
        batcher = Batcher(engine, info(), BatchLimits(inline_below_s=0))

        with pytest.raises(ExecutionError, match=str(raised) or type(raised).__name__):
            await asyncio.wait_for(batcher.submit(request(0)), 10)
        await asyncio.wait_for(batcher.submit(request(0)), 10)

    play(scene)


def test_padding_buckets_are_filled_and_counted() -> None:
    async def scene() -> None:
        engine = Engine()
        batcher = Batcher(engine, info(), BatchLimits(buckets=(1, 4, 8)))

        answer = await batcher.submit(request(3, rows=5))

        assert engine.rows == [8]
        assert answer["y"].shape == (5, 2)
        assert batcher.stats.padded_rows == 3

    play(scene)


def test_a_model_of_a_fixed_batch_is_padded_to_it() -> None:
    async def scene() -> None:
        engine = Engine()
        batcher = Batcher(engine, info(8, 8))

        answer = await batcher.submit(request(3, rows=5))

        assert engine.rows == [8]
        assert answer["y"].shape == (5, 2)
        with pytest.raises(InvalidRequestError):
            batcher.submit(request(3, rows=9))

    play(scene)


def test_a_model_whose_outputs_are_not_rows_runs_one_request_at_a_time() -> None:
    def total(feeds: Mapping[str, Any]) -> dict[str, Any]:
        return {"y": feeds["x"].sum(0, keepdims=True)}

    async def scene() -> None:
        batcher = Batcher(total, info(out=None))
        await batcher.submit(request(0))

        answers = await asyncio.gather(*(batcher.submit(request(i, rows=2)) for i in range(5)))

        assert [a["y"][0, 0] for a in answers] == [0, 2, 4, 6, 8]

    play(scene)


@pytest.mark.parametrize(
    "feeds",
    [
        {},
        {"z": np.zeros((1, 2), np.float32)},
        {"x": np.zeros((1, 3), np.float32)},
        {"x": np.zeros((1, 2), np.float64)},
        {"x": np.zeros((0, 2), np.float32)},
        {"x": np.float32(1)},
    ],
)
def test_feeds_that_do_not_fit_are_refused_before_they_wait(feeds: dict[str, Any]) -> None:
    async def scene() -> None:
        engine = Engine()

        with pytest.raises((InputError, InvalidRequestError)):
            await Batcher(engine, info()).submit(Request("m", feeds))

        assert engine.rows == []

    play(scene)


def test_knobs_change_while_serving() -> None:
    async def scene() -> None:
        engine = Engine()
        batcher = Batcher(engine, info())
        await batcher.submit(request(0))
        batcher.limits = BatchLimits(max_batch_rows=2)

        await asyncio.gather(*(batcher.submit(request(i)) for i in range(7)))

        assert max(engine.rows[1:]) == 2

    play(scene)


def test_marks_tell_the_stages_in_order() -> None:
    async def scene() -> None:
        batcher = Batcher(Engine(), info())
        marks: list[Any] = []

        await batcher.submit(request(1, marks=marks))

        assert [mark[0] for mark in marks] == ["queue", "batch", "device", "reply"]
        assert [mark[1] for mark in marks] == sorted(mark[1] for mark in marks)

    play(scene)


@pytest.mark.parametrize("shape", [("boxes", 2), ("n", "n")])
def test_outputs_whose_axes_are_no_rows_are_never_joined(shape: tuple[Dim, ...]) -> None:
    async def scene() -> None:
        engine = Engine()
        output = (TensorInfo("y", "float32", shape),)
        batcher = Batcher(engine, ModelInfo("m", "1", info().inputs, output, "ready"))
        await batcher.submit(request(0))

        await asyncio.gather(*(batcher.submit(request(i)) for i in range(4)))

        assert engine.rows == [1] * 5

    play(scene)


@pytest.mark.parametrize("first", ["n", None, 8])
def test_rows_that_influence_each_other_are_found_out(first: Dim) -> None:
    def centred(feeds: Mapping[str, Any]) -> dict[str, Any]:
        return {"y": feeds["x"] - feeds["x"].mean(0)}

    feeds = [{"x": np.random.default_rng(i).random((1, 2), np.float32)} for i in (1, 2)]

    assert rows_are_independent(info(first, first), Engine(), feeds)
    assert rows_are_independent(info(first, first), Engine(), feeds[:1])
    assert not rows_are_independent(info(first, first), centred, feeds)


def test_a_model_found_out_runs_one_request_at_a_time() -> None:
    async def scene() -> None:
        engine = Engine()
        batcher = Batcher(engine, info(), BatchLimits(buckets=(4,)), joins=False)

        await asyncio.gather(*(batcher.submit(request(i)) for i in range(3)))

        assert engine.rows == [1, 1, 1]

    play(scene)


def test_a_crowd_before_a_model_of_a_fixed_batch_fills_each_run() -> None:
    async def scene() -> None:
        engine = Engine()
        batcher = Batcher(engine, info(8, 8))

        await asyncio.gather(*(batcher.submit(request(i)) for i in range(64)))

        assert engine.rows == [8] * 8

    play(scene)


@pytest.mark.parametrize("full", [False, True])
def test_a_cancelled_request_is_not_kept_until_its_deadline(full: bool) -> None:
    async def scene() -> None:
        batcher = Batcher(Engine(), info(), BatchLimits(max_queue_rows=1))
        late = time.monotonic() + 3600
        gone = batcher.submit(request(7, deadline=late))
        left = weakref.ref(gone)
        gone.cancel()
        if full:
            await batcher.submit(request(1))
        else:
            await asyncio.sleep(0.01)
        del gone
        gc.collect()

        assert left() is None

    play(scene)
