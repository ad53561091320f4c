"""Rates and sizes by client, on a clock that only goes forward."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.errors import OverloadedError, TooLargeError
from autoglm.serve.core import Client, Credentials
from autoglm.serve.guard import Guard, GuardOptions, Limit
from autoglm.serve.guard.limits import _MOST_CLIENTS, Limits


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_passes_then_the_rate_holds() -> None:
    clock = Clock()
    limits = Limits(Limit(rate=10, burst=3), clock=clock)

    for _ in range(3):
        limits.admit("a", "a", 0)
    with pytest.raises(OverloadedError) as caught:
        limits.admit("a", "a", 0)

    wait = caught.value.facts["retry_after_s"]
    assert wait == pytest.approx(0.1, abs=2e-3)
    clock.now += float(str(wait))
    limits.admit("a", "a", 0)


def test_one_client_does_not_spend_anothers_tokens() -> None:
    limits = Limits(Limit(rate=1), clock=Clock())

    limits.admit("a", "a", 0)
    limits.admit("b", "b", 0)

    with pytest.raises(OverloadedError):
        limits.admit("a", "a", 0)


def test_a_client_with_a_limit_of_its_own_has_that() -> None:
    limits = Limits(Limit(max_bytes=10), {"big": Limit(max_bytes=100)}, Clock())

    limits.admit("big", "big", 100)
    with pytest.raises(TooLargeError) as caught:
        limits.admit("a", "a", 11)

    assert caught.value.facts["limit"] == 10
    assert caught.value.row.http == 413


def test_refused_requests_do_not_push_the_way_back_further_off() -> None:
    clock = Clock()
    limits = Limits(Limit(rate=1), clock=clock)
    limits.admit("a", "a", 0)

    for _ in range(9):
        clock.now += 0.11
        with pytest.raises(OverloadedError):
            limits.admit("a", "a", 0)
    clock.now += 0.11

    limits.admit("a", "a", 0)


@given(st.lists(st.floats(0, 2), max_size=60), st.floats(0.5, 20), st.floats(1, 9))
def test_never_more_than_burst_and_rate_allow(
    pauses: list[float], rate: float, burst: float
) -> None:
    clock = Clock()
    limits, passed = Limits(Limit(rate=rate, burst=burst), clock=clock), 0

    for pause in pauses:
        clock.now += pause
        try:
            limits.admit("a", "a", 0)
            passed += 1
        except OverloadedError:
            pass

    assert passed <= burst + rate * clock.now + 1e-6


def test_the_table_of_clients_is_bounded() -> None:
    limits = Limits(Limit(rate=1), clock=Clock())

    for i in range(_MOST_CLIENTS + 50):
        limits.admit(str(i), str(i), 0)

    assert len(limits._buckets) == _MOST_CLIENTS


def test_on_an_open_server_each_address_has_its_own_bucket() -> None:
    guard = Guard(GuardOptions(limit=Limit(rate=1)), clock=Clock())

    def client(address: str) -> Client:
        return guard.authenticate(Credentials("http", address))

    guard.admit(client("10.0.0.1:5"), 1)
    guard.admit(client("10.0.0.2:5"), 1)
    with pytest.raises(OverloadedError):
        guard.admit(client("10.0.0.1:6"), 1)
