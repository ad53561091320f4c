"""What waits for the broker's socket is joined as far as it helps, and stays as it was joined."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from autoglm.serve.mqtt.link import _join

LARGE = 300 << 10
_PUBLISH, _PUBACK, _DISCONNECT = 0x30, 0x40, 0xE0


def packet(command: int, size: int, qos: int = 0, fill: bytes = b"r") -> dict[str, Any]:
    data = bytearray(fill * size)
    return {"command": command, "qos": qos, "pos": 0, "to_process": size, "packet": data}


def answer(fill: bytes, size: int = LARGE, qos: int = 1) -> list[dict[str, Any]]:
    """An answer and the receipt of its question."""
    return [packet(_PUBLISH | qos << 1, size, qos, fill), packet(_PUBACK, 4)]


def bytes_of(waiting: deque[dict[str, Any]]) -> bytes:
    return b"".join(p["packet"][p["pos"] :] for p in waiting)


def send(waiting: deque[dict[str, Any]], size: int) -> None:
    waiting[0]["pos"] += size
    waiting[0]["to_process"] -= size


@pytest.mark.parametrize("sent", [1000, LARGE - 1000])
def test_large_answers_stay_apart_after_a_partial_send(sent: int) -> None:
    waiting = deque([p for fill in (b"a", b"b", b"c") for p in answer(fill)])
    _join(waiting)
    before = bytes_of(waiting)
    assert [p["to_process"] for p in waiting] == [LARGE + 4] * 3

    send(waiting, sent)
    waiting.extend(answer(b"d"))
    _join(waiting)

    assert [p["to_process"] for p in waiting] == [LARGE + 4 - sent, *[LARGE + 4] * 3]
    assert bytes_of(waiting) == before[sent:] + b"d" * LARGE + b"rrrr"


def test_a_partly_sent_packet_is_joined_with_what_follows() -> None:
    waiting = deque([*answer(b"a", 10), *answer(b"b", 10)])
    send(waiting, 3)

    _join(waiting)

    (one,) = waiting
    assert one["packet"] == b"aaaaaaarrrrbbbbbbbbbbrrrr"
    assert (one["pos"], one["to_process"]) == (0, 25)


@pytest.mark.parametrize("odd", [packet(_PUBLISH, 10, 0, b"o"), packet(_DISCONNECT, 2, 0, b"o")])
def test_what_paho_watches_goes_alone_and_the_rest_is_joined(odd: dict[str, Any]) -> None:
    waiting = deque([*answer(b"a", 10), odd, *answer(b"b", 10), *answer(b"c", 10)])
    before = bytes_of(waiting)

    _join(waiting)

    assert [p["to_process"] for p in waiting] == [14, odd["to_process"], 28]
    assert waiting[1] is odd
    assert bytes_of(waiting) == before
