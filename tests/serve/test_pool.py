"""Versions, aliases, labels; loads that do not disturb; a budget; what fails is told."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served_bundles import X, bundle, corrupt

from autoglm.errors import (
    AutoGLMError,
    BundleError,
    ConfigError,
    DeadlineError,
    DrainingError,
    FileMissingError,
    ForbiddenError,
    InputError,
    InvalidRequestError,
    LimitError,
    ModelNotServedError,
)
from autoglm.serve.core import Client, Credentials, Request
from autoglm.serve.gateway import LocalGateway
from autoglm.serve.pool import Pool, State, loading, repository
from autoglm.serve.pool.handlers import handle


def run(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await work

    asyncio.run(bounded())


async def started(*arguments: str | Path, memory_bytes: int = 0, process: bool = False) -> Pool:
    pool = Pool(repository([str(a) for a in arguments], process=process), memory_bytes=memory_bytes)
    await pool.start()
    return pool


async def factor(pool: Pool, model: str = "m", version: str = "", **said: Any) -> float:
    """Which bundle answered: the number that it multiplies by."""
    (answer,) = (await pool.infer(Request(model, {"x": X}, version, **said))).values()
    return float(answer[0, 1])


def test_every_bundle_of_a_folder_is_served_under_its_name(tmp_path: Path) -> None:
    bundle(tmp_path / "models/one", 1.0)
    bundle(tmp_path / "models/two", 2.0)
    (tmp_path / "models/notes").mkdir()
    other = bundle(tmp_path / "third", 3.0)

    async def work() -> None:
        pool = await started(tmp_path / "models", f"other={other}")

        assert [i.name for i in pool.models()] == ["one", "other", "two"]
        assert [await factor(pool, n) for n in ("one", "two", "other")] == [1.0, 2.0, 3.0]
        await pool.close()

    run(work())


def test_versions_aliases_and_labels_name_what_answers(tmp_path: Path) -> None:
    for version in (1, 2, 10):
        bundle(tmp_path / f"r/m/{version}", float(version))
    (tmp_path / "r/m/model.toml").write_text(
        '[aliases]\nstable = "2"\n[labels]\nint8 = ["1", "2"]\n', "utf-8"
    )

    async def work() -> None:
        pool = await started(tmp_path / "r")

        assert await factor(pool) == 10.0
        assert await factor(pool, version="1") == 1.0
        assert await factor(pool, version="stable") == 2.0
        assert await factor(pool, version="int8") == 2.0
        pool.alias("m", "stable", "10")
        pool.alias("m", "default", "1")
        pool.label("m", "int8", "2", on=False)
        assert await factor(pool, version="stable") == 10.0
        assert await factor(pool) == 1.0
        assert await factor(pool, version="int8") == 1.0
        assert pool.model("m").aliases == ("default",)
        pool.alias("m", "default", "")
        assert await factor(pool) == 10.0
        with pytest.raises(ModelNotServedError, match=r"'7'; there are: 1, 2, 10, stable, int8"):
            await factor(pool, version="7")
        with pytest.raises(ModelNotServedError, match=r"'n' is served here; served: m"):
            await factor(pool, "n")
        await pool.close()

    run(work())


def test_a_canary_gets_its_share_of_the_clients_that_name_no_version(tmp_path: Path) -> None:
    bundle(tmp_path / "r/m/1", 1.0)

    async def work() -> None:
        pool = await started(tmp_path / "r")
        bundle(tmp_path / "r/m/2", 2.0)
        await pool.load("m", version="2", canary=20.0)
        clients = [Client(f"c{i}") for i in range(300)]
        first = [await factor(pool, client=c) for c in clients]
        again = [await factor(pool, client=c, id="another") for c in clients]

        assert first == again
        assert 30 <= Counter(first)[2.0] <= 90
        assert {await factor(pool, version="1", client=c) for c in clients} == {1.0}
        pool.canary("m", "2", 0.0)
        assert {await factor(pool, client=c) for c in clients[:20]} == {2.0}
        await pool.close()

    run(work())


def test_a_version_on_trial_stays_so_when_its_loader_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle(tmp_path / "r/m/3", 3.0)
    state = tmp_path / "state.json"
    begun, release, real = threading.Event(), threading.Event(), loading.open_version

    def open_version(*given: Any) -> Any:
        begun.set()
        assert release.wait(60)
        return real(*given)

    async def work() -> None:
        pool = Pool(repository([str(tmp_path / "r")]), state=State(state))
        await pool.start()
        bundle(tmp_path / "r/m/4", 4.0)
        monkeypatch.setattr(loading, "open_version", open_version)
        asking = asyncio.create_task(handle(pool, "POST", "/v1/pool/m/load", {"canary": 10.0}))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        release.set()
        while pool.model("m", "4").state != "ready":
            await asyncio.sleep(0.001)

        assert [d["canary_percent"] for d in pool.details()] == [None, 10.0]
        while not state.exists():
            await asyncio.sleep(0.001)
        await pool.close()

    run(work())


@pytest.mark.parametrize("least", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_reload_under_load_fails_no_request(tmp_path: Path, least: int) -> None:
    bundle(tmp_path / "r/m/1", 1.0)
    bundle(tmp_path / "r/m/2", 2.0)

    async def work() -> None:
        pool = await started(tmp_path / "r")
        done = asyncio.Event()
        seen: Counter[float] = Counter()

        async def ask() -> None:
            while not done.is_set():
                seen[await factor(pool)] += 1

        asking = [asyncio.create_task(ask()) for _ in range(8)]
        while seen.total() < least or len(seen) < 2:
            await pool.load("m", version="1")
            await pool.load("m", version="2")
            await pool.unload("m", "2")
        done.set()
        await asyncio.gather(*asking)

        assert set(seen) == {1.0, 2.0}
        await pool.close()

    run(work())


@pytest.mark.slow
def test_memory_stays_level_over_many_loads(tmp_path: Path) -> None:
    from autoglm.runtime.watchdog import resident_bytes

    bundle(tmp_path / "m", 1.0, weights=250_000)

    async def work() -> None:
        pool = await started(tmp_path / "m")
        sizes = []
        for _ in range(6):
            for _ in range(50):
                await pool.load("m")
                assert await factor(pool) == 1.0
            sizes.append(resident_bytes())
        await pool.close()

        # 250 loads of 1 MB each, and less than 20 of them kept.
        assert sizes[-1] - sizes[0] < 20 << 20

    run(work())


def test_what_is_corrupted_is_refused_and_the_old_version_goes_on(tmp_path: Path) -> None:
    bundle(tmp_path / "r/m/1", 1.0)

    async def work() -> None:
        pool = await started(tmp_path / "r")
        corrupt(bundle(tmp_path / "r/m/2", 2.0))
        corrupt(tmp_path / "r/m/1")

        for version in ("2", "1"):
            with pytest.raises(BundleError, match="damaged"):
                await pool.load("m", version=version)
        one, two = pool.model("m", "1"), pool.model("m", "2")
        assert (one.state, two.state) == ("ready", "failed")
        assert "has changed since it was written" in one.reason
        assert "has changed since it was written" in two.reason
        assert await factor(pool) == 1.0
        with pytest.raises(ModelNotServedError, match="its state is failed"):
            await factor(pool, version="2")
        await pool.close()

    run(work())


def test_a_broken_bundle_at_the_start_is_listed_with_its_reason(tmp_path: Path) -> None:
    bundle(tmp_path / "r/good", 1.0)
    corrupt(bundle(tmp_path / "r/bad", 2.0))

    async def work() -> None:
        pool = await started(tmp_path / "r")

        assert {i.name: i.state for i in pool.models()} == {"bad": "failed", "good": "ready"}
        assert await factor(pool, "good") == 1.0
        await pool.close()

    run(work())


def test_unloading_answers_what_was_accepted_and_then_nothing(tmp_path: Path) -> None:
    bundle(tmp_path / "m", 3.0)

    async def work() -> None:
        pool = await started(tmp_path / "m")
        served = pool.served("m")
        asked = [asyncio.create_task(factor(pool)) for _ in range(20)]
        await asyncio.sleep(0)
        await pool.unload("m")

        assert await asyncio.gather(*asked) == [3.0] * 20
        with pytest.raises(ModelNotServedError, match="unloaded"):
            await factor(pool)
        with pytest.raises(ModelNotServedError, match="unloaded"):
            await served.infer(Request("m", {"x": X}))
        await pool.load("m")
        assert await factor(pool) == 3.0
        # What was looked up before it was unloaded finds its successor.
        (answer,) = (await served.infer(Request("m", {"x": X}))).values()
        assert np.array_equal(answer, X * 3.0)
        await pool.close()

    run(work())


WEIGHTS = 30_000  # numbers of 4 bytes: each bundle takes about 120 kB


def test_the_longest_unused_model_makes_room(tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b", 2.0), ("c", 3.0)):
        bundle(tmp_path / f"r/{name}", value, weights=WEIGHTS)

    async def work() -> None:
        pool = await started(tmp_path / "r", memory_bytes=250_000)
        states = {i.name: i.state for i in pool.models()}
        assert sorted(states.values()) == ["ready", "ready", "unloaded"]
        (waiting,) = (name for name, state in states.items() if state == "unloaded")
        held = [name for name in "abc" if name != waiting]
        value = {"a": 1.0, "b": 2.0, "c": 3.0}

        assert await factor(pool, held[0]) == value[held[0]]
        assert await factor(pool, waiting) == value[waiting]

        assert pool.model(held[1]).state == "unloaded"
        assert "evicted" in pool.model(held[1]).reason
        assert pool.model(held[0]).state == "ready"
        assert pool.used_bytes <= 250_000
        with pytest.raises(DrainingError, match="not loaded yet"):
            pool.served(held[1])
        assert await factor(pool, held[1]) == value[held[1]]
        await pool.close()

    run(work())


def test_what_answers_requests_is_never_evicted(tmp_path: Path) -> None:
    for name in "ab":
        bundle(tmp_path / f"r/{name}", 1.0, weights=WEIGHTS)

    async def work() -> None:
        pool = await started(tmp_path / "r", memory_bytes=150_000)
        held, waiting = sorted("ab", key=lambda name: pool.model(name).state)
        served = pool.served(held)
        served.inflight += 1  # a request that takes long

        with pytest.raises(LimitError, match="of the budget of"):
            await pool.load(waiting)
        assert pool.model(held).state == "ready"
        assert "of the budget of" in pool.model(waiting).reason
        with pytest.raises(DrainingError):
            await factor(pool, waiting)
        served.inflight -= 1
        assert await factor(pool, waiting) == 1.0
        assert pool.evictions == 1
        await pool.close()

    run(work())


def test_a_hundred_requests_for_an_evicted_model_load_it_once(tmp_path: Path) -> None:
    for name in "ab":
        bundle(tmp_path / f"r/{name}", 1.0, weights=WEIGHTS)

    async def work() -> None:
        pool = await started(tmp_path / "r", memory_bytes=150_000)
        waiting = next(i.name for i in pool.models() if i.state == "unloaded")

        answers = await asyncio.gather(*(factor(pool, waiting) for _ in range(100)))

        assert answers == [1.0] * 100
        assert [d["loads"] for d in pool.details() if d["name"] == waiting] == [1]
        await pool.close()

    run(work())


def test_a_deadline_holds_while_an_evicted_model_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        bundle(tmp_path / f"r/{name}", 1.0, weights=WEIGHTS)
    release, real = threading.Event(), loading.open_version

    def open_version(*given: Any) -> Any:
        assert release.wait(60)
        return real(*given)

    async def work() -> None:
        pool = await started(tmp_path / "r", memory_bytes=150_000)
        waiting = next(i.name for i in pool.models() if i.state == "unloaded")
        monkeypatch.setattr(loading, "open_version", open_version)
        gateway = LocalGateway(pool)
        gateway.state = "ready"

        deadline = time.monotonic() + 0.05
        with pytest.raises(DeadlineError):
            await gateway.infer(Request(waiting, {"x": X}, deadline=deadline))
        with pytest.raises(DeadlineError):
            await gateway.signature(Client(), waiting, deadline=deadline)

        release.set()
        assert await factor(pool, waiting) == 1.0  # what was begun went on
        assert [d["loads"] for d in pool.details() if d["name"] == waiting] == [1]
        await pool.close()

    run(work())


def test_a_load_never_holds_up_the_loop(tmp_path: Path) -> None:
    bundle(tmp_path / "r/m/1", 1.0)

    async def work() -> None:
        pool = await started(tmp_path / "r")
        loading = asyncio.create_task(pool.load("m"))
        answered = 0
        while not loading.done():
            assert await factor(pool) == 1.0
            answered += 1

        assert answered > 0
        await loading
        await pool.close()

    run(work())


def test_a_bundle_that_a_request_names_lies_inside_the_repository(tmp_path: Path) -> None:
    bundle(tmp_path / "r/m/1", 1.0)
    bundle(tmp_path / "r/staging/next", 5.0)
    outside = bundle(tmp_path / "outside", 6.0)
    (tmp_path / "r/link").symlink_to(outside)

    async def work() -> None:
        pool = await started(tmp_path / "r")
        info = await pool.load("m", "staging/next")

        assert (info.version, await factor(pool)) == ("2", 5.0)
        for path in ("../outside", str(outside), "link", "m", "no\0where"):
            with pytest.raises((ForbiddenError, InvalidRequestError)):
                await pool.load("m", path)
        with pytest.raises(InvalidRequestError, match="not a model name"):
            await pool.load("../m")
        with pytest.raises(InvalidRequestError, match="not a version"):
            await pool.load("m", version="../1")
        with pytest.raises(FileMissingError, match="no version 9"):
            await pool.load("m", version="9")
        with pytest.raises(FileMissingError, match="holds no model n"):
            await pool.load("n")
        assert await factor(pool) == 5.0
        await pool.close()

    run(work())


def test_one_model_on_two_engines_gives_one_answer(tmp_path: Path) -> None:
    one = bundle(tmp_path / "one", 2.0)
    two = bundle(tmp_path / "two", 2.0, backend="onnxruntime")

    async def work() -> None:
        pool = await started(f"m={one},{two}")

        assert pool.model("m").engines == ("0:numpy", "1:onnxruntime")
        assert set(await asyncio.gather(*(factor(pool) for _ in range(50)))) == {2.0}
        await pool.close()

    run(work())


def test_engines_with_other_tensors_are_no_engines_of_one_model(tmp_path: Path) -> None:
    import onnx
    from models import Builder

    from autoglm import api

    build = Builder()
    y = build.op("Relu", build.input("z", ["n", 4]))
    onnx.save(build.proto(y), tmp_path / "other.onnx")
    api.compile(tmp_path / "other.onnx", tmp_path / "two", backend="numpy")
    one = bundle(tmp_path / "one", 2.0)

    async def work() -> None:
        pool = await started(f"m={one},{tmp_path / 'two'}")

        assert pool.model("m").state == "failed"
        assert "different tensors" in pool.model("m").reason
        await pool.close()

    run(work())


def test_a_file_beside_the_versions_names_engines_and_inputs_to_warm_up_with(
    tmp_path: Path,
) -> None:
    bundle(tmp_path / "r/m/1", 2.0)
    bundle(tmp_path / "second", 2.0, backend="onnxruntime")
    np.savez(tmp_path / "r/m/warm.npz", x=X)
    (tmp_path / "r/m/model.toml").write_text(
        'warmup = "warm.npz"\n[[engines]]\nthreads = 1\n[[engines]]\nbundle = "../../second"\n',
        "utf-8",
    )

    async def work() -> None:
        pool = await started(tmp_path / "r")

        assert pool.model("m").engines == ("0:numpy", "1:onnxruntime")
        assert await factor(pool) == 2.0
        await pool.close()

    run(work())


def test_a_version_that_fails_its_warm_up_takes_no_request(tmp_path: Path) -> None:
    bundle(tmp_path / "r/m/1", 1.0)

    async def work() -> None:
        pool = await started(tmp_path / "r")
        bundle(tmp_path / "r/m/2", 2.0)
        np.savez(tmp_path / "r/m/warm.npz", x=np.ones((2, 5), np.float32))  # the model takes 4
        (tmp_path / "r/m/model.toml").write_text('warmup = "warm.npz"\n', "utf-8")

        with pytest.raises(InputError):
            await pool.load("m", version="2")

        assert (pool.model("m", "2").state, await factor(pool)) == ("failed", 1.0)
        assert pool.model("m", "2").reason
        np.savez(tmp_path / "r/m/warm.npz", x=X)
        await pool.load("m", version="2")
        assert await factor(pool) == 2.0
        await pool.close()

    run(work())


def test_a_model_file_with_faults_is_refused_by_name(tmp_path: Path) -> None:
    bundle(tmp_path / "r/m/1", 2.0)
    (tmp_path / "r/m/model.toml").write_text("[[engines]]\nthreads = -1\ncolour = 2\n", "utf-8")

    async def work() -> None:
        pool = await started(tmp_path / "r")
        (told,) = pool.models()
        assert told.state == "failed"
        assert "threads" in told.reason
        assert "colour" in told.reason
        with pytest.raises(ConfigError, match=r"threads.*colour"):
            await pool.load("m")
        await pool.close()

    run(work())


def test_arguments_that_name_nothing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    async def work() -> None:
        with pytest.raises(FileMissingError, match="no folder"):
            await started(tmp_path / "nowhere")
        with pytest.raises(FileMissingError, match="no bundle in"):
            await started(tmp_path / "empty")
        with pytest.raises(InvalidRequestError, match="not a model name"):
            await started(f"a/b={tmp_path / 'empty'}")
        bundle(tmp_path / "m", 1.0)
        with pytest.raises(ConfigError, match="given twice"):
            await started(tmp_path / "m", f"m={tmp_path / 'm'}")

    run(work())


def test_an_mqtt_client_is_known_by_its_id(tmp_path: Path) -> None:
    bundle(tmp_path / "r/m/1", 1.0)
    bundle(tmp_path / "r/m/2", 2.0)

    async def work() -> None:
        pool = await started(tmp_path / "r")
        pool.canary("m", "2", 50.0)
        client = [Client("anonymous", Credentials("mqtt", client_id=f"c{i}")) for i in range(40)]

        first = [await factor(pool, client=c) for c in client]

        assert set(first) == {1.0, 2.0}
        assert first == [await factor(pool, client=c) for c in client]
        await pool.close()

    run(work())


def test_an_error_of_the_pool_is_one_of_ours(tmp_path: Path) -> None:
    bundle(tmp_path / "m", 1.0)

    async def work() -> None:
        pool = await started(tmp_path / "m")
        with pytest.raises(AutoGLMError):
            await pool.infer(Request("m", {"x": X.astype(np.int64)}))
        assert await factor(pool) == 1.0
        await pool.close()

    run(work())
