"""Each probe is a model that the engine takes; a factor is its time over the roofline's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from autoglm.catalog.roofline import Machine, node_seconds
from autoglm.catalog.work import Work
from autoglm.runtime.machine import _session_call
from autoglm.runtime.operators import PROBES, _solved, _Timed, factors

HOST = Machine(dispatch_s={"": 0.0}, node_s=0.0)


def test_the_engine_here_takes_every_probe() -> None:
    found, _ = factors(HOST, _session_call, lambda call: 1e-3)

    assert [p.op for p in PROBES if p.op not in found] == []


def test_no_operator_is_named_twice() -> None:
    names = [op for p in PROBES for op in (p.op, *p.others.split())]

    assert len(names) == len(set(names))


def test_a_call_twice_as_long_has_twice_the_factor() -> None:
    short, _ = factors(HOST, _session_call, lambda call: 1e-3)
    long, _ = factors(HOST, _session_call, lambda call: 2e-3)

    assert all(long[op] == pytest.approx(2 * short[op], abs=0.002) for op in ("Erf", "Sin", "Conv"))


def test_what_the_engine_refuses_is_left_out_and_runs_at_the_roofline() -> None:
    def broken(model: Any, feeds: Any) -> Callable[[], Any]:
        if model.graph.node[0].op_type == "Erf":
            raise RuntimeError("no kernel")
        return _session_call(model, feeds)

    found, _ = factors(HOST, broken, lambda call: 1e-3)

    assert "Erf" not in found
    assert "Tanh" in found
    work = Work(1e6, 0, 0)
    plain = node_seconds(work, HOST, precision="fp32")
    assert node_seconds(work, Machine(node_s=0.0, factors=found), precision="fp32", op="Erf") == (
        plain
    )


def test_what_is_done_step_by_step_is_told_from_the_products() -> None:
    def call() -> None: ...

    many, few = _Timed(1e-4, 128.0, call), _Timed(1e-3, 64.0, call)
    own = [2.0 * t.roof_s + 5e-7 * t.rounds for t in (few, many)]

    factor, round_s = _solved((few, many), own)

    assert (factor, round_s) == (pytest.approx(2.0), pytest.approx(5e-7))


def test_a_busy_moment_gives_no_negative_step() -> None:
    def call() -> None: ...

    many, few = _Timed(1e-4, 128.0, call), _Timed(1e-3, 64.0, call)

    factor, round_s = _solved((few, many), [4e-3, 1e-4])

    assert factor == pytest.approx(4.0)
    assert round_s == 0.0


def test_the_best_of_rounds_apart_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoglm.runtime.operators.PROBES", PROBES[:3])
    calls: dict[Any, int] = {}

    def seconds(call: Any) -> float:
        calls[call] = calls.get(call, 0) + 1
        return 1e-2 if calls[call] == 1 else 1e-3

    busy, _ = factors(HOST, _session_call, seconds)
    quiet, _ = factors(HOST, _session_call, lambda call: 1e-3)

    assert busy == quiet


def test_a_recurrence_has_steps_and_a_transposed_convolution_sums() -> None:
    _, rounds = factors(HOST, _session_call, lambda call: 1e-3)

    assert {"GRU", "LSTM", "RNN", "ConvTranspose"} >= set(rounds)
    steps = Work(1e6, 0, 0, gemm=True, rounds=100.0)
    slow = Machine(node_s=0.0, round_s={"GRU": 1e-6})
    plain = node_seconds(steps, HOST, precision="fp32", op="GRU")
    assert node_seconds(steps, slow, precision="fp32", op="GRU") == pytest.approx(plain + 1e-4)
