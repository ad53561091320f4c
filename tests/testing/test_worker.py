"""Workers: a crash or a hang costs one answer, not the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoglm.testing.worker import Lost, Worker, ask_all

CHILD = """
import os, signal, time

def factory(greeting):
    def answer(question):
        if question == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if question == "hang":
            time.sleep(60)
        return greeting + question
    return answer
"""


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "autoglm_test_child.py").write_text(CHILD)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "autoglm_test_child:factory"


def test_a_crash_and_a_hang_are_answers_and_the_next_question_is_asked(target: str) -> None:
    asked = ["a", "crash", "b", "c", "hang", "d"]
    seen: list[tuple[int, int]] = []

    found = ask_all(
        target,
        ("hi ",),
        asked,
        timeout_s=3.0,
        progress=lambda done, total: seen.append((done, total)),
    )

    lost = {i: f.kind for i, f in enumerate(found) if isinstance(f, Lost)}
    assert lost == {1: "crash", 4: "timeout"}
    assert [f for f in found if isinstance(f, str)] == ["hi a", "hi b", "hi c", "hi d"]
    assert seen[-1] == (6, 6)


def test_answers_keep_their_order_with_several_children(target: str) -> None:
    asked = [str(n) for n in range(20)]

    assert ask_all(target, ("",), asked, jobs=2) == asked


def test_what_is_not_asked_in_time_has_no_answer(target: str) -> None:
    assert ask_all(target, ("",), ["a", "b"], limit_s=-1.0) == [None, None]


def test_a_worker_may_be_closed_twice(target: str) -> None:
    worker = Worker(target, "")
    assert worker.ask("x") == "x"

    worker.close()
    worker.close()
