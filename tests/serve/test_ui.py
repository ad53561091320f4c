"""The live page, in a real browser where there is one."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Awaitable, Callable
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from served_bundles import bundle

from autoglm.serve.core import Client, Credentials, Request
from autoglm.serve.guard import GuardOptions
from autoglm.serve.guard.keys import add_key
from autoglm.serve.server import ServeOptions, Server
from autoglm.serve.telemetry import TelemetryOptions
from autoglm.serve.ui import asset

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
browser = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed: apt-get install chromium"
)


def play(story: Callable[[], Awaitable[Any]]) -> Any:
    return asyncio.run(asyncio.wait_for(story(), 240))


def server(place: Path, **options: Any) -> Server:
    if not (place / "models").exists():
        bundle(place / "models" / "double" / "1", 2.0)
    return Server(
        ServeOptions(
            [str(place / "models")],
            {"http": "127.0.0.1:0"},
            telemetry=TelemetryOptions(slow_s=1e-9),
            **options,
        )
    )


async def used(running: Server, times: int = 5) -> str:
    """Ask a few times as a client with a name that tries to be markup; the server's URL."""
    client = Client("<img src=x>", Credentials("http"))
    for _ in range(times):
        inputs = {"x": np.ones((2, 4), "float32")}
        await running.gateway.infer(Request("double", inputs, client=client))
    return running.urls["http"]


async def seen(url: str, folder: Path, *more: str) -> str:
    """The page's document as the browser has it after some seconds of its own time."""
    quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync")
    process = await asyncio.create_subprocess_exec(
        str(CHROMIUM),
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        "--disable-dev-shm-usage",
        *quiet,
        f"--user-data-dir={folder}",
        "--virtual-time-budget=4000",
        *more,
        "--dump-dom",
        url,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, log = await process.communicate()
    assert process.returncode == 0, log.decode()[-2000:]
    return out.decode()


@browser
def test_the_page_shows_models_plots_partitions_and_slow_requests(tmp_path: Path) -> None:
    async def story() -> None:
        async with server(tmp_path) as running:
            url = await used(running)
            dom = await seen(f"{url}/ui", tmp_path / "profile")

        drawn = re.search(r'data-drawn="(\d+)"', dom)
        assert drawn is not None
        assert int(drawn[1]) >= 2  # it went on asking
        assert 'data-model="double" data-version="1"' in dom
        assert "5 ok" in dom
        assert "5 answered" in dom
        assert len(re.findall(r"<polyline", dom)) == 4
        assert dom.count("data-partition=") >= 1
        assert "<code>" in dom
        assert '<img src="x">' not in dom
        assert "<img src=x>" in unescape(dom)

    play(story)


@browser
def test_the_page_follows_a_server_that_changes(tmp_path: Path) -> None:
    async def story() -> None:
        async with server(tmp_path) as running:
            url = await used(running)
            asking = asyncio.create_task(seen(f"{url}/ui", tmp_path / "profile"))
            while running.telemetry is not None and not asking.done():
                await used(running, 1)
                await asyncio.sleep(0.05)
            dom = await asking

        answered = re.search(r"(\d[\d,]*) answered", dom)
        assert answered is not None
        assert int(answered[1].replace(",", "")) > 5

    play(story)


@browser
def test_on_a_server_with_keys_the_page_asks_for_one(tmp_path: Path) -> None:
    add_key(tmp_path / "keys.json", "ops", admin=True)

    async def story() -> None:
        async with server(tmp_path, guard=GuardOptions(keys=tmp_path / "keys.json")) as running:
            dom = await seen(f"{running.urls['http']}/ui", tmp_path / "profile")

        assert '<form id="login">' in dom
        assert '<main id="main" hidden="">' in dom
        assert "double" not in dom

    play(story)


def test_only_an_admin_sees_what_others_do(tmp_path: Path) -> None:
    keys = [add_key(tmp_path / "keys.json", n, admin=n == "ops")[1] for n in ("ops", "alice")]

    async def story() -> None:
        async with (
            server(tmp_path, guard=GuardOptions(keys=tmp_path / "keys.json")) as running,
            httpx.AsyncClient(base_url=running.urls["http"]) as http,
        ):
            tried = [
                (await http.get("/v1/ui/state", headers={"authorization": f"Bearer {k}"}))
                for k in (*keys, "agk_no_such")
            ]
            page = await http.get("/ui")

        assert [r.status_code for r in tried] == [200, 403, 401]
        assert page.status_code == 200
        assert "agk_" not in tried[0].text

    play(story)


def test_the_state_has_what_the_page_draws(tmp_path: Path) -> None:
    async def story() -> dict[str, Any]:
        async with server(tmp_path) as running:
            url = await used(running)
            async with httpx.AsyncClient(base_url=url) as http:
                return dict((await http.get("/v1/ui/state")).json())

    state = play(story)

    (model,) = state["models"]
    assert (model["name"], model["answered"], model["rows"]) == ("double", 5, 10)
    assert 0 < model["p50_s"] <= model["p99_s"]
    assert model["picture"]["partitions"][0]["backend"] == "numpy"
    assert state["requests"] == {"ok": 5}
    assert len(state["slow"]) == 5
    slow = state["slow"][0]
    assert [name for name, _ in slow["stages"]] == ["entry", "queue", "batch", "device", "reply"]
    assert sum(took for _, took in slow["stages"]) == pytest.approx(slow["seconds"])


def test_the_page_loads_nothing_from_elsewhere_and_allows_nothing_inline() -> None:
    for name in ("", "page.js", "page.css"):
        status, headers, body = asset(name)
        text = body.decode()

        assert status == 200
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        urls = re.findall(r"https?://[^\s\"']+", text)
        assert set(urls) <= {"http://www.w3.org/2000/svg"}  # a namespace, not an address
        assert "innerHTML" not in text
        assert " style=" not in text
        assert not re.search(r"\son\w+=", text)


@pytest.mark.parametrize("name", ["../page.py", "page.py", "state", "..", "page.js/"])
def test_no_other_file_is_handed_out(name: str) -> None:
    assert asset(name)[0] == 404
