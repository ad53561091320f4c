"""Preloads: by the clock, which may jump, and by what usually follows; and what that is worth."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from served_bundles import X, bundle

from autoglm.errors import LimitError
from autoglm.serve.core import Client, Request
from autoglm.serve.pool import Pool, repository
from autoglm.serve.routes import Preloader, Table
from autoglm.serve.routes.cron import parse_cron
from autoglm.serve.routes.preload import CLIENTS, Successors
from autoglm.serve.routes.table import Sequence

MONDAY = datetime(2026, 11, 23, 7, 30)


def run(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await work

    asyncio.run(bounded())


@pytest.mark.parametrize(
    ("text", "yes", "no"),
    [
        ("07:30", MONDAY, MONDAY + timedelta(minutes=1)),
        ("30 7 * * mon-fri", MONDAY, MONDAY - timedelta(days=1)),
        ("*/15 6-8 * * *", MONDAY, MONDAY.replace(hour=9)),
        ("0,30 7 23 nov *", MONDAY, MONDAY.replace(month=12)),
        ("30 7 * * 0", MONDAY - timedelta(days=1), MONDAY),
        ("30 7 * * 7", MONDAY - timedelta(days=1), MONDAY),
        ("30 7 1 * mon", MONDAY, MONDAY + timedelta(days=1)),  # either is enough, as in cron
        ("30 7 1 * mon", MONDAY.replace(day=1), MONDAY.replace(day=3)),
        ("10-30/20 7 * * *", MONDAY, MONDAY.replace(minute=20)),
        ("30/5 7 * * *", MONDAY.replace(minute=55), MONDAY.replace(minute=29)),
    ],
)
def test_a_schedule_names_these_minutes(text: str, yes: datetime, no: datetime) -> None:
    cron = parse_cron(text)

    assert cron.matches(yes)
    assert not cron.matches(no)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("60 * * * *", "minute: 0 to 59"),
        ("* 24 * * *", "hour: 0 to 23"),
        ("* * 0 * *", "day: 1 to 31"),
        ("* * * foo *", "month: 1 to 12"),
        ("* * * * mon-sun", "ends before it begins"),
        ("*/0 * * * *", "minute: 1 to 59"),
        ("* * * *", "five fields"),
        ("25:00", "hour: 0 to 23"),
        ("", "five fields"),
        ("1,,2 * * * *", "minute: 0 to 59"),
    ],
)
def test_what_is_no_schedule_says_which_field_is_wrong(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_cron(text)


@given(st.text(alphabet="0123456789*/-, :abcnoud", max_size=30))
def test_any_text_is_a_schedule_or_a_value_error(text: str) -> None:
    try:
        cron = parse_cron(text)
    except ValueError:
        return

    assert cron.minutes <= set(range(60))
    assert cron.weekdays <= set(range(7))
    assert cron.minutes
    assert cron.hours


def test_each_minute_is_due_once_however_the_clock_is_looked_at() -> None:
    cron = parse_cron("07:30")
    looks = [MONDAY - timedelta(seconds=12) + timedelta(seconds=5) * i for i in range(20)]

    due = [b for a, b in itertools.pairwise(looks) if cron.due(a, b)]

    assert due == [MONDAY + timedelta(seconds=3)]


def test_a_clock_that_jumps_makes_little_due() -> None:
    cron = parse_cron("07:30")
    after, before = MONDAY + timedelta(minutes=20), MONDAY - timedelta(days=3)

    assert cron.due(MONDAY - timedelta(minutes=10), after)  # what was slept through
    assert not cron.due(before, MONDAY + timedelta(hours=5))
    assert not cron.due(after, before)


def test_the_clock_asks_for_what_is_due() -> None:
    async def work() -> None:
        asked: list[tuple[str, str]] = []

        async def load(model: str, version: str) -> None:
            asked.append((model, version))
            if model == "big":
                raise LimitError("There is no room for {model}.", model=model)

        rows = [{"model": "m", "version": "2", "cron": "07:30"}, {"model": "big", "cron": "07:30"}]
        rows.append({"model": "night", "cron": "03:00"})
        preloader = Preloader(load, Table.model_validate({"preload": rows}))
        moment = preloader.tick(MONDAY - timedelta(seconds=3), MONDAY + timedelta(seconds=2))
        preloader.tick(moment, moment + timedelta(seconds=5))
        await asyncio.sleep(0)
        await asyncio.sleep(0)

        assert asked == [("m", "2"), ("big", "")]
        assert preloader.fault == "There is no room for big."
        await preloader.close()

    run(work())


def test_what_usually_follows_is_learned_for_each_client_apart() -> None:
    seen = Successors()
    rules = Sequence(enabled=True, min_count=3, min_share=0.6)
    for _ in range(2):
        assert seen.after("a", rules) == ""
        for client in ("one", "two"):  # their requests come in turns
            seen.seen(client, "a")
        for client in ("one", "two"):
            seen.seen(client, "b")

    assert seen.after("a", rules) == "b"
    for _ in range(9):
        seen.seen("one", "a")
        seen.seen("one", "c")
    assert seen.after("a", rules) == "c"
    assert seen.after("a", Sequence(min_share=0.9)) == ""


def test_what_is_remembered_is_bounded() -> None:
    seen = Successors()
    for i in range(2 * CLIENTS):
        seen.seen(f"c{i}", "a")
        seen.seen(f"c{i}", f"m{i}")

    assert len(seen._last) == CLIENTS
    assert len(seen._counts) <= 1024
    assert all(len(c) <= 1024 for c in seen._counts.values())


async def _waits(folder: Path, enabled: bool) -> tuple[int, Preloader]:
    """Ask for three models in turn where two fit; how many requests had to wait for a load."""
    pool = Pool(repository([str(folder)]), memory_bytes=300_000)
    rules = {"sequence": {"enabled": enabled}}
    preloader = Preloader(pool.preload, Table.model_validate(rules))
    pool.on_use = preloader.seen
    await pool.start()
    waited = 0
    for turn in range(24):
        model = "abc"[turn % 3]
        waited += pool.model(model).state != "ready"
        await pool.infer(Request(model, {"x": X}, client=Client("one")))
        await asyncio.gather(*preloader._tasks)  # the client thinks for a while
    await preloader.close()
    await pool.close()
    return waited, preloader


def test_preloading_by_sequence_spares_the_waiting_and_can_be_switched_off(tmp_path: Path) -> None:
    for name in "abc":
        bundle(tmp_path / f"r/{name}", 1.0, weights=30_000)

    async def work() -> None:
        without, off = await _waits(tmp_path / "r", enabled=False)
        with_, on = await _waits(tmp_path / "r", enabled=True)

        assert without >= 20  # round robin is the worst case of least recently used
        assert with_ <= 12  # while it learns
        assert (off.asked, off.right) == (0, 0)
        assert on.right >= 10
        assert on.wrong == 0

    run(work())


def test_switching_it_on_takes_effect_with_the_table() -> None:
    async def work() -> None:
        asked: list[str] = []

        async def load(model: str, version: str) -> None:
            asked.append(model)

        preloader = Preloader(load)
        client = Client("one")
        for _ in range(5):
            for model in "ab":
                preloader.seen(client, model)
        assert preloader.asked == 0

        preloader.follow(Table.model_validate({"sequence": {"enabled": True, "min_count": 2}}))
        for _ in range(3):
            for model in "ab":
                preloader.seen(client, model)
        await asyncio.sleep(0)

        assert set(asked) == {"a", "b"}
        await preloader.close()

    run(work())
