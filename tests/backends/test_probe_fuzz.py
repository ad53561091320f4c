"""Truncated, interleaved, localised and coloured outputs: no parser raises, ever."""

from __future__ import annotations

import random

import pytest
from device_samples import FOLDER, PARSERS, parser_of
from hypothesis import given
from hypothesis import strategies as st

from autoglm.catalog.cards import Card
from autoglm.catalog.cpu import parse_lscpu

SAMPLES = sorted(p for p in FOLDER.iterdir() if p.name != "SOURCES.md")
TEXTS = {p.name: p.read_text("utf-8", "replace") for p in SAMPLES}
# What German, Chinese and French tools write in those places.
WORDS = {
    "Usage": "用量",
    "Driver": "Treiber",
    "OK": "正常",
    ".": ",",
    "Health": "健康状态",
    "W": "Вт",
}
NOISE = ("\x1b[31m", "\x1b[4m", "\x1b]0;title\x07", "\x00", "\r", "\ufeff", "²", "٣", "|", "+-")


def mutate(text: str, chance: random.Random) -> str:
    """The text as a broken terminal, pipe or locale would give it."""
    for _ in range(chance.randrange(1, 4)):
        text = chance.choice((_cut, _mixed, _localised, _coloured, _noisy, _doubled))(text, chance)
    return text


def _cut(text: str, chance: random.Random) -> str:
    start = chance.randrange(len(text) + 1)
    return text[:start] if chance.random() < 0.7 else text[start:]


def _mixed(text: str, chance: random.Random) -> str:
    lines = text.splitlines() + TEXTS[chance.choice(sorted(TEXTS))].splitlines()[:40]
    if chance.random() < 0.5:
        chance.shuffle(lines)
    return "\n".join(lines)


def _localised(text: str, chance: random.Random) -> str:
    word = chance.choice(sorted(WORDS))
    return text.replace(word, WORDS[word])


def _coloured(text: str, chance: random.Random) -> str:
    return "\n".join(f"\x1b[{chance.randrange(110)}m{line}\x1b[0m" for line in text.splitlines())


def _noisy(text: str, chance: random.Random) -> str:
    for _ in range(chance.randrange(1, 30)):
        place = chance.randrange(len(text) + 1)
        junk = chance.choice((*NOISE, chr(chance.randrange(0x20, 0x3000)), "9" * 30))
        text = text[:place] + junk + text[place + chance.randrange(3) :]
    return text


def _doubled(text: str, chance: random.Random) -> str:
    return text + text[: chance.randrange(len(text) + 1)]


def read_by_all(text: str) -> None:
    for parse in PARSERS.values():
        for card in parse(text):
            assert isinstance(card, Card)
            assert card.memory_total is None or card.memory_total >= 0
    assert parse_lscpu(text).threads >= 0


@given(st.text(max_size=400))
def test_any_text_is_read_without_an_exception(text: str) -> None:
    read_by_all(text)


@given(st.sampled_from(sorted(TEXTS)), st.integers(0, 2**32))
def test_a_broken_output_is_read_without_an_exception(name: str, seed: int) -> None:
    read_by_all(mutate(TEXTS[name], random.Random(seed)))


@pytest.mark.parametrize("path", [p for p in SAMPLES if parser_of(p)], ids=lambda p: p.name)
def test_colours_change_nothing(path) -> None:
    parse, text = parser_of(path), TEXTS[path.name]
    coloured = "\n".join(f"\x1b[1;32m{line}\x1b[0m" for line in text.splitlines())

    assert parse(coloured) == parse(text)


@pytest.mark.parametrize("path", [p for p in SAMPLES if parser_of(p)], ids=lambda p: p.name)
def test_windows_line_ends_change_nothing(path) -> None:
    parse, text = parser_of(path), TEXTS[path.name]

    assert parse(text.replace("\n", "\r\n")) == parse(text)


@given(st.integers(0, 4000))
def test_a_cut_table_keeps_the_whole_cards_before_the_cut(end: int) -> None:
    text = TEXTS["xpu-smi-kunlun-P800-515.58.txt"]
    whole = PARSERS["xpu-smi-kunlun"](text)

    found = PARSERS["xpu-smi-kunlun"](text[:end])

    assert len(found) <= len(whole)
    assert found[:-1] == whole[: max(0, len(found) - 1)]


@pytest.mark.slow
def test_ten_thousand_broken_outputs() -> None:
    chance = random.Random(20261122)
    names = sorted(TEXTS)

    for _ in range(10_000):
        read_by_all(mutate(TEXTS[chance.choice(names)], chance))
