"""One run for many, nothing wrong kept, memory bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from time import monotonic
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.errors import DeadlineError, ExecutionError, OverloadedError
from autoglm.serve.cache import Cache, CacheOptions, key_of
from autoglm.serve.cache.codec import decode, encode
from autoglm.serve.cache.memory import Memory
from autoglm.serve.core import Request, Response


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Model:
    """Counts its runs; each waits for `gate`."""

    def __init__(self, fail: Exception | None = None) -> None:
        self.runs, self.ended, self.fail = 0, 0, fail
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> Response:
        self.runs += 1
        number = self.runs
        try:
            await self.gate.wait()
        finally:
            self.ended += 1
        if self.fail:
            raise self.fail
        return answer(float(number))


def answer(value: float, rows: int = 1) -> Response:
    return Response("m", "1", {"y": np.full((rows, 4), value, "float32")}, "id-of-first")


def asked(**inputs: Any) -> Request:
    return Request("m", inputs or {"x": np.arange(4, dtype="float32")})


def play(story: Callable[[], Awaitable[Any]]) -> Any:
    return asyncio.run(asyncio.wait_for(story(), 20))


KEY = b"k" * 32


def test_what_was_answered_is_not_run_again() -> None:
    async def story() -> None:
        cache, model = Cache(), Model()
        first = await cache.answer(KEY, model)
        second = await cache.answer(KEY, model)

        assert model.runs == 1
        np.testing.assert_array_equal(first.outputs["y"], second.outputs["y"])
        assert (first.id, second.id) == ("", "")
        assert cache.stats.hit_rate == 0.5

    play(story)


def test_who_asks_just_as_a_run_ends_in_vain_runs_it_again() -> None:
    async def story() -> None:
        cache, model = Cache(), Model()
        asking: list[asyncio.Task[Response]] = []

        async def late() -> Response:
            # Its first step comes after the end of this run, before anybody is told of that.
            asking.append(asyncio.create_task(cache.answer(KEY, model, monotonic() + 2)))
            raise DeadlineError("late")

        with pytest.raises(DeadlineError):
            await cache.answer(KEY, late)
        await asking[0]
        await cache.answer(KEY, model)

        assert model.runs == 1

    play(story)


def test_nobody_can_change_anothers_answer() -> None:
    async def story() -> None:
        cache, model = Cache(), Model()
        first = await cache.answer(KEY, model)
        first.outputs = {}
        second = await cache.answer(KEY, model)
        with pytest.raises(ValueError, match="read-only"):
            second.outputs["y"][0] = 7
        second.outputs.clear()  # type: ignore[attr-defined]

        assert (await cache.answer(KEY, model)).outputs["y"].tolist() == [[1, 1, 1, 1]]

    play(story)


def test_many_who_ask_at_once_cost_one_run() -> None:
    async def story() -> None:
        cache, model = Cache(), Model()
        model.gate.clear()
        asking = [asyncio.create_task(cache.answer(KEY, model)) for _ in range(50)]
        await asyncio.sleep(0)
        model.gate.set()
        answers = await asyncio.gather(*asking)

        assert model.runs == 1
        assert {a.outputs["y"][0, 0] for a in answers} == {1.0}
        assert (cache.stats.misses, cache.stats.joined) == (1, 49)

    play(story)


def test_one_waiter_that_leaves_does_not_take_the_others_along() -> None:
    async def story() -> None:
        cache, model = Cache(), Model()
        model.gate.clear()
        first, second = (asyncio.create_task(cache.answer(KEY, model)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        model.gate.set()

        assert (await second).outputs["y"][0, 0] == 1.0
        assert model.runs == 1

    play(story)


def test_the_run_ends_with_the_last_waiter_and_the_next_one_starts_anew() -> None:
    async def story() -> None:
        cache, model = Cache(), Model()
        model.gate.clear()
        asking = [asyncio.create_task(cache.answer(KEY, model)) for _ in range(3)]
        await asyncio.sleep(0.01)
        for task in asking:
            task.cancel()
        late = asyncio.create_task(cache.answer(KEY, model))
        await asyncio.gather(*asking, return_exceptions=True)
        model.gate.set()

        assert (await late).outputs["y"][0, 0] >= 1.0
        assert model.ended == model.runs

    play(story)


def test_an_error_reaches_all_who_wait_and_is_never_kept() -> None:
    async def story() -> None:
        cache, model = Cache(), Model(ExecutionError("The engine failed: {cause}.", cause="x"))
        model.gate.clear()
        asking = [asyncio.create_task(cache.answer(KEY, model)) for _ in range(3)]
        await asyncio.sleep(0)
        model.gate.set()
        got = await asyncio.gather(*asking, return_exceptions=True)
        model.fail = None

        assert all(isinstance(e, ExecutionError) for e in got)
        assert (await cache.answer(KEY, model)).outputs["y"][0, 0] == 2.0

    play(story)


def test_anothers_missed_deadline_is_not_ours() -> None:
    async def story() -> None:
        cache, hasty, patient = Cache(), Model(DeadlineError("late")), Model()
        hasty.gate.clear()
        first = asyncio.create_task(cache.answer(KEY, hasty))
        await asyncio.sleep(0)
        second = asyncio.create_task(cache.answer(KEY, patient))
        await asyncio.sleep(0)
        hasty.gate.set()

        with pytest.raises(DeadlineError):
            await first
        assert (await second).outputs["y"][0, 0] == 1.0

    play(story)


def test_who_waits_for_anothers_run_keeps_an_own_deadline() -> None:
    async def story() -> None:
        cache, model = Cache(), Model()
        model.gate.clear()
        first = asyncio.create_task(cache.answer(KEY, model))
        await asyncio.sleep(0)
        with pytest.raises(DeadlineError):
            await cache.answer(KEY, model, monotonic() + 0.01)
        model.gate.set()

        assert (await first).outputs["y"][0, 0] == 1.0

    play(story)


def test_no_key_means_no_cache() -> None:
    async def story() -> None:
        cache, model = Cache(), Model()
        for _ in range(3):
            await cache.answer(None, model)

        assert model.runs == 3

    play(story)


def test_closing_ends_what_runs() -> None:
    async def story() -> None:
        cache, model = Cache(), Model()
        model.gate.clear()
        asking = asyncio.create_task(cache.answer(KEY, model))
        await asyncio.sleep(0.01)
        await cache.close()
        with pytest.raises(Exception, match="given up"):
            await asking
        assert model.ended == 1

    play(story)


def test_old_answers_are_gone_and_a_clock_decides() -> None:
    clock = Clock()
    memory = Memory(1 << 20, 10.0, clock)
    memory.put(KEY, answer(1))
    clock.now = 9.9
    assert memory.get(KEY) is not None
    clock.now = 10.0
    assert memory.get(KEY) is None
    assert (len(memory), memory.nbytes) == (0, 0)


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 40)), max_size=60))
def test_memory_never_passes_its_bound(puts: list[tuple[int, int]]) -> None:
    memory = Memory(8000, 100.0, Clock())
    for number, rows in puts:
        memory.put(bytes([number]), answer(number, rows))
        memory.get(b"\x00")

        assert 0 <= memory.nbytes <= 8000
    memory.clear()
    assert memory.nbytes == 0


def test_the_least_recently_used_goes_first() -> None:
    memory = Memory(4 * 600, 100.0, Clock())
    for number in range(4):
        memory.put(bytes([number]), answer(number))
    memory.get(b"\x00")
    memory.put(b"\x09", answer(9))

    assert memory.get(b"\x00") is not None
    assert memory.get(b"\x01") is None


def test_a_row_of_a_batch_does_not_keep_the_batch_alive() -> None:
    async def story() -> None:
        cache, batch = Cache(), np.zeros((64, 1024), "float32")

        async def run() -> Response:
            return Response("m", "1", {"y": batch[3:4]})

        await cache.answer(KEY, run)
        kept = cache.memory.get(KEY)

        assert kept is not None
        assert not np.shares_memory(kept.outputs["y"], batch)
        assert batch.flags.writeable

    play(story)


DIFFERENT = [
    asked(),
    asked(x=np.arange(4, dtype="int32").view("float32")),
    asked(x=np.arange(4, dtype="float64")),
    asked(x=np.arange(4, dtype="float32").reshape(2, 2)),
    asked(z=np.arange(4, dtype="float32")),
    asked(x=np.arange(2, dtype="float32"), y=np.arange(2, 4, dtype="float32")),
    asked(x=np.array(["a", "bc"], object)),
    asked(x=np.array(["ab", "c"], object)),
    replace(asked(), outputs=("y",)),
    replace(asked(), parameters={"temperature": 2}),
    replace(asked(), model="other"),
]


def test_different_questions_have_different_keys() -> None:
    keys = [key_of("d", r) for r in DIFFERENT] + [key_of("other digest", asked())]

    assert None not in keys
    assert len(set(keys)) == len(keys)


def test_the_same_question_has_one_key_whoever_asks_and_however_it_is_laid_out() -> None:
    image = np.arange(24, dtype="float32").reshape(4, 6)
    ways = [
        asked(x=image),
        replace(asked(x=image), id="7", priority=3, traceparent="00-x", deadline=1.0),
        asked(x=np.asfortranarray(image)),
        asked(x=np.ascontiguousarray(image[::-1])[::-1]),
    ]

    assert len({key_of("d", r) for r in ways}) == 1


def test_who_asks_for_no_cache_or_gives_no_tensor_gets_none() -> None:
    assert key_of("d", replace(asked(), parameters={"cache": False})) is None
    assert key_of("", asked()) is None
    assert key_of("d", asked(x=None)) is None


def test_scalars_empty_and_narrow_types_have_keys() -> None:
    for value in (np.float32(3)[...], np.zeros((0, 4)), np.zeros(3, ml_dtypes.bfloat16)):
        assert key_of("d", asked(x=value)) is not None


ANSWERS = Response(
    "m",
    "2",
    {
        "f": np.arange(6, dtype="float32").reshape(2, 3),
        "h": np.arange(3).astype(ml_dtypes.bfloat16),
        "s": np.array([["ä", ""], ["b", "\0"]], object),
        "e": np.zeros((0, 2), "int64"),
        "b": np.array(True),
    },
    "",
    {"n": 1, "t": "x", "f": 0.5, "b": True},
)


def test_an_answer_comes_back_from_bytes_as_it_was() -> None:
    data = encode(KEY, ANSWERS)
    assert data is not None
    back = decode(KEY, data)

    assert back is not None
    assert (back.model, back.version, back.parameters) == ("m", "2", ANSWERS.parameters)
    for name, value in ANSWERS.outputs.items():
        assert back.outputs[name].dtype == value.dtype
        assert back.outputs[name].shape == value.shape
        np.testing.assert_array_equal(back.outputs[name], value)


@given(st.data())
def test_a_changed_or_cut_value_is_no_answer(data: st.DataObject) -> None:
    whole = encode(KEY, ANSWERS)
    assert whole is not None
    at = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[at] ^= data.draw(st.integers(1, 255))

    assert decode(KEY, bytes(flipped)) is None
    assert decode(KEY, whole[:at]) is None
    assert decode(KEY, whole + b"x") is None
    assert decode(b"another key", whole) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_no_answer(data: bytes) -> None:
    assert decode(KEY, data) is None
    assert decode(KEY, b"AGA1" + data) is None


def test_a_full_queue_is_not_kept_either() -> None:
    async def story() -> None:
        cache, model = Cache(CacheOptions()), Model(OverloadedError("full", retry_after_s=1))
        with pytest.raises(OverloadedError):
            await cache.answer(KEY, model)
        model.fail = None
        assert (await cache.answer(KEY, model)).outputs["y"][0, 0] == 2.0

    play(story)
