"""The migration report in the terminal, as JSON and as a page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import models
import pytest
from cli.test_page import HOSTILE, Reader
from migration_chips import three_chips, wide_cnn

import autoglm
from autoglm.cli.app import invoke
from autoglm.cli.migration_page import page
from autoglm.messages import set_language

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module", autouse=True)
def _chips() -> Iterator[None]:
    with three_chips():
        yield


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(wide_cnn(tmp_path_factory.mktemp("models")))


def status(*words: str) -> int:
    return invoke(["check", *words])


def test_the_terminal_puts_the_chips_side_by_side(cnn: str, capsys: Capture) -> None:
    assert status(cnn, "--from", "alpha:Big", "--to", "beta,gamma", "--precision", "fp16") == 1

    text = capsys.readouterr().out
    assert text.startswith("GO WITH FALLBACKS  cnn: alpha Big → beta Small, gamma Small")
    for words in ("MaxPool", "fp32 (forced)", "against the source", "Work, by gain", "75 W"):
        assert words in text


def test_the_exit_status_is_the_worst_verdict(cnn: str, capsys: Capture) -> None:
    assert status(cnn, "--from", "beta", "--to", "alpha") == 0
    assert status(cnn, "--from", "alpha", "--to", "beta", "--to", "alpha") == 1
    assert status(cnn, "--from=alpha", "--to=alpha,beta", "--fallback-policy", "error") == 2
    capsys.readouterr()


def test_json_says_all_of_it(cnn: str, capsys: Capture) -> None:
    assert status(cnn, "--from", "alpha", "--to", "beta,gamma", "--json") == 1

    facts = json.loads(capsys.readouterr().out)
    assert set(facts["verdicts"]) == {"beta Small", "gamma Small"}
    assert facts["targets"][0]["work"][0]["gain_s"] != 0
    assert facts["source"]["seconds_range"][0] < facts["source"]["seconds_range"][1]


def test_the_page_says_the_same_and_needs_nothing_else(
    cnn: str, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "migration.html"
    status(cnn, "--from", "alpha", "--to", "beta,gamma", "--report", str(path))
    assert str(path) in capsys.readouterr().err

    text = path.read_text("utf-8")
    words = " ".join(Reader(text).words)
    for expected in ("GO WITH FALLBACKS", "MaxPool", "beta Small", "Side by side", "Toolkits"):
        assert expected in words
    assert "default-src 'none'" in text
    assert "://" not in text


def test_a_hostile_model_adds_nothing_to_the_page() -> None:
    model = models.cnn()
    for node, name in zip(model.graph, HOSTILE, strict=False):
        node.name = name
    model.graph.name = HOSTILE[0]
    found = page(autoglm.migrate(model, "alpha", ["beta"]))

    assert sum(tag == "script" for tag, _ in Reader(found).tags) == 1
    assert not {"img", "iframe"} & {tag for tag, _ in Reader(found).tags}
    assert "\x1b" not in found


def test_it_is_chinese_when_asked_for(cnn: str) -> None:
    set_language("zh")
    found = page(autoglm.migrate(cnn, "alpha", ["beta"]))

    assert "可以迁移，但有回退" in found
    assert "工作清单" in found


def test_one_end_alone_is_no_question(cnn: str, capsys: Capture) -> None:
    assert status(cnn, "--from", "alpha") == 64
    assert status(cnn, "--to", "alpha") == 64
    assert "needs both --from and --to" in capsys.readouterr().err


def test_a_backend_beside_it_is_refused(cnn: str, capsys: Capture) -> None:
    assert status(cnn, "--from", "alpha", "--to", "beta", "--backend", "gamma") == 78
    assert "backend would have no effect" in capsys.readouterr().err
