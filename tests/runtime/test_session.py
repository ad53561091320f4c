"""Walking partitions: values flow, dead ones are dropped, bad names are refused, closing is
thorough.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from autoglm.errors import InputError
from autoglm.runtime.session import PlanSession
from autoglm.spec import Feeds, Partition, TensorInfo, Value


def info(name: str) -> TensorInfo:
    return TensorInfo(name, "float32", (2,))


@dataclass
class Engine:
    """A session made of one NumPy function per output."""

    takes: tuple[str, ...]
    gives: dict[str, Callable[..., Value]]
    closed: int = 0
    seen: list[set[str]] = field(default_factory=list)

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        return tuple(info(n) for n in self.takes)

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        return tuple(info(n) for n in self.gives)

    def run(self, feeds: Feeds) -> dict[str, Value]:
        self.seen.append(set(feeds))
        return {name: f(*(feeds[t] for t in self.takes)) for name, f in self.gives.items()}

    def close(self) -> None:
        self.closed += 1


def part(id: str, engine: Engine, backend: str = "a") -> Partition:
    return Partition(id, backend, (id,), engine.takes, tuple(engine.gives), "fp32", 0.0)


def session_of(*engines: Engine, outputs: tuple[str, ...]) -> PlanSession:
    parts = [part(f"p{i}", e) for i, e in enumerate(engines)]
    sessions = dict(zip((p.id for p in parts), engines, strict=True))
    return PlanSession(parts, sessions, (info("x"),), tuple(info(o) for o in outputs))


X = np.array([1.0, 2.0], np.float32)


def test_one_partition_runs_as_the_engine_itself() -> None:
    engine = Engine(("x",), {"y": lambda x: x + 1})

    assert session_of(engine, outputs=("y",)).run == engine.run


def test_values_flow_from_partition_to_partition_and_skip_over_one() -> None:
    first = Engine(("x",), {"a": lambda x: x * 2})
    second = Engine(("a",), {"b": lambda a: a + 1})
    third = Engine(("b", "a", "x"), {"y": lambda b, a, x: b + a + x})

    got = session_of(first, second, third, outputs=("y",)).run({"x": X})

    assert list(got) == ["y"]
    np.testing.assert_array_equal(got["y"], X * 2 + 1 + X * 2 + X)


def test_an_output_in_the_middle_is_kept() -> None:
    first = Engine(("x",), {"a": lambda x: x * 2})
    second = Engine(("a",), {"y": lambda a: a + 1})

    got = session_of(first, second, outputs=("y", "a")).run({"x": X})

    assert list(got) == ["y", "a"]
    np.testing.assert_array_equal(got["a"], X * 2)


def test_an_engine_gets_only_what_it_takes() -> None:
    first = Engine(("x",), {"a": lambda x: x})
    second = Engine(("a",), {"y": lambda a: a})
    session_of(first, second, outputs=("y",)).run({"x": X})

    assert second.seen == [{"a"}]


def test_an_unknown_input_is_refused_by_name() -> None:
    first = Engine(("x",), {"a": lambda x: x})
    second = Engine(("a",), {"y": lambda a: a})

    with pytest.raises(InputError, match="No input 'z'; the model takes x"):
        session_of(first, second, outputs=("y",)).run({"x": X, "z": X})


def test_closing_reaches_every_engine_and_may_be_repeated() -> None:
    engines = Engine(("x",), {"a": lambda x: x}), Engine(("a",), {"y": lambda a: a})
    log: list[str] = []
    parts = [part(f"p{i}", e) for i, e in enumerate(engines)]
    with PlanSession(
        parts,
        {"p0": engines[0], "p1": engines[1]},
        (info("x"),),
        (info("y"),),
        on_close=lambda: log.append("gone"),
    ) as session:
        session.run({"x": X})
    session.close()

    assert all(e.closed for e in engines)
    assert log == ["gone"]
