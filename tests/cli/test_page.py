"""The report page stands alone, escapes everything, and says what the plan says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from sample_report import layers, report

from autoglm.cli.page import page
from autoglm.messages import set_language
from autoglm.runtime.candidate import Measurement
from autoglm.spec import Certificate

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title></svg><iframe src=javascript:alert(1)>",
    "]]><!--",
    "\u202egnp.exe\x1b[31m\x00",
    "{model}{0.__class__}%s",
)


class Reader(HTMLParser):
    """Tags, attributes and text as a browser would see them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def hostile_page() -> str:
    steps = [("n0", "MatMul", ("",))]
    for i, text in enumerate(HOSTILE):
        steps.append((f"{text}{i}", ("MatMul", "Erf")[i % 2], (steps[-1][0],)))
    steps.append(("last", HOSTILE[0], (steps[-1][0],)))
    return page(report(steps, model=HOSTILE[1], backend="npu" + HOSTILE[0]))


def test_hostile_names_add_no_element_and_no_attribute() -> None:
    calm = Reader(page(report(layers(1))))
    found = Reader(hostile_page())

    assert {tag for tag, _ in found.tags} <= {tag for tag, _ in calm.tags} | {"ul", "li"}
    names = {name for _, attributes in found.tags for name in attributes}
    assert not {name for name in names if name.startswith("on")} | (names & {"src", "href"})
    assert sum(tag == "script" for tag, _ in found.tags) == 1
    assert any("<script>alert(1)</script>" in word for word in found.words)


def test_a_hostile_name_cannot_hide_or_steer() -> None:
    text = hostile_page()

    assert "\x1b" not in text
    assert "\x00" not in text
    assert "\u202e" not in text


def test_nothing_is_loaded_from_anywhere() -> None:
    text = page(report())
    body = text.replace("http://www.w3.org/2000/svg", "")

    assert not re.search(r"https?://|//cdn|@import|url\(|<link|<img|<iframe", body)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "script-src 'sha256-" in policy[1]


def test_the_page_says_what_the_plan_says() -> None:
    found = report()
    text = " ".join(Reader(page(found)).words)

    for partition in found.plan.partitions:
        assert partition.id in text
    for fallback in found.plan.fallbacks:
        assert fallback.node in text
        assert fallback.reason in text
    assert "nobody has measured it" in text
    assert "greedy" in text
    assert "fits with fallbacks" in text


def test_certificates_and_candidates_are_shown_when_there_are_any() -> None:
    certificate = Certificate("model", "bf16", "onnxruntime", 0.042, 31.0, 0.9991, 0.02, False, 2)
    candidate = Measurement("openvino fp32", "fp32", 0.0101, 0.0099, 1e-6, True, "fastest")

    text = " ".join(Reader(page(report(), [certificate], [candidate])).words)

    assert "0.042" in text
    assert "openvino fp32" in text


def test_the_page_is_chinese_when_asked_for() -> None:
    set_language("zh")

    text = page(report())

    assert '<html lang="zh">' in text
    assert "回退" in text


def test_a_model_that_does_not_fit_is_said_first() -> None:
    text = page(report(layers(1), policy="error"))

    assert 'class="verdict no"' in text
    assert "No backend takes" in text


def browser() -> str | None:
    return next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )


@pytest.mark.slow
@pytest.mark.skipif(
    browser() is None, reason="no chromium here: the page is not opened in a browser"
)
def test_a_browser_runs_our_script_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(hostile_page(), "utf-8")
    command = [
        browser() or "",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--dump-dom",
        path.as_uri(),
    ]

    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)

    box = re.search(r'<svg id="graph"[^>]*viewBox="([^"]+)"', result.stdout)
    original = re.search(r'<svg id="graph"[^>]*viewBox="([^"]+)"', path.read_text("utf-8"))
    assert box is not None
    assert original is not None
    assert box[1] != original[1]  # our script has fitted the drawing to the window
    assert "alert" not in json.dumps(
        [line for line in result.stderr.splitlines() if "dialog" in line]
    )
