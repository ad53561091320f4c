"""A canary gets its share, the same requests every time, and nobody leaves when the share grows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.errors import InvalidRequestError
from autoglm.serve.pool.canary import canary, share


@pytest.mark.parametrize("percent", [1.0, 10.0, 33.0, 90.0])
def test_the_share_of_many_clients_is_the_percentage(percent: float) -> None:
    trial = canary("3", percent)

    taken = sum(trial.takes("m", f"client-{i}", "") for i in range(20_000))

    # Four standard deviations of a fair draw.
    spread = 4 * (percent * (100 - percent) / 20_000) ** 0.5
    assert abs(taken / 200 - percent) < spread


def test_requests_without_client_or_id_are_dealt_out_evenly() -> None:
    trial = canary("3", 25.0)

    taken = [trial.takes("m", "", "") for _ in range(1000)]

    assert 248 <= sum(taken) <= 252
    assert all(any(taken[i : i + 8]) for i in range(0, 992, 8))


@given(st.text(min_size=1), st.floats(0, 100), st.floats(0, 100))
def test_a_client_stays_on_the_canary_when_it_grows(client: str, one: float, two: float) -> None:
    small, large = sorted((one, two))

    if canary("3", small).takes("m", client, ""):
        assert canary("3", large).takes("m", client, "")


@given(st.text(min_size=1), st.text())
def test_one_client_sees_one_version_whatever_its_requests_are_called(
    client: str, request_id: str
) -> None:
    trial = canary("3", 50.0)

    assert trial.takes("m", client, request_id) == trial.takes("m", client, "")
    assert 0 <= share("m", client) < 1


def test_by_request_every_id_decides_anew() -> None:
    trial = canary("3", 50.0, "request")

    taken = {trial.takes("m", "one client", str(i)) for i in range(64)}

    assert taken == {True, False}


def test_all_and_none_are_all_and_none() -> None:
    assert all(canary("3", 100.0).takes("m", c, "") for c in "abcdef")
    assert not any(canary("3", 0.0).takes("m", c, "") for c in "abcdef")


@pytest.mark.parametrize(("percent", "by"), [(-1.0, "client"), (100.1, "client"), (5.0, "colour")])
def test_what_is_no_canary_is_refused(percent: float, by: str) -> None:
    with pytest.raises(InvalidRequestError, match="0 to 100"):
        canary("3", percent, by)
