"""Each switch has a made case, measured by `python -m benchmarks.serving.advice`."""

from __future__ import annotations

from autoglm.diagnose.hotspots import SWITCHES
from benchmarks.serving import advice


def test_every_switch_has_a_case() -> None:
    assert {*SWITCHES, "preload"} == set(advice.CASES)
