"""A report in the terminal: verdict first, reasons and prices, and nothing executable."""

from __future__ import annotations

import pytest
from sample_report import layers, report

from autoglm.cli import words
from autoglm.cli.terminal import show_report
from autoglm.messages import set_language

Capture = pytest.CaptureFixture[str]


def flat(text: str) -> str:
    return " ".join(text.split())


def test_the_verdict_is_the_first_line(capsys: Capture) -> None:
    show_report(report())

    first = capsys.readouterr().out.splitlines()[0]
    assert first == "fits with fallbacks  encoder → npu, fp32"


def test_fallbacks_refusals_and_unknowns_are_there_with_reasons(capsys: Capture) -> None:
    show_report(report())

    text = flat(capsys.readouterr().out)
    for title in (
        "Partitions",
        "Fallbacks",
        "Refused",
        "Unknown, not counted as yes",
        "Boundaries",
    ):
        assert title in text
    assert "Softmax takes at most 128 columns; found 256" in text
    assert "vendor document" in text
    assert "Plans compared" in text
    assert "note: Costs take dimension 'width' as 1." in text


def test_what_does_not_fit_is_listed(capsys: Capture) -> None:
    found = report(layers(1), policy="error")

    show_report(found)

    text = flat(capsys.readouterr().out)
    assert text.startswith("does not fit")
    for name in found.plan.unplaced:
        assert name in text


def test_long_tables_are_cut_and_say_so(capsys: Capture) -> None:
    show_report(report(layers(12)))

    assert "more (--json has all)" in capsys.readouterr().out


def test_names_of_the_model_are_literal_text(capsys: Capture) -> None:
    show_report(report([("\x1b]0;owned\x07[red]x", "Erf", ("",))], model="[bold]m[/bold]"))

    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[bold]m[/bold]" in text
    assert "[red]x" in text


def test_the_report_is_chinese_when_asked_for(capsys: Capture) -> None:
    set_language("zh")

    show_report(report())

    text = capsys.readouterr().out
    assert "回退" in text
    assert "Fallbacks" not in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1.5, "1.5 s"), (0.0123, "12.3 ms"), (4.2e-5, "42 µs"), (3e-9, "0.003 µs")],
)
def test_durations_read_well(value: float, text: str) -> None:
    assert words.seconds(value) == text


def test_sizes_and_work_read_well() -> None:
    assert words.size(512) == "512 B"
    assert words.size(3 << 20) == "3 MiB"
    assert words.flops(3.6e9) == "3.6 GFLOP"
    assert words.error(None) == "–"
    assert words.seconds(None) == "–"
    assert words.some(["a", "b", "c", "d"], 2) == "a, b +2"
