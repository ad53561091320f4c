"""The door: names, addresses, certificates, and what an open server lets nobody do."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.errors import ForbiddenError, InvalidRequestError, UnauthenticatedError
from autoglm.serve.core import Client, Credentials
from autoglm.serve.guard import (
    Guard,
    GuardOptions,
    is_loopback,
    open_warning,
)
from autoglm.serve.guard.names import check_name


@pytest.mark.parametrize("name", ["minilm", "a", "bert-base_v1.2", "7", "x" * 128])
def test_plain_names_pass(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "a..b", "../x", "a/b", "a\\b", "-rf", ".hidden", "a b", "a\n", "ä"),
        *("x" * 129, "a\0", "http://x", "%2e%2e"),
    ],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError):
        check_name(name)


@given(st.text(max_size=40))
def test_a_name_that_passes_is_one_entry_below_any_folder(name: str) -> None:
    try:
        check_name(name)
    except InvalidRequestError:
        return
    place = (Path("/root-of-models") / name).resolve()
    assert place.parent == Path("/root-of-models")


@pytest.mark.parametrize(
    ("address", "own"),
    [
        ("127.0.0.1:8000", True),
        ("127.8.8.8", True),
        ("localhost:1", True),
        ("[::1]:8000", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0:8000", False),
        ("[::]:8000", False),
        ("10.0.0.1", False),
        ("localhost.evil.com", False),
        ("127.0.0.1.evil.com:80", False),
        ("", False),
    ],
)
def test_which_addresses_are_this_machine(address: str, own: bool) -> None:
    assert is_loopback(address) is own


def test_open_beyond_this_machine_is_warned_of() -> None:
    where = {"http": "0.0.0.0:8000", "grpc": "127.0.0.1:8001"}

    text = open_warning(where, is_open=True)

    assert "http 0.0.0.0:8000" in text
    assert "grpc" not in text
    assert open_warning(where, is_open=False) == ""
    assert open_warning({"http": "127.0.0.1:8000"}, is_open=True) == ""


def test_an_open_server_is_changed_by_programs_of_this_machine_only() -> None:
    guard = Guard()

    def anyone(address: str, **headers: str) -> Client:
        return guard.authenticate(Credentials("http", address, headers=headers))

    guard.permit(anyone("127.0.0.1:9", host="localhost:8000"), admin=True)
    guard.permit(anyone("127.0.0.1:9", host="[::1]:80", origin="http://[::1]:80"), admin=True)
    foreign = (
        anyone("10.0.0.1:9"),
        anyone("127.0.0.1:9", host="localhost:8000", origin="https://evil.example"),
        anyone("127.0.0.1:9", host="evil.example:8000"),  # DNS that points at this machine
        anyone("127.0.0.1:9", host="localhost", origin="null"),
        anyone(""),
    )
    for client in foreign:
        with pytest.raises(ForbiddenError):
            guard.permit(client, admin=True)


def certified(subject: str) -> Credentials:
    return Credentials("grpc", "10.0.0.1:5", certificate=subject)


def test_a_verified_certificate_is_a_client_by_its_common_name() -> None:
    guard = Guard(GuardOptions(certificates=True, admins=frozenset({"ops"})))

    edge, ops = (guard.authenticate(certified(f"CN={n},O=Lab")) for n in ("edge-1", "ops"))

    assert (edge.name, edge.admin) == ("edge-1", False)
    assert (ops.name, ops.admin) == ("ops", True)


@pytest.mark.parametrize(
    "subject", ["O=Lab", "CN=a,CN=b", r"CN=a\,CN\=ops", "CN=a\nb", "CN=", "O=x/CN=ops"]
)
def test_a_certificate_without_one_plain_common_name_is_nobody(subject: str) -> None:
    with pytest.raises(ForbiddenError):
        Guard(GuardOptions(certificates=True)).authenticate(certified(subject))


def test_a_table_of_subjects_lets_in_only_these() -> None:
    guard = Guard(GuardOptions(certificates=True, subjects={"CN=a,O=Lab": "alice"}))

    assert guard.authenticate(certified("CN=a,O=Lab")).name == "alice"
    with pytest.raises(ForbiddenError):
        guard.authenticate(certified("CN=a,O=Other"))


def test_a_certificate_is_no_identity_where_nobody_said_so(tmp_path: Path) -> None:
    from autoglm.serve.guard.keys import add_key

    add_key(tmp_path / "keys.json", "alice")
    guard = Guard(GuardOptions(keys=tmp_path / "keys.json"))

    with pytest.raises(UnauthenticatedError):
        guard.authenticate(certified("CN=alice"))


def test_a_wrong_key_is_not_forgiven_for_a_good_certificate(tmp_path: Path) -> None:
    from autoglm.serve.guard.keys import add_key

    add_key(tmp_path / "keys.json", "alice")
    guard = Guard(GuardOptions(keys=tmp_path / "keys.json", certificates=True))
    both = Credentials("http", "10.0.0.1:5", "Bearer agk_x_y", certificate="CN=bob")

    with pytest.raises(UnauthenticatedError):
        guard.authenticate(both)
