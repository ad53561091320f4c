"""The comparison of servers: what it measures is theirs, and what fails is said."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.serving import common, compare, http


def row(server: str, per_s: float, p99_ms: float, cpu_us: float) -> dict[str, object]:
    figures = {"p50_ms": 1.0, "cold_s": 1.0, "pss_mb": 1.0, "errors": 0, "generator": 0.5}
    timed = {"per_s": per_s, "p99_ms": p99_ms, "cpu_us": cpu_us}
    return {"server": server, "c": 16, **timed, **figures}


def test_ratios_are_of_medians_and_above_one_where_ours_is_better() -> None:
    ours = [row("autoglm", per_s, 2.0, 100.0) for per_s in (1000.0, 4000.0, 2000.0)]

    (found,) = compare.ratios(compare.middle([*ours, row("peer", 500.0, 8.0, 50.0)]))

    assert (found["server"], found["c"]) == ("peer", 16)
    assert found["ours/theirs per_s"] == 4.0
    assert found["theirs/ours p99"] == 4.0
    assert found["theirs/ours cpu"] == 0.5


def test_a_process_trees_memory_is_about_its_resident_size() -> None:
    served = common.Served(SimpleNamespace(pid=os.getpid()), 0.0)  # type: ignore[arg-type]

    resident = common.psutil.Process().memory_info().rss / 1e6

    assert 0.8 * resident < served.pss_mb() < 1.2 * resident * len(served.tree())


def test_a_server_is_started_asked_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (common, http):
        monkeypatch.setattr(module, "FOLDER", tmp_path)

    rows = http.rows(http.bare(), 0.1)

    assert [r["c"] for r in rows] == [1, 16, 64]
    assert all(r["errors"] == 0 and float(str(r["per_s"])) > 0 for r in rows)
    assert all(float(str(r["cpu_us"])) >= 0 for r in rows)


def test_a_server_that_does_not_start_or_answers_wrong_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (common, http):
        monkeypatch.setattr(module, "FOLDER", tmp_path)
    gone = http.Server("gone", lambda port: ["false"], "/", {}, "result")
    bare = http.bare()
    other: dict[str, Any] = {"data": [[2 * v for v in common.ROW]]}
    wrong = http.Server("wrong", bare.argv, "/", other, "result")

    for server in (gone, wrong):
        assert compare._tried(server.name, partial(http.rows, server, 0.0)) == []

    told = capsys.readouterr().err
    assert "gone: no answer" in told
    assert "wrong: wrong: a wrong answer" in told
