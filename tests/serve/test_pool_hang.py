"""An engine that hangs costs its own requests; a thread that hangs does not keep the server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served_bundles import X, bundle

from autoglm.errors import BackendUnavailableError, DeadlineError, DrainingError, ExecutionError
from autoglm.serve.batch import BatchLimits
from autoglm.serve.core import Request
from autoglm.serve.pool import Pool, loading, opening, repository
from autoglm.serve.pool import served as served_module
from autoglm.serve.pool.engine import Runs
from autoglm.spec import Feeds, Value

STUCK = np.full((1, 4), 777, np.float32)
APART = BatchLimits(inline_below_s=0.0)


class Hangs:
    """A session that hangs at 777 until it is released."""

    def __init__(self, session: Runs, release: threading.Event) -> None:
        self.session, self.release = session, release

    def run(self, feeds: Feeds) -> dict[str, Value]:
        if (np.asarray(feeds["x"]) == 777).any():
            assert self.release.wait(60)
        return dict(self.session.run(feeds))

    def close(self) -> None:
        self.session.close()


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    event, real = threading.Event(), opening._session

    def session(place: Any) -> tuple[Hangs, tuple[str, ...]]:
        opened, names = real(place)
        return Hangs(opened, event), names

    monkeypatch.setattr(opening, "_session", session)
    monkeypatch.setattr(served_module, "FIRST_REST_S", 0.05)
    yield event
    event.set()


def run(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await work

    asyncio.run(bounded())


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


async def factor(pool: Pool, model: str = "m", version: str = "") -> float:
    (answer,) = (await pool.infer(Request(model, {"x": X}, version))).values()
    return float(answer[0, 1])


def test_a_run_that_hangs_costs_its_own_version_only(
    tmp_path: Path, release: threading.Event
) -> None:
    bundle(tmp_path / "r/m/1", 1.0)
    bundle(tmp_path / "r/m/2", 2.0)
    bundle(tmp_path / "r/other", 3.0)

    async def work() -> None:
        pool = Pool(repository([str(tmp_path / "r")]), limits=APART, run_timeout_s=0.3)
        await pool.start()
        patient = asyncio.create_task(pool.infer(Request("m", {"x": STUCK})))
        await asyncio.sleep(0.05)
        waiting = asyncio.create_task(factor(pool))
        with pytest.raises(DeadlineError):
            await pool.infer(Request("m", {"x": X}, deadline=time.monotonic() + 0.05))
        with pytest.raises(DeadlineError, match="it hangs"):
            await patient
        with pytest.raises(BackendUnavailableError, match="it hangs"):
            await waiting

        told = pool.model("m", "2")
        assert told.state == "failed"
        assert "it hangs" in told.reason
        with pytest.raises(DrainingError, match="No engine of model m works"):
            await factor(pool)
        assert [await factor(pool, version="1"), await factor(pool, "other")] == [1.0, 3.0]
        assert pool.model("m", "1").state == "ready"

        release.set()
        await until(lambda: pool.model("m", "2").state == "ready")
        assert await factor(pool) == 2.0
        await pool.close()

    run(work())


def test_what_waits_for_an_engine_that_hangs_is_answered_by_another(
    tmp_path: Path, release: threading.Event
) -> None:
    one, two = bundle(tmp_path / "one", 2.0), bundle(tmp_path / "two", 2.0)

    async def work() -> None:
        pool = Pool(repository([f"m={one},{two}"]), limits=APART, run_timeout_s=0.3)
        await pool.start()
        first, second = pool.served("m").engines
        second.row_s = second.best_row_s = 9.0  # never the first choice
        patient = asyncio.create_task(pool.infer(Request("m", {"x": STUCK})))
        await until(lambda: first._began is not None)
        waiting = asyncio.create_task(factor(pool))
        await asyncio.sleep(0)

        with pytest.raises(DeadlineError):
            await patient
        assert await waiting == 2.0
        assert second.quarantine is None  # it was not given what the first one hangs at
        told = pool.model("m")
        assert told.state == "ready"
        assert told.reason.startswith("0:numpy: it hangs")
        assert await factor(pool) == 2.0
        release.set()
        await pool.close()

    run(work())


def test_an_engine_that_rests_already_hangs_as_well(
    tmp_path: Path, release: threading.Event
) -> None:
    one, two = bundle(tmp_path / "one", 2.0), bundle(tmp_path / "two", 2.0)

    async def work() -> None:
        pool = Pool(repository([f"m={one},{two}"]), limits=APART, run_timeout_s=0.3)
        await pool.start()
        served = pool.served("m")
        first, second = served.engines
        second.row_s = second.best_row_s = 9.0  # never the first choice
        patient = asyncio.create_task(pool.infer(Request("m", {"x": STUCK})))
        await until(lambda: first._began is not None)
        waiting = asyncio.create_task(factor(pool))
        await asyncio.sleep(0)
        served._put_away(first, "it failed three times")

        with pytest.raises(DeadlineError, match="it hangs"):
            await asyncio.wait_for(patient, 20)
        assert await waiting == 2.0
        release.set()
        await pool.close()

    run(work())


@pytest.mark.parametrize("replaced", [False, True])
def test_a_version_that_hangs_while_it_leaves_is_let_go(
    tmp_path: Path, release: threading.Event, replaced: bool
) -> None:
    bundle(tmp_path / "r/m/1", 1.0)
    bundle(tmp_path / "r/larger", 2.0, weights=5000)

    async def work() -> None:
        pool = Pool(repository([str(tmp_path / "r")]), limits=APART, run_timeout_s=0.3)
        await pool.start()
        larger, both = pool.model("larger").memory_bytes, pool.used_bytes
        (engine,) = pool.served("m").engines
        patient = asyncio.create_task(pool.infer(Request("m", {"x": STUCK})))
        await until(lambda: engine._began is not None)
        if replaced:
            await pool.load("m", "larger", "1")
            # The one that leaves counts with its own bytes, not with the new one's.
            assert pool.used_bytes == both + larger
        else:
            await asyncio.wait_for(pool.unload("m"), 20)

        with pytest.raises(DeadlineError, match="it hangs"):
            await asyncio.wait_for(patient, 20)
        await until(lambda: pool.used_bytes == larger * (1 + replaced))
        release.set()
        await pool.close()

    run(work())


def test_an_engine_that_ended_a_run_by_itself_is_examined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, real, broken, asked = bundle(tmp_path / "one", 2.0), opening._session, [False], []

    class Late:
        """As a process that is ended at 777, and does not open again until it is mended."""

        def __init__(self, session: Runs) -> None:
            self.session, self.close = session, session.close

        def run(self, feeds: Feeds) -> dict[str, Value]:
            if (np.asarray(feeds["x"]) == 777).any():
                asked.append(feeds)
                broken[0] = True
            if broken[0]:
                raise DeadlineError("ended")
            return dict(self.session.run(feeds))

    def session(place: Any) -> tuple[Late, tuple[str, ...]]:
        opened, names = real(place)
        return Late(opened), names

    monkeypatch.setattr(opening, "_session", session)
    monkeypatch.setattr(served_module, "FIRST_REST_S", 0.05)

    async def work() -> None:
        pool = Pool(repository([f"m={one}"]), limits=APART)
        await pool.start()
        both = (pool.infer(Request("m", {"x": STUCK})) for _ in range(2))
        errors = await asyncio.gather(*both, return_exceptions=True)

        assert [type(e) for e in errors] == [DeadlineError] * 2
        assert len(asked) == 1
        await until(lambda: pool.model("m").state == "failed")
        assert "ended" in pool.model("m").reason
        broken[0] = False
        await until(lambda: pool.model("m").state == "ready")
        assert await factor(pool) == 2.0
        await pool.close()

    run(work())


def test_a_bundle_that_does_not_open_keeps_no_other_from_loading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle(tmp_path / "r/m", 1.0)
    release, real = threading.Event(), loading.open_version

    def open_version(*given: Any) -> opening.Opened:
        assert release.wait(60)
        return real(*given)

    async def work() -> None:
        pool = Pool(repository([str(tmp_path / "r")]))
        await pool.start()
        with monkeypatch.context() as held:
            held.setattr(loading, "open_version", open_version)
            held.setattr(loading, "_OPEN_S", 0.05)
            with pytest.raises(ExecutionError, match=r"did not open within 0.05 s"):
                await pool.load("m")
        await pool.load("m")
        assert await factor(pool) == 1.0
        release.set()
        await pool.close()

    run(work())


def test_an_engine_that_hangs_does_not_keep_the_pool_open(
    tmp_path: Path, release: threading.Event
) -> None:
    one = bundle(tmp_path / "one", 2.0)

    async def work() -> float:
        pool = Pool(repository([f"m={one}"]), limits=APART)
        await pool.start()
        asking = asyncio.create_task(pool.infer(Request("m", {"x": STUCK})))
        await asyncio.sleep(0.05)
        begin = time.monotonic()
        await pool.close(0.2)
        asking.cancel()
        return time.monotonic() - begin

    took = asyncio.run(asyncio.wait_for(work(), 60))

    assert took < 20


def test_a_process_that_hangs_is_ended_and_started_again(tmp_path: Path) -> None:
    one = bundle(tmp_path / "one", 2.0)

    async def work() -> None:
        pool = Pool(repository([f"m={one}"], process=True), run_timeout_s=0.5)
        await pool.start()
        (engine,) = pool.served("m").engines
        before = engine._session.pid
        os.kill(before, signal.SIGSTOP)

        with pytest.raises(DeadlineError, match="its process was ended"):
            await factor(pool)
        # To open the bundle takes longer than a run may.
        assert await factor(pool) == 2.0
        assert engine._session.pid != before
        with pytest.raises(ProcessLookupError):
            os.kill(before, 0)
        await pool.close()

    run(work())


SERVER = """
import os, sys, time
import numpy as np
from autoglm.cli.app import invoke
from autoglm.serve import batch
from autoglm.serve.pool import loading, opening

told = os.dup(1)  # a command keeps its own words apart

def open_version(source, seconds, real=loading.open_version):
    if source.name == "slow":
        os.write(told, b"loading\\n")
        time.sleep(600)
    return real(source, seconds)

class Hangs:
    def __init__(self, session):
        self.session, self.close = session, session.close
    def run(self, feeds):
        if (feeds["x"] == 777).any():
            time.sleep(600)
        return self.session.run(feeds)

def session(place, real=opening._session):
    opened, names = real(place)
    return Hangs(opened), names

loading.open_version, opening._session = open_version, session
batch.Batcher._on_loop = lambda self, rows: False
sys.exit(invoke(["serve", *sys.argv[1:], "--http", "127.0.0.1:0", "--drain-s", "1"]))
"""


@contextmanager
def server(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`autoglm serve`, where model `slow` loads for ten minutes and 777 hangs as long."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=60)


def line(process: subprocess.Popen[str], begin: str) -> str:
    assert process.stdout is not None
    return next(text for text in process.stdout if text.startswith(begin))


def status(url: str, body: dict[str, Any] | None = None) -> int:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:  # the server went
        return 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_load_at_the_start_does_not_keep_the_server(
    tmp_path: Path, number: signal.Signals
) -> None:
    bundle(tmp_path / "slow", 1.0)
    with server(str(tmp_path / "slow")) as process:
        line(process, "loading")
        process.send_signal(number)

        assert process.wait(30) == 0


def test_a_load_and_a_run_that_hang_do_not_keep_the_server(tmp_path: Path) -> None:
    bundle(tmp_path / "r/m", 1.0)
    with server(str(tmp_path / "r"), "--run-timeout-s", "1") as process:
        url = line(process, "http").split()[1]
        bundle(tmp_path / "r/slow", 1.0)
        loading = threading.Thread(
            target=status, args=(f"{url}/v1/pool/slow/load", {}), daemon=True
        )
        loading.start()
        line(process, "loading")
        asked = {"model_name": "m", "data": STUCK.tolist(), "timeout_ms": 200}
        assert status(f"{url}/v1/infer", asked) == 504
        while status(f"{url}/v2/models/m/ready") == 200:
            time.sleep(0.02)
        assert status(f"{url}/v2/models/m/ready") == 503
        assert status(f"{url}/v1/infer", {"model_name": "m", "data": [[1, 2, 3, 4]]}) == 503
        assert [status(url + path) for path in ("/readyz", "/healthz")] == [200, 200]
        process.send_signal(signal.SIGTERM)

        assert process.wait(30) == 0
