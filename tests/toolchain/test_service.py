"""A long-lived program: answers, failures, crashes and hangs."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoglm.errors import BackendUnavailableError, ExecutionError
from autoglm.toolchain.service import Service

PROGRAM = """
import os, sys, time
from multiprocessing.connection import Connection
pipe, count = Connection(int(sys.argv[-1])), 0
while True:
    try:
        word = pipe.recv_bytes().decode()
    except EOFError:
        break
    count += 1
    if word == "die":
        print("going down", flush=True)
        os.abort()
    if word == "hang":
        time.sleep(600)
    pipe.send_bytes(b"-no such word" if word == "bad" else f"+{word} {count}".encode())
"""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service([sys.executable, "-c", PROGRAM], log=tmp_path / "log")
    yield made
    made.close()
    made.close()


def test_it_is_started_once_and_keeps_what_it_knows(service: Service) -> None:
    assert service.ask(b"one", timeout_s=60) == b"one 1"
    assert service.ask(b"two", timeout_s=60) == b"two 2"


def test_a_failure_is_an_error_and_it_stays_alive(service: Service) -> None:
    with pytest.raises(ExecutionError, match="no such word"):
        service.ask(b"bad", timeout_s=60)

    assert service.ask(b"two", timeout_s=60) == b"two 2"


def test_a_crash_is_an_error_with_its_signal_and_the_next_question_starts_it_again(
    service: Service,
) -> None:
    with pytest.raises(ExecutionError, match=r"SIGABRT.*going down"):
        service.ask(b"die", timeout_s=60)

    assert service.ask(b"one", timeout_s=60) == b"one 1"


def test_a_late_one_is_killed(service: Service) -> None:
    service.ask(b"one", timeout_s=60)

    with pytest.raises(ExecutionError, match=r"no answer within 0\.2 s"):
        service.ask(b"hang", timeout_s=0.2)

    assert service.ask(b"one", timeout_s=60) == b"one 1"


def test_a_program_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailableError, match="cannot be started"):
        Service([str(tmp_path / "nothing")], log=tmp_path / "log").ask(b"x", timeout_s=1)


def test_one_that_never_reads_is_late_however_long_the_question(tmp_path: Path) -> None:
    deaf = Service([sys.executable, "-c", "import time; time.sleep(600)"], log=tmp_path / "log")

    with pytest.raises(ExecutionError, match=r"no answer within 0\.5 s"):
        deaf.ask(bytes(8 << 20), timeout_s=0.5)


def test_one_that_stalls_amid_its_answer_is_late(tmp_path: Path) -> None:
    code = "import os, sys, time; os.write(int(sys.argv[-1]), bytes([0, 0, 1, 0])); time.sleep(600)"
    slow = Service([sys.executable, "-c", code], log=tmp_path / "log")

    with pytest.raises(ExecutionError, match=r"no answer within 0\.5 s"):
        slow.ask(b"one", timeout_s=0.5)


def test_closing_does_not_wait_for_the_answer(service: Service) -> None:
    service.ask(b"one", timeout_s=60)
    errors: list[ExecutionError] = []

    def ask() -> None:
        try:
            service.ask(b"hang", timeout_s=600)
        except ExecutionError as error:
            errors.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(0.2)
    service.close()
    asking.join(timeout=10)

    assert "SIGKILL" in str(errors)


def test_a_memory_limit_holds_in_it(tmp_path: Path) -> None:
    greedy = Service(
        [sys.executable, "-c", "bytearray(2 << 30)"], log=tmp_path / "log", memory_bytes=512 << 20
    )

    with pytest.raises(ExecutionError, match="MemoryError"):
        greedy.ask(b"one", timeout_s=60)
