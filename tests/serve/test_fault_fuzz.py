"""Some thousands of the million spoilt requests of `benchmarks.serving.fuzz_http`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from serve.tiny import dense_bundle

from benchmarks.serving import fuzz_http


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dense_bundle(tmp_path_factory.mktemp("fuzz"))


@pytest.fixture(scope="module")
def address(bundle: Path) -> Iterator[str]:
    with fuzz_http.child(bundle) as (_, found):  # it must answer a sound request at the end
        yield found


def require_clear(found: Counter[str], count: int) -> None:
    assert found.total() == count
    assert not set(found) & fuzz_http.MINE
    assert found["200"] > count // 20
    assert found["400"] > count // 20


def test_the_application_has_a_clear_status_for_every_spoilt_request(bundle: Path) -> None:
    require_clear(asyncio.run(fuzz_http.fuzz_app(4000, 7, bundle)), 4000)


def test_a_server_outlives_spoilt_bytes_over_http1(address: str) -> None:
    messages = fuzz_http.heads(800, 8)

    require_clear(asyncio.run(fuzz_http.fuzz_wire(address, messages, fuzz_http.play_h1, 16)), 800)


def test_a_server_outlives_spoilt_frames_over_http2(address: str) -> None:
    messages = fuzz_http.requests(320, 9)

    require_clear(asyncio.run(fuzz_http.fuzz_wire(address, messages, fuzz_http.play_h2, 8)), 320)
