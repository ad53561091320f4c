"""`autoglm route` against a server that runs: the table shown, replaced, tried."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serve_rest import served
from served_bundles import bundle

from autoglm.cli.app import invoke
from autoglm.errors import TABLE

Capture = pytest.CaptureFixture[str]
TEXT = """
[[rules]]
name = "gold"
match = { clients = ["gold-*"] }
transport = "http"
version = "stable"
priority = 5
limits = { concurrency = 2 }
"""


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with served(bundle(tmp_path / "m", 1.0)) as address:
        yield address


def asked(words: list[str], capsys: Capture, status: int = 0) -> Any:
    capsys.readouterr()
    assert invoke(["route", *words, "--json"]) == status
    return json.loads(capsys.readouterr().out)


def test_a_table_is_set_shown_and_tried(url: str, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "t.toml").write_text(TEXT, "utf-8")
    at = ["--url", url]

    assert asked(["show", *at], capsys)["table"]["rules"] == []
    asked(["set", str(tmp_path / "t.toml"), *at], capsys)
    assert [r["name"] for r in asked(["show", *at], capsys)["table"]["rules"]] == ["gold"]

    gold = asked(["test", "gold-1", "--model", "m", *at], capsys)
    assert (gold["transport"], gold["version"], gold["priority"]) == ("http", "stable", 5)
    assert gold["limits"]["concurrency"] == 2
    assert asked(["test", "--mqtt", "sensor", *at], capsys)["transport"] == "mqtt"
    assert asked(["test", "192.168.0.4", *at], capsys)["transport"] == "mqtt"
    assert asked(["test", *at], capsys)["transport"] == "grpc"
    capsys.readouterr()
    assert invoke(["route", "test", "gold-1", *at]) == 0
    assert "why: rule gold: client 'gold-1' is like gold-*" in capsys.readouterr().out
    assert invoke(["route", "show", *at]) == 0
    assert "name: gold" in capsys.readouterr().out


def test_what_is_shown_can_be_set_again(url: str, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "t.toml").write_text(TEXT, "utf-8")
    asked(["set", str(tmp_path / "t.toml"), "--url", url], capsys)
    assert invoke(["route", "show", "--url", url]) == 0
    (tmp_path / "again.yaml").write_text(capsys.readouterr().out, "utf-8")

    first = asked(["show", "--url", url], capsys)["table"]
    assert asked(["set", str(tmp_path / "again.yaml"), "--url", url], capsys)["table"] == first


def test_a_wrong_table_is_refused_here_and_the_old_one_stays(
    url: str, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "t.toml").write_text(
        '[[rules]]\nname = "a"\npriority = 1000\n[[rules]]\nnmae = "b"\n', "utf-8"
    )

    for words in (["set", str(tmp_path / "t.toml"), "--url", url], ["check", f"{tmp_path}/t.toml"]):
        error = asked(words, capsys, TABLE["config"].exit)["error"]
        assert "rules.0.priority" in error["message"]
        assert "rules.1.nmae" in error["message"]
    assert asked(["show", "--url", url], capsys)["table"]["rules"] == []


def test_check_asks_no_server(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "t.toml").write_text(TEXT, "utf-8")

    assert asked(["check", str(tmp_path / "t.toml")], capsys) == {"rules": 1}
    missing = asked(["check", str(tmp_path / "u.toml")], capsys, TABLE["file"].exit)
    assert "no file" in missing["error"]["message"]


def test_no_server_is_said(tmp_path: Path, capsys: Capture) -> None:
    error = asked(["show", "--url", "http://127.0.0.1:1"], capsys, TABLE["draining"].exit)["error"]

    assert "No server answers" in error["message"]


def test_a_fault_of_the_watched_file_shows(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "t.toml"
    path.write_text(TEXT, "utf-8")
    with served(bundle(tmp_path / "m", 1.0), routes=path) as url:
        path.write_text(TEXT + "colour = 1\n", "utf-8")
        fault = ""
        for _ in range(3000):
            fault = fault or asked(["show", "--url", url], capsys)["fault"]
            if fault:
                break
            time.sleep(0.01)

        assert "rules.0.colour: unknown key" in fault
        assert asked(["test", "gold-1", "--url", url], capsys)["version"] == "stable"
