"""What was said of models holds after a restart, wherever it can be kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest
from serve.tiny import running
from served_bundles import X, bundle

from autoglm.documents import MAX_BYTES
from autoglm.errors import ConfigError, WriteError
from autoglm.serve.core import Client, Request
from autoglm.serve.pool import Pool, State, repository, state_file
from autoglm.serve.pool.handlers import handle
from autoglm.serve.server import ServeOptions


def run(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await work

    asyncio.run(bounded())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for version in (1, 2, 3):
        bundle(tmp_path / f"r/m/{version}", float(version))
    (tmp_path / "r/m/model.toml").write_text(
        '[aliases]\nold = "1"\nstable = "1"\n[labels]\nint8 = ["1"]\n', "utf-8"
    )
    bundle(tmp_path / "r/n", 7.0)
    return tmp_path / "r"


async def started(folder: Path, path: Path | None = None) -> Pool:
    pool = Pool(repository([str(folder)]), state=State(path or state_file(folder)))
    await pool.start()
    return pool


async def say(pool: Pool, verb: str, name: str = "m", **body: Any) -> None:
    await handle(pool, "POST", f"/v1/pool/{name}/{verb}", body)


async def factor(pool: Pool, version: str = "", client: str = "c") -> float:
    asked = Request("m", {"x": X}, version, client=Client(client))
    (answer,) = (await pool.infer(asked)).values()
    return float(answer[0, 1])


def test_aliases_labels_and_canaries_outlive_the_server(folder: Path) -> None:
    async def first() -> None:
        pool = await started(folder)
        await say(pool, "alias", alias="default", version="2")
        await say(pool, "alias", alias="stable", version="2")
        await say(pool, "alias", alias="old", version="")
        await say(pool, "label", label="int8", version="3")
        await say(pool, "label", label="int8", version="1", on=False)
        await say(pool, "canary", version="3", percent=40.0, by="request")
        await pool.close()

    async def second() -> None:
        pool = await started(folder)
        rows = {row["version"]: row for row in pool.details() if row["name"] == "m"}
        assert [rows[v]["aliases"] for v in "123"] == [[], ["default", "stable"], []]
        assert [rows[v]["labels"] for v in "123"] == [[], [], ["int8"]]
        assert [rows[v]["canary_percent"] for v in "123"] == [None, None, 40.0]
        assert await factor(pool, "int8") == 3.0
        await say(pool, "canary", version="3", percent=0.0)
        await pool.load("m", version="1")  # model.toml does not bring back what was taken away
        assert pool.model("m", "1").aliases == ()
        assert pool.model("m", "1").labels == ()
        await pool.close()

    async def third() -> None:
        pool = await started(folder)
        assert {row["canary_percent"] for row in pool.details()} == {None}
        assert [await factor(pool, client=f"c{i}") for i in range(20)] == [2.0] * 20
        await pool.close()

    for work in (first, second, third):
        run(work())


def test_a_version_that_is_loaded_on_trial_is_on_trial_after_a_restart(folder: Path) -> None:
    async def first() -> None:
        pool = await started(folder)
        bundle(folder / "m/4", 4.0)
        await say(pool, "load", canary=10.0)
        await pool.close()

    async def second() -> None:
        pool = await started(folder)
        assert [r["canary_percent"] for r in pool.details() if r["version"] == "4"] == [10.0]
        await pool.close()

    run(first())
    run(second())


def test_what_nobody_changed_is_as_the_model_file_says(folder: Path) -> None:
    async def first() -> None:
        pool = await started(folder)
        await say(pool, "alias", alias="mine", version="3")
        await pool.close()

    async def second() -> None:
        (folder / "m/model.toml").write_text('[aliases]\nstable = "2"\n', "utf-8")
        pool = await started(folder)
        assert [pool.model("m", v).aliases for v in "123"] == [(), ("stable",), ("mine",)]
        await pool.close()

    run(first())
    run(second())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "autoglm-pool.json"),
        ("[1]", "expected a table"),
        ('{"colour": 1}', "found colour"),
        ('{"models": {"m": {"aliases": {"default": 2}}}}', "m: aliases.default"),
        ('{"models": {"m": {"canary": {"version": "1", "percent": 500}}}}', "canary.percent"),
        ('{"models": {"../m": {}}}', "not a model name"),
    ],
)
def test_a_broken_file_is_one_error_and_nothing_of_it_is_lost(
    folder: Path, text: str, reason: str
) -> None:
    path = folder / "autoglm-pool.json"
    path.write_text(text, "utf-8")

    async def work() -> None:
        pool = await started(folder)
        (fault,) = pool.state.faults
        assert reason in str(fault)
        assert await factor(pool) == 3.0
        assert path.read_text("utf-8") == text
        await say(pool, "alias", alias="default", version="1")
        assert (folder / "autoglm-pool.json.broken").read_text("utf-8") == text
        await pool.close()
        again = await started(folder)
        assert again.state.faults == []
        assert await factor(again) == 1.0
        await again.close()

    run(work())


@pytest.mark.parametrize("name", ["state", "state.toml", "state.json"])
def test_a_file_of_any_name_and_length_is_read_again(tmp_path: Path, name: str) -> None:
    state = State(tmp_path / name)
    state.of("m").aliases = {f"alias-{i}": "1" for i in range(20_000)}
    run(state.save())
    assert (tmp_path / name).stat().st_size > MAX_BYTES

    again = State(tmp_path / name)
    again.read()

    assert again.faults == []
    assert again.of("m") == state.of("m")


def test_a_file_that_is_no_text_or_no_file_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xff")
    (tmp_path / "folder").mkdir()

    for name, reason in (("bytes", "not UTF-8"), ("folder", "directory")):
        state = State(tmp_path / name)
        state.read()
        (fault,) = state.faults
        assert reason in str(fault)


def test_one_models_fault_leaves_the_others_what_was_said_of_them(folder: Path) -> None:
    said = {"n": {"aliases": {"best": 1}}, "m": {"aliases": {"default": "1"}}}
    (folder / "autoglm-pool.json").write_text(json.dumps({"models": said}), "utf-8")

    async def work() -> None:
        pool = await started(folder)
        assert len(pool.state.faults) == 1
        assert await factor(pool) == 1.0
        await pool.close()

    run(work())


def test_what_cannot_be_kept_is_said(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")

    async def work() -> None:
        pool = await started(folder, tmp_path / "file/state.json")
        with pytest.raises(WriteError, match="Cannot write"):
            await say(pool, "alias", alias="default", version="1")
        assert await factor(pool) == 1.0
        await pool.close()

    run(work())


def test_many_changes_at_once_are_all_kept(folder: Path) -> None:
    async def work() -> None:
        pool = await started(folder)
        await asyncio.gather(
            *(say(pool, "alias", alias=f"a{i}", version="1") for i in range(30)),
            *(say(pool, "alias", "n", alias=f"b{i}", version="1") for i in range(30)),
        )
        await pool.close()
        again = await started(folder)
        assert len(again.model("m", "1").aliases) == 32
        assert len(again.model("n", "1").aliases) == 30
        await again.close()

    run(work())


def test_bundles_without_a_folder_need_a_file(folder: Path, tmp_path: Path) -> None:
    assert repository([str(folder / "n")]).folder is None
    assert repository([f"n={folder / 'n'}", str(folder)]).folder == folder
    assert state_file(None) is None
    options = ServeOptions(
        [str(folder / "n")], {"http": "127.0.0.1:0"}, state=tmp_path / "state.json"
    )
    for _ in range(2):
        with running(options) as server, httpx.Client(base_url=server.urls["http"]) as client:
            named = client.get("/v2/models/n/versions/best")
            client.post("/v1/pool/n/alias", json={"alias": "best", "version": "1"})
    assert named.status_code == 200
    assert not (folder / "autoglm-pool.json").exists()


def test_a_strict_server_does_not_start_with_a_broken_file(folder: Path) -> None:
    (folder / "autoglm-pool.json").write_text("{", "utf-8")
    options = ServeOptions([str(folder)], {"http": "127.0.0.1:0"}, strict=True)

    with pytest.raises(ConfigError, match="autoglm-pool"), running(options):
        pass
