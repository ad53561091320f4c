"""The gateway itself, without a wire."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from serve.tiny import WEIGHTS, WIDTH, dense_bundle

from autoglm.errors import DrainingError, ExecutionError, InvalidRequestError, ModelNotServedError
from autoglm.serve.core import Request
from autoglm.serve.gateway import LocalGateway
from autoglm.serve.server import ServeOptions, Server

X = np.ones((2, WIDTH), np.float32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dense_bundle(tmp_path_factory.mktemp("gateway"))


def play(bundle: Path, scene: Callable[[LocalGateway], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(120), Server(ServeOptions([str(bundle)])) as server:
            await scene(server.gateway)

    asyncio.run(whole())


def test_it_answers_counts_and_names_the_version(bundle: Path) -> None:
    async def scene(gateway: LocalGateway) -> None:
        answer = await gateway.infer(Request("dense", {"x": X}, id="7"))

        np.testing.assert_allclose(answer.outputs["y"], X @ WEIGHTS, rtol=1e-5)
        assert (answer.model, answer.version, answer.id) == ("dense", "1", "7")
        counted = gateway.statistics(gateway.model("dense"))
        assert counted["inference_count"] == 2
        assert counted["inference_stats"]["success"]["count"] == 1
        assert gateway.inflight == 0

    play(bundle, scene)


def test_what_the_engine_fails_at_is_no_success(bundle: Path) -> None:
    async def scene(gateway: LocalGateway) -> None:
        await gateway.infer(Request("dense", {"x": X}))
        ((*_, batcher),) = gateway.pool.batchers()

        def broken(feeds: object) -> NoReturn:
            raise RuntimeError("broken")

        batcher.run = broken
        with pytest.raises(ExecutionError):
            await gateway.infer(Request("dense", {"x": X}))

        counted = gateway.statistics(gateway.model("dense"))["inference_stats"]
        assert (counted["success"]["count"], counted["fail"]["count"]) == (1, 1)
        assert counted["compute_infer"]["count"] == 1

    play(bundle, scene)


def test_faults_name_what_is_there(bundle: Path) -> None:
    async def scene(gateway: LocalGateway) -> None:
        with pytest.raises(ModelNotServedError, match="dense"):
            await gateway.infer(Request("other", {"x": X}))
        with pytest.raises(InvalidRequestError, match="y"):
            await gateway.infer(Request("dense", {"x": X}, outputs=["z"]))
        assert gateway.inflight == 0

    play(bundle, scene)


def test_nothing_is_answered_before_it_is_ready_and_draining_is_not_ready(bundle: Path) -> None:
    async def scene(gateway: LocalGateway) -> None:
        gateway.state = "starting"
        with pytest.raises(DrainingError):
            await gateway.infer(Request("dense", {"x": X}))
        gateway.state = "draining"

        assert not gateway.ready()
        # What a transport accepted before it stopped listening is still answered.
        assert (await gateway.infer(Request("dense", {"x": X}))).version == "1"
        assert await gateway.idle(1)

    play(bundle, scene)


def test_a_cancelled_request_is_not_counted_as_in_work(bundle: Path) -> None:
    async def scene(gateway: LocalGateway) -> None:
        tasks = [asyncio.create_task(gateway.infer(Request("dense", {"x": X}))) for _ in range(20)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

        assert gateway.inflight == 0
        assert await gateway.idle(1)

    play(bundle, scene)
