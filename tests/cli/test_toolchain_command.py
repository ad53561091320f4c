"""`autoglm toolchain`: what is shown before and after, and what is asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoglm.cli.app import invoke
from autoglm.toolchain import environment

RECIPE = """
title = "a broken one"
version = "1"
licence = "A licence of its own"
licence_url = "https://example.org/licence"
disk_gb = 0.1
check = "raise SystemExit('no such library')"
"""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOGLM_CACHE_DIR", str(tmp_path))


def test_the_list_says_how_to_get_what_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["toolchain", "list", "--json"]) == 0

    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["sophon"]["install"] == "autoglm toolchain install sophon"
    assert not rows["sophon"]["installed"]
    assert rows["sophon"]["licence"]


def test_the_table_is_readable(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["toolchain", "list"]) == 0

    assert "autoglm toolchain install" in capsys.readouterr().out


def test_the_licence_is_shown_and_no_answer_installs_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "install", pytest.fail)
    monkeypatch.setattr("sys.stdin.readline", lambda *_: "n\n", raising=False)

    status = invoke(["toolchain", "install", "sophon"])

    shown = capsys.readouterr()
    assert status == 130
    assert "BSD" in shown.err
    assert "GB" in shown.err
    assert shown.out == ""


def test_a_failed_install_is_one_line_with_its_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.toml").write_text(RECIPE)
    monkeypatch.setattr(environment, "RECIPES", tmp_path)
    environment.recipes.cache_clear()
    try:
        status = invoke(["toolchain", "install", "broken", "--yes"])
    finally:
        environment.recipes.cache_clear()

    shown = capsys.readouterr().err
    assert status == 69
    assert "no such library" in shown
    assert "broken.log" in shown
    assert "Traceback" not in shown


def test_an_unknown_name_is_a_config_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["toolchain", "install", "nothing"]) == 78
    assert "sophon" in capsys.readouterr().err


def test_removing_what_is_not_there_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["toolchain", "remove", "sophon"]) == 0
    assert "sophon was not installed" in capsys.readouterr().out
