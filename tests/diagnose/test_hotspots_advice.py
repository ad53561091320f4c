"""Each switch that is named helps at its made case: `python -m benchmarks.serving.advice`."""

from __future__ import annotations

import asyncio

import pytest

from autoglm.diagnose.hotspots import SWITCHES
from benchmarks.serving import advice

LEAST = {"entry": 2.0, "queue": 1.2, "batch": 5.0, "device": 5.0, "reply": 1.5, "preload": 1.5}


def test_every_switch_has_a_case() -> None:
    assert {*SWITCHES, "preload"} == set(advice.CASES) == set(LEAST)


@pytest.mark.slow
@pytest.mark.parametrize("name", advice.CASES)
def test_the_switch_that_is_named_improves_the_figure(name: str) -> None:
    case = asyncio.run(asyncio.wait_for(advice.CASES[name](400), 250))

    assert case.switch == (SWITCHES[name][0] if name in SWITCHES else "preload")
    assert case.spot == name or name == "preload"
    assert case.before >= LEAST[name] * case.after
