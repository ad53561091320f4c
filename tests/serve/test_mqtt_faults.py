"""Restarts of the broker and the death of a worker lose no answer, and double few."""

from __future__ import annotations

from pathlib import Path

import pytest
from serve.mosquitto import BINARY, MISSING

from benchmarks.serving import mqtt


@pytest.mark.skipif(BINARY is None, reason=MISSING)
def test_every_request_is_answered_once_through_restarts_and_a_killed_worker(
    tmp_path: Path,
) -> None:
    at_once = 16
    found = mqtt.faults(500, tmp_path, concurrency=at_once)

    assert found["requests"] == 500
    assert (found["lost"], found["wrong"]) == (0, 0)
    assert found["handed_on_once"] == 500  # whatever came twice
    # A worker killed between an answer and its acknowledgement leaves the request to another.
    assert found["duplicated"] <= at_once


def test_the_count_tells_a_second_answer_from_the_brokers_repetition() -> None:
    def asked(*answers: tuple[bool, bool], times: int = 1) -> mqtt.Asked:
        return mqtt.Asked(0.0, times, list(answers), handed_on=min(1, len(answers)))

    fresh, repeated, wrong = (True, False), (True, True), (False, False)

    found = mqtt.counted(
        {
            0: asked(fresh),
            1: asked(fresh, fresh),
            2: asked(fresh, repeated),
            3: asked(),
            4: asked(wrong),
            5: asked(fresh, fresh, times=2),
        }
    )

    assert found == {
        "requests": 6,
        "lost": 1,
        "handed_on_once": 5,
        "wrong": 1,
        "duplicated": 1,
        "asked_again": 1,
        "asked_again_and_answered_again": 1,
        "repeated_by_broker": 1,
    }
