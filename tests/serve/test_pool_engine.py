"""One engine: who waits for its turn, and what it remembers of a run that took too long."""

from __future__ import annotations

import numpy as np
import pytest

from autoglm.errors import DeadlineError, ExecutionError
from autoglm.serve.pool.engine import Engine
from autoglm.spec import Feeds

X = {"x": np.ones((2, 4), np.float32)}


class Session:
    """Gives back its feeds, or raises what it is told to."""

    error: BaseException | None = None
    closed = False

    def run(self, feeds: Feeds) -> Feeds:
        if self.error is not None:
            raise self.error
        return feeds

    def close(self) -> None:
        self.closed = True


class Taken:
    """A lock that somebody else holds for ever."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def acquire(self, timeout: float) -> bool:
        self.waits.append(timeout)
        return False


@pytest.mark.parametrize(("restarts", "waits"), [(False, [1.0, 30.0]), (True, [600.0, 600.0])])
def test_only_a_run_that_may_stand_on_the_loop_gives_up_soon(
    restarts: bool, waits: list[float]
) -> None:
    engine = Engine("e", Session(), X, restarts=restarts)
    engine.limit_run(30.0)
    engine.run(X)
    engine._lock = taken = Taken()  # type: ignore[assignment]

    with pytest.raises(ExecutionError, match="busy"):
        engine.run(X)
    assert "busy" in engine.probe()

    assert taken.waits == waits


def test_a_run_that_its_session_ended_is_remembered_until_it_is_examined() -> None:
    session = Session()
    engine = Engine("e", session, X)
    session.error = DeadlineError("late")

    with pytest.raises(DeadlineError):
        engine.run(X)

    assert engine.late
    assert engine.probe() == "late"
    assert not engine.late


def test_a_probe_tells_whatever_is_raised() -> None:
    session = Session()
    session.error = SystemExit(3)

    assert Engine("e", session, X).probe() == "3"


def test_what_waited_for_an_engine_that_closed_does_not_run() -> None:
    session = Session()
    engine = Engine("e", session, X)
    engine.close()

    with pytest.raises(ExecutionError, match="session is closed"):
        engine.run(X)
    assert session.closed
