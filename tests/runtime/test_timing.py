"""Interleaving: every candidate is called equally often, in changing order, within the budget."""

from __future__ import annotations

import time

from autoglm.runtime.timing import Samples, interleave


def test_candidates_take_turns_equally_often() -> None:
    log: list[str] = []
    samples = interleave(
        {"a": lambda: log.append("a"), "b": lambda: log.append("b")}, budget_s=0.0, least=6, gap_s=0
    )

    assert len(samples["a"].seconds) == len(samples["b"].seconds) == 6
    assert log.count("a") == log.count("b") == 7  # one warm-up each


def test_the_order_changes_between_rounds() -> None:
    log: list[str] = []
    names = "abcd"
    interleave(
        {n: (lambda n=n: log.append(n)) for n in names},
        budget_s=0.0,
        least=8,
        gap_s=0,  # type: ignore[misc]
    )
    rounds = {"".join(log[i : i + 4]) for i in range(4, len(log), 4)}

    assert len(rounds) > 1


def test_the_slower_candidate_measures_slower() -> None:
    samples = interleave(
        {"slow": lambda: time.sleep(0.02), "fast": lambda: None}, budget_s=0.0, least=4
    )

    assert samples["slow"].estimate > samples["fast"].estimate
    assert samples["slow"].best >= 0.02


def test_the_estimate_ignores_the_noisy_half() -> None:
    assert Samples((1.0, 1.0, 9.0, 9.0)).estimate == 1.0
    assert Samples((2.0,)).median == 2.0
