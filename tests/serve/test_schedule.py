"""Several engines for one model: by expected latency; a failing one is left alone, and comes back.

The engines here are tiny sessions that do as they are told; a real one is killed in
`test_pool_process`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest

from autoglm.errors import (
    DeadlineError,
    DrainingError,
    ExecutionError,
    InvalidRequestError,
    OverloadedError,
)
from autoglm.serve.batch import Batcher, BatchLimits
from autoglm.serve.core import ModelInfo, Request
from autoglm.serve.pool import engine as engine_module
from autoglm.serve.pool import served as served_module
from autoglm.serve.pool.engine import Engine, rows_of
from autoglm.serve.pool.served import Served
from autoglm.spec import Feeds, TensorInfo, Value

X = np.ones((2, 4), np.float32)
INFO = ModelInfo(
    "m",
    "1",
    (TensorInfo("x", "float32", ("n", 4)),),
    (TensorInfo("y", "float32", ("n", 4)),),
    "ready",
)


class Told:
    """A session that answers its own number, or fails as it is told."""

    def __init__(self, number: float) -> None:
        self.number = number
        self.fails = False
        self.poison = False
        self.takes_s = 0.0
        self.waits_for: threading.Event | None = None
        self.runs = 0
        self.closed = 0

    def run(self, feeds: Feeds) -> dict[str, Value]:
        self.runs += 1
        if self.waits_for is not None:
            self.waits_for.wait(30)
        if self.takes_s:
            time.sleep(self.takes_s)
        if self.fails or (self.poison and feeds["x"].min() < 0):
            raise ExecutionError("engine {number} broke", number=self.number)
        return {"y": np.full_like(feeds["x"], self.number)}

    def close(self) -> None:
        self.closed += 1


async def nowhere(request: Request) -> dict[str, Value]:
    raise AssertionError(request)


def served(*sessions: Told, limits: BatchLimits | None = None) -> Served:
    engines = tuple(Engine(f"e{s.number:g}", s, {"x": X}) for s in sessions)
    return Served(INFO, engines, [Batcher(e.run, INFO, limits) for e in engines], nowhere)


async def ask(served: Served, value: float = 1.0) -> float:
    answer = await served.infer(Request("m", {"x": X * np.float32(value)}))
    return float(answer["y"][0, 0])


def run(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await work

    asyncio.run(bounded())


@pytest.fixture(autouse=True)
def _short_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_module, "FIRST_REST_S", 0.01)


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def test_the_engine_that_is_free_soonest_gets_the_request() -> None:
    async def work() -> None:
        model = served(Told(1), Told(2))
        fast, slow = model.engines
        fast.row_s = fast.best_row_s = 0.001
        slow.row_s = slow.best_row_s = 0.003

        fast.waiting_rows = 3  # 5 rows of 1 ms against 2 of 3 ms
        assert await ask(model) == 1
        fast.row_s, fast.waiting_rows = 0.001, 9  # 11 of 1 ms against 2 of 3 ms
        assert await ask(model) == 2

    run(work())


def test_work_spreads_as_the_engines_speeds_are() -> None:
    async def work() -> None:
        fast, slow = Told(1), Told(2)
        fast.takes_s, slow.takes_s = 0.002, 0.02
        model = served(fast, slow, limits=BatchLimits(max_batch_rows=2))
        for engine in model.engines:
            assert engine.probe() == ""

        answers = await asyncio.gather(*(ask(model) for _ in range(60)))

        assert set(answers) == {1, 2}
        assert answers.count(1) > 3 * answers.count(2)

    run(work())


def test_an_engine_that_was_slow_once_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine("e", Told(1), {"x": X})
    assert engine.probe() == ""
    engine.row_s = 5.0
    now = time.monotonic()
    assert engine.expected_s(1) == 5.0

    monkeypatch.setattr(engine_module.time, "monotonic", lambda: now + 60)

    assert engine.expected_s(1) < 1.0


def test_an_engine_that_hangs_is_passed_over_by_the_next_request() -> None:
    async def work() -> None:
        release = threading.Event()
        hung, good = Told(1), Told(2)
        model = served(hung, good, limits=BatchLimits(inline_below_s=0.0))
        for engine in model.engines:
            assert engine.probe() == ""
        model.engines[1].row_s = model.engines[1].best_row_s = 0.01
        hung.waits_for = release
        late = asyncio.create_task(
            model.infer(Request("m", {"x": X}, deadline=time.monotonic() + 0.1))
        )
        with pytest.raises(DeadlineError):
            await late

        assert [await ask(model) for _ in range(5)] == [2] * 5
        release.set()
        assert await model.retire(30)

    run(work())


def test_a_request_that_one_engine_fails_at_is_answered_by_another() -> None:
    async def work() -> None:
        broken, good = Told(1), Told(2)
        model = served(broken, good)
        model.engines[1].row_s = model.engines[1].best_row_s = 9.0  # never the first choice
        broken.fails = True

        assert [await ask(model) for _ in range(5)] == [2] * 5
        await until(lambda: model.engines[0].quarantine)
        assert "engine 1 broke" in model.engines[0].quarantine.reason
        runs = good.runs
        await ask(model)
        assert good.runs == runs + 1

    run(work())


def test_an_engine_comes_back_when_it_answers_a_probe() -> None:
    async def work() -> None:
        broken, good = Told(1), Told(2)
        model = served(broken, good)
        model.engines[1].row_s = model.engines[1].best_row_s = 9.0
        broken.fails = True
        await ask(model)
        await until(lambda: model.engines[0].quarantine)
        runs = broken.runs
        await until(lambda: broken.runs > runs)  # probed, and still broken
        assert model.engines[0].quarantine is not None

        broken.fails = False

        await until(lambda: model.engines[0].quarantine is None)
        assert await ask(model) == 1

    run(work())


def test_a_request_at_fault_puts_no_engine_away() -> None:
    async def work() -> None:
        sessions = Told(1), Told(2)
        for session in sessions:
            session.poison = True
        model = served(*sessions)

        for _ in range(20):
            with pytest.raises(ExecutionError, match="broke"):
                await ask(model, -1.0)
        await until(lambda: not any(e.probing for e in model.engines))

        assert [e.quarantine for e in model.engines] == [None, None]
        assert await ask(model) in (1, 2)

    run(work())


def test_an_engine_that_fails_at_every_third_request_is_found_out() -> None:
    async def work() -> None:
        flaky, good = Told(1), Told(2)
        flaky.poison = True  # fails at some of what the other answers, and never at a probe
        model = served(flaky, good)
        model.engines[1].row_s = model.engines[1].best_row_s = 9.0

        answers = [await ask(model, -1.0 if turn % 3 == 0 else 1.0) for turn in range(20)]

        assert 1 in answers
        assert answers[-3:] == [2, 2, 2]

    run(work())


def test_when_no_engine_works_the_answer_says_so_and_when_to_come_back() -> None:
    async def work() -> None:
        session = Told(1)
        model = served(session)
        session.fails = True
        with pytest.raises(ExecutionError, match="engine 1 broke"):
            await ask(model)
        await until(lambda: model.engines[0].quarantine)

        with pytest.raises(DrainingError, match="No engine of model m works") as raised:
            await ask(model)
        assert raised.value.facts["retry_after_s"] > 0
        session.fails = False
        await until(lambda: model.engines[0].quarantine is None)
        assert await ask(model) == 1

    run(work())


def test_what_the_client_did_wrong_is_not_tried_again() -> None:
    async def work() -> None:
        sessions = Told(1), Told(2)
        model = served(*sessions)

        with pytest.raises(InvalidRequestError):
            await model.infer(Request("m", {"z": X}))

        assert [s.runs for s in sessions] == [0, 0]

    run(work())


def test_a_full_queue_sends_the_request_to_the_other_engine() -> None:
    async def work() -> None:
        limits = BatchLimits(max_batch_rows=2, max_queue_rows=2, inline_below_s=0.0)
        sessions = Told(1), Told(2)
        for session in sessions:
            session.takes_s = 0.05
        model = served(*sessions, limits=limits)
        model.engines[1].row_s = model.engines[1].best_row_s = 9.0

        answers = await asyncio.gather(*(ask(model) for _ in range(8)), return_exceptions=True)

        assert {a for a in answers if isinstance(a, float)} == {1, 2}
        assert any(isinstance(a, OverloadedError) for a in answers)

    run(work())


def test_retiring_waits_for_what_was_accepted_and_closes_once() -> None:
    async def work() -> None:
        session = Told(1)
        session.takes_s = 0.05
        model = served(session, limits=BatchLimits(inline_below_s=0.0))
        asked = asyncio.create_task(ask(model))
        await asyncio.sleep(0)
        assert not await model.retire(0.0)
        assert session.closed == 0

        assert await model.retire(30.0)

        assert asked.done()
        assert await asked == 1
        assert session.closed == 1

    run(work())


def test_rows_are_those_of_the_first_tensor() -> None:
    assert rows_of({"x": X}) == 2
    assert rows_of({"s": [X], "n": None, "x": np.ones((5, 1))}) == 5
    assert rows_of({"scalar": np.float32(1)}) == 1
    assert rows_of({}) == 1
