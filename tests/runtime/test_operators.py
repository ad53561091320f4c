"""Each probe is a model that the engine takes; a factor is its time over the roofline's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from autoglm.catalog.roofline import Machine, node_seconds
from autoglm.catalog.work import Work
from autoglm.runtime.machine import _session_call
from autoglm.runtime.operators import PROBES, factors

HOST = Machine(dispatch_s={"": 0.0}, node_s=0.0)


def test_the_engine_here_takes_every_probe() -> None:
    found = factors(HOST, _session_call, lambda call: 1e-3)

    assert [p.op for p in PROBES if p.op not in found] == []


def test_no_operator_is_named_twice() -> None:
    names = [op for p in PROBES for op in (p.op, *p.others.split())]

    assert len(names) == len(set(names))


def test_a_call_twice_as_long_has_twice_the_factor() -> None:
    short = factors(HOST, _session_call, lambda call: 1e-3)
    long = factors(HOST, _session_call, lambda call: 2e-3)

    assert all(long[op] == pytest.approx(2 * short[op], abs=0.002) for op in ("Erf", "Sin", "Conv"))


def test_what_the_engine_refuses_is_left_out_and_runs_at_the_roofline() -> None:
    def broken(model: Any, feeds: Any) -> Callable[[], Any]:
        if model.graph.node[0].op_type == "Erf":
            raise RuntimeError("no kernel")
        return _session_call(model, feeds)

    found = factors(HOST, broken, lambda call: 1e-3)

    assert "Erf" not in found
    assert "Tanh" in found
    work = Work(1e6, 0, 0)
    plain = node_seconds(work, HOST, precision="fp32")
    assert node_seconds(work, Machine(node_s=0.0, factors=found), precision="fp32", op="Erf") == (
        plain
    )
