"""The shared cache against a real redis-server, there, damaged, and gone."""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serve.mosquitto import free_port

from autoglm.serve.cache import Cache, CacheOptions
from autoglm.serve.core import Response

SERVER = shutil.which("redis-server")
pytestmark = pytest.mark.skipif(
    SERVER is None, reason="redis-server is not installed: apt-get install redis-server"
)
KEY = b"q" * 32


class Redis:
    """A real server on a free loopback port."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url, self._folder = f"redis://127.0.0.1:{self.port}/0", folder
        self.start()

    def start(self) -> None:
        where = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self._folder)]
        keep = ["--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen(
            [str(SERVER), *where, *keep], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as peer:
                    peer.sendall(b"PING\r\n")
                    if peer.recv(7).startswith(b"+PONG"):
                        return
            except OSError:
                time.sleep(0.02)
        raise AssertionError("redis-server did not start")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(10)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    server = Redis(tmp_path)
    yield server
    server.stop()


def play(story: Callable[[], Awaitable[Any]]) -> Any:
    return asyncio.run(asyncio.wait_for(story(), 60))


class Model:
    def __init__(self) -> None:
        self.runs = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> Response:
        self.runs += 1
        await self.gate.wait()
        return Response("m", "1", {"y": np.full((1, 4), self.runs, "float32")})


def test_what_one_process_ran_another_does_not(redis: Redis) -> None:
    async def story() -> None:
        one, two, model = (*(Cache(CacheOptions(redis=redis.url)) for _ in range(2)), Model())
        await one.answer(KEY, model)
        got = await two.answer(KEY, model)

        assert got.outputs["y"].tolist() == [[1, 1, 1, 1]]
        assert (model.runs, two.stats.shared_hits) == (1, 1)
        await one.close()
        await two.close()
        await two.close()

    play(story)


def test_two_processes_that_ask_at_once_cost_one_run(redis: Redis) -> None:
    async def story() -> None:
        one, two, model = (*(Cache(CacheOptions(redis=redis.url)) for _ in range(2)), Model())
        model.gate.clear()
        first = asyncio.create_task(one.answer(KEY, model))
        while not model.runs:
            await asyncio.sleep(0.001)
        second = asyncio.create_task(two.answer(KEY, model))
        await asyncio.sleep(0.05)
        model.gate.set()
        answers = await asyncio.gather(first, second)

        assert model.runs == 1
        assert [a.outputs["y"][0, 0] for a in answers] == [1, 1]
        await one.close()
        await two.close()

    play(story)


def test_who_holds_the_lock_and_dies_stops_nobody(redis: Redis) -> None:
    async def story() -> None:
        one, model = Cache(CacheOptions(redis=redis.url)), Model()
        assert one.store is not None
        await one.store._redis.set(b"autoglm:lock:" + KEY, "dead", px=300)
        got = await one.answer(KEY, model)

        assert got.outputs["y"][0, 0] == 1
        await one.close()

    play(story)


def test_a_damaged_value_is_a_miss_and_is_replaced(redis: Redis) -> None:
    async def story() -> None:
        model = Model()
        for damage in (lambda d: d[:-3], lambda d: d[:60] + b"?" + d[61:], lambda d: b"\x80\x04N."):
            cache = Cache(CacheOptions(redis=redis.url))
            assert cache.store is not None
            await cache.answer(KEY, model)
            raw = cache.store._redis
            (name,) = await raw.keys("autoglm:answer:*")
            await raw.set(name, damage(await raw.get(name)))
            runs = model.runs
            cache.memory.clear()

            assert (await cache.answer(KEY, model)).outputs["y"][0, 0] == runs + 1
            assert model.runs == runs + 1
            await raw.flushall()
            await cache.close()

    play(story)


def test_without_redis_the_server_goes_on_and_says_so_once(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    redis.stop()

    async def story() -> None:
        cache, model = Cache(CacheOptions(redis=redis.url.replace("//", "//:secret@"))), Model()
        for number in range(20):
            await cache.answer(bytes([number]) * 32, model)

        assert model.runs == 20
        assert cache.memory.get(bytes([3]) * 32) is not None
        await cache.close()

    with caplog.at_level(logging.WARNING):
        play(story)

    said = [r.getMessage() for r in caplog.records if "serving without it" in r.getMessage()]
    assert len(said) == 1
    assert "secret" not in caplog.text


def test_redis_that_comes_back_is_used_again(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoglm.serve.cache.store._PAUSE_S", 0.0)

    async def story() -> None:
        one, two, model = (*(Cache(CacheOptions(redis=redis.url)) for _ in range(2)), Model())
        redis.stop()
        await one.answer(b"a" * 32, model)
        redis.start()
        await one.answer(KEY, model)
        await two.answer(KEY, model)

        assert two.stats.shared_hits == 1
        await one.close()
        await two.close()

    play(story)


def test_answers_in_redis_get_old(redis: Redis) -> None:
    async def story() -> None:
        cache = Cache(CacheOptions(redis=redis.url, ttl_s=120))
        assert cache.store is not None
        await cache.answer(KEY, Model())
        (name,) = await cache.store._redis.keys("autoglm:answer:*")

        assert 100_000 < await cache.store._redis.pttl(name) <= 120_000
        await cache.close()

    play(story)
