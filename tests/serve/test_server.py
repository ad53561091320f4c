"""The process: it starts, says what it serves, drains on SIGTERM and loses nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from serve.tiny import WEIGHTS, dense_bundle, running

from autoglm.errors import ConfigError, ModelNotServedError, NotOfferedError
from autoglm.serve.cache import CacheOptions
from autoglm.serve.guard import GuardOptions, Limit
from autoglm.serve.pool import Pool
from autoglm.serve.server import ServeOptions, Server, serve

ROW = [1.0, 2.0, 3.0, 4.0]
GOOD = {"model_name": "dense", "data": [ROW]}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dense_bundle(tmp_path_factory.mktemp("server"))


@contextmanager
def command(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`autoglm serve …` as a process of its own, and its URL."""
    argv = [sys.executable, "-m", "autoglm.cli", "serve", *arguments, "--http", "127.0.0.1:0"]
    process = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("http"), process.communicate(timeout=60)
        yield process, line.split()[1]
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_every_accepted_request_is_answered(
    bundle: Path, number: signal.Signals
) -> None:
    async def scene(process: subprocess.Popen[str], url: str) -> tuple[int, list[str]]:
        answered, lost, asked = 0, [], asyncio.Event()

        async def client() -> None:
            nonlocal answered
            async with httpx.AsyncClient(timeout=60) as peer:
                while True:
                    try:
                        answer = await peer.post(f"{url}/v1/infer", json=GOOD)
                    except httpx.ConnectError:
                        return  # it was never accepted
                    except httpx.TransportError as error:
                        lost.append(repr(error))
                        return
                    if answer.status_code != 200:
                        lost.append(answer.text)
                        return
                    answered += 1
                    if answered == 40:
                        asked.set()

        clients = [asyncio.create_task(client()) for _ in range(8)]
        await asked.wait()
        process.send_signal(number)
        await asyncio.gather(*clients)
        return answered, lost

    with command(str(bundle)) as (process, url):
        answered, lost = asyncio.run(scene(process, url))

        assert lost == []
        assert answered >= 40
        assert process.wait(60) == 0


def test_a_signal_while_models_load_ends_it(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loading = threading.Event()

    async def start(self: Pool) -> None:
        loading.set()
        await asyncio.sleep(20)

    def interrupt() -> None:
        loading.wait(20)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Pool, "start", start)
    threading.Thread(target=interrupt, daemon=True).start()
    begun = time.monotonic()
    serve(ServeOptions([str(bundle)]), lambda _: None)

    assert time.monotonic() - begun < 10


def test_a_drain_takes_no_longer_than_it_may(bundle: Path) -> None:
    options = ServeOptions([str(bundle)], {"http": "127.0.0.1:0"}, drain_s=2.0)

    async def scene() -> float:
        async with Server(options) as server, httpx.AsyncClient(timeout=60) as peer:
            begun = asyncio.Event()

            async def hang(*_: object, **__: object) -> None:
                begun.set()
                await asyncio.sleep(60)

            server.pool.acquire = hang  # type: ignore[method-assign,assignment]
            asking = asyncio.create_task(peer.post(f"{server.urls['http']}/v1/infer", json=GOOD))
            await begun.wait()
            since = time.monotonic()
            await server.drain()
            took = time.monotonic() - since
            asking.cancel()
            return took

    assert 1.5 < asyncio.run(asyncio.wait_for(scene(), 60)) < 3.5


def test_the_command_says_in_json_what_it_serves(bundle: Path) -> None:
    argv = [sys.executable, "-m", "autoglm.cli", "serve", f"other={bundle}", "--json"]
    with subprocess.Popen(
        [*argv, "--http", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        text = ""
        for line in process.stdout:
            text += line
            if line == "}\n":
                break
        process.terminate()
        assert process.wait(60) == 0

    said = json.loads(text)
    assert said["urls"]["http"].startswith("http://127.0.0.1:")
    assert said["models"] == [{"name": "other", "version": "1", "state": "ready", "reason": ""}]


def test_a_taken_port_is_one_clear_error(bundle: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        with (
            pytest.raises(ConfigError, match="Cannot listen"),
            running(ServeOptions([str(bundle)], {"http": address})),
        ):
            pass


@pytest.mark.parametrize("address", ["", "127.0.0.1", "127.0.0.1:http", "127.0.0.1:99999"])
def test_an_address_that_is_none_is_named(bundle: Path, address: str) -> None:
    with (
        pytest.raises(ConfigError, match="Cannot listen"),
        running(ServeOptions([str(bundle)], {"http": address})),
    ):
        pass


def test_an_unknown_transport_names_those_there_are(bundle: Path) -> None:
    with (
        pytest.raises(NotOfferedError, match="http"),
        running(ServeOptions([str(bundle)], {"pigeon": "x"})),
    ):
        pass


def test_a_server_with_nothing_that_loads_does_not_start(bundle: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "bundle.json").write_text("{}")

    with (
        pytest.raises(ModelNotServedError, match="broken"),
        running(ServeOptions([str(broken)], {"http": "127.0.0.1:0"})),
    ):
        pass


def test_keys_rates_cache_and_routes_are_in_force(bundle: Path, tmp_path: Path) -> None:
    routes = tmp_path / "routes.toml"
    routes.write_text('[[rules]]\nname = "all"\ntransport = "mqtt"\npriority = 3\n')
    options = ServeOptions(
        [str(bundle)],
        {"http": "127.0.0.1:0"},
        guard=GuardOptions(limit=Limit(rate=0.001, burst=3)),
        cache=CacheOptions(),
        routes=routes,
    )
    with running(options) as server, httpx.Client(base_url=server.urls["http"]) as client:
        answers = [client.post("/v1/infer", json=GOOD) for _ in range(4)]

        assert [a.status_code for a in answers] == [200, 200, 200, 429]
        assert int(answers[3].headers["retry-after"]) >= 1
        expected = np.array([ROW], np.float32) @ WEIGHTS
        np.testing.assert_allclose(answers[2].json()["result"], expected, rtol=1e-5)
        assert server.gateway.cache is not None
        assert server.gateway.cache.stats.hits == 2
        assert client.get("/v1/route").json()["transport"] == "mqtt"


def test_a_server_with_keys_lets_nobody_in_without_one(bundle: Path, tmp_path: Path) -> None:
    from autoglm.serve.guard.keys import add_key

    keys = tmp_path / "keys.toml"
    _, secret = add_key(keys, "alice")
    options = ServeOptions([str(bundle)], {"http": "127.0.0.1:0"}, guard=GuardOptions(keys=keys))
    with running(options) as server, httpx.Client(base_url=server.urls["http"]) as client:
        refused = client.post("/v1/infer", json=GOOD)
        wrong = client.get("/v2/models/dense", headers={"authorization": "Bearer nothing"})
        good = client.post("/v1/infer", json=GOOD, headers={"authorization": f"Bearer {secret}"})

        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert wrong.status_code == 401
        assert wrong.json()["error"]
        assert good.status_code == 200
        assert client.get("/healthz").status_code == 200
        unload = client.post(
            "/v2/repository/models/dense/unload",
            headers={"authorization": f"Bearer {secret}"},
        )
        assert unload.status_code == 403


@pytest.mark.slow
def test_schemathesis_finds_nothing(bundle: Path, tmp_path: Path) -> None:
    # A deadline of the request's own may well pass on a busy machine: 504 is its right answer.
    settings = tmp_path / "schemathesis.toml"
    settings.write_text(
        '[checks.not_a_server_error]\nexpected-statuses = ["2xx", "3xx", "4xx", "504"]\n'
    )
    with running(ServeOptions([str(bundle)], {"http": "127.0.0.1:0"})) as server:
        done = subprocess.run(
            [
                Path(sys.executable).with_name("schemathesis"),
                "--config-file",
                settings,
                "run",
                f"{server.urls['http']}/openapi.json",
                "--max-examples=40",
                "--seed=7",
                "--suppress-health-check=all",
            ],
            capture_output=True,
            text=True,
            timeout=280,
            cwd=tmp_path,
        )

    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
