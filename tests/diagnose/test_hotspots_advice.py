"""Each switch that is named has a made case: `python -m benchmarks.serving.advice` measures them."""

from __future__ import annotations

from autoglm.diagnose.hotspots import SWITCHES
from benchmarks.serving import advice


def test_every_switch_has_a_case() -> None:
    assert {*SWITCHES, "preload"} == set(advice.CASES)
