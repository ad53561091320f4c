"""The wall clock jumps by days, forward and back, under a server that is asked over every wire."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from serve.faults import GOOD, GRPC, V2_GRPC, WIRES
from serve.mosquitto import BINARY, MISSING, Mosquitto
from serve.tiny import dense_bundle
from serve.wires import Client, Outcome

COMPILER = shutil.which("cc")
pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="no C compiler for the clock: apt-get install gcc"),
    pytest.mark.skipif(BINARY is None, reason=MISSING),
]
DAY = 86_400


@pytest.fixture
def shim(tmp_path: Path) -> dict[str, str]:
    """The environment of a process whose wall clock the file `offset` shifts."""
    library, source = tmp_path / "clock.so", Path(__file__).with_name("clock_shim.c")
    argv = [str(COMPILER), "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(argv, check=True)
    (tmp_path / "offset").write_text("0")
    said = {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(tmp_path / "offset")}
    return dict(os.environ) | said


@pytest.fixture
def urls(shim: dict[str, str], tmp_path: Path) -> Iterator[tuple[dict[str, str], Mosquitto]]:
    """A real server with that clock."""
    with Mosquitto(tmp_path) as broker:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "autoglm.cli", "serve", str(dense_bundle(tmp_path)),
                "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--mqtt", broker.url,
                "--cache-mb", "4", "--rate", "1000",
            ],
            stdout=subprocess.PIPE, text=True, env=shim,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            words = [process.stdout.readline().split() for _ in range(3)]
            yield {name: url for name, url, *_ in words}, broker
            assert process.poll() is None
        finally:
            process.kill()
            process.wait(60)


def test_a_clock_that_jumps_changes_no_answer(
    urls: tuple[dict[str, str], Mosquitto], tmp_path: Path
) -> None:
    found, broker = urls
    client = Client(found, {}, broker.port)
    ok = {w: Outcome("", "OK" if w in (V2_GRPC, GRPC) else 200) for w in WIRES}
    try:
        for offset in (0, 30 * DAY, -30 * DAY, 1, 0):
            (tmp_path / "offset").write_text(str(offset))
            for _ in range(3):
                assert {wire: client.ask(wire, GOOD) for wire in WIRES} == ok
    finally:
        client.close()


def test_the_clock_is_really_shifted(shim: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "offset").write_text(str(30 * DAY))
    code = "import time; print(time.time(), time.monotonic())"

    out = subprocess.run(
        [sys.executable, "-c", code], env=shim, capture_output=True, text=True, check=True
    )

    wall, steady = map(float, out.stdout.split())
    assert 29 * DAY < wall - time.time() < 31 * DAY
    assert abs(steady - time.monotonic()) < DAY / 24
