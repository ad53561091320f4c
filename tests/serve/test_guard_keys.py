"""API keys: shown once, hashed at rest, believed only while they are in the file."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.errors import (
    ConfigError,
    FileMissingError,
    ForbiddenError,
    InvalidRequestError,
    UnauthenticatedError,
)
from autoglm.serve.core import Credentials
from autoglm.serve.guard import Guard, GuardOptions
from autoglm.serve.guard.keys import add_key, read_keys, revoke_keys, verify_key


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def told(authorization: str) -> Credentials:
    return Credentials("http", "10.0.0.1:5", authorization)


def test_a_key_opens_the_door_and_its_text_is_in_no_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    _, text = add_key(path, "alice")
    guard = Guard(GuardOptions(keys=path))

    clients = [
        guard.authenticate(told(a)).name for a in (f"Bearer {text}", f"bearer  {text}", text)
    ]

    assert clients == ["alice"] * 3
    assert text.rpartition("_")[2] not in path.read_text()
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_two_keys_with_one_secret_would_not_have_one_hash(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    for _ in range(2):
        add_key(path, "alice")

    keys = list(read_keys(path).values())

    assert len({k.salt for k in keys}) == 2
    assert len({k.hash for k in keys}) == 2


@pytest.mark.parametrize("change", ["last", "id", "empty", "prefix", "newline"])
def test_a_key_that_is_not_exactly_one_of_ours_is_refused(tmp_path: Path, change: str) -> None:
    path = tmp_path / "keys.json"
    _, text = add_key(path, "alice")
    wrong = {
        "last": text[:-1] + ("A" if text[-1] != "A" else "B"),
        "id": text.replace("agk_", "agk_0", 1),
        "empty": "agk__",
        "prefix": text.removeprefix("agk_"),
        "newline": text + "x\n",
    }[change]

    with pytest.raises(UnauthenticatedError):
        Guard(GuardOptions(keys=path)).authenticate(told(wrong))


def test_no_key_at_all_is_refused_and_the_way_in_is_named(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    add_key(path, "alice")

    with pytest.raises(UnauthenticatedError) as caught:
        Guard(GuardOptions(keys=path)).authenticate(told(""))

    assert caught.value.row.http == 401
    assert "autoglm keys add" in caught.value.hint


def test_a_revoked_key_is_refused_by_a_running_server_and_a_new_one_accepted(
    tmp_path: Path,
) -> None:
    path, clock = tmp_path / "keys.json", Clock()
    _, old = add_key(path, "alice")
    guard = Guard(GuardOptions(keys=path), clock=clock)
    guard.authenticate(told(old))

    _, new = add_key(path, "alice")
    revoke_keys(path, old.split("_")[1])
    clock.now += 2

    assert guard.authenticate(told(new)).name == "alice"
    with pytest.raises(UnauthenticatedError):
        guard.authenticate(told(old))


def test_a_broken_key_file_keeps_the_old_keys_and_says_so(tmp_path: Path) -> None:
    path, clock, said = tmp_path / "keys.json", Clock(), []
    _, text = add_key(path, "alice")
    guard = Guard(GuardOptions(keys=path), clock=clock, report=said.append)

    path.write_text('{"format": 1, "keys": [')
    clock.now += 2

    assert guard.authenticate(told(text)).name == "alice"
    assert len(said) == 1
    assert "stays in force" in said[0]


def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    add_key(path, "alice")
    path.chmod(0o644)

    with pytest.raises(ConfigError, match="mode 0644") as caught:
        Guard(GuardOptions(keys=path))
    assert "chmod 600" in caught.value.hint


def test_a_missing_key_file_is_an_error_not_an_open_door(tmp_path: Path) -> None:
    with pytest.raises(FileMissingError):
        Guard(GuardOptions(keys=tmp_path / "none.json"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"format": 2, "keys": []}',
        '{"format": 1, "keys": [{"id": "a"}]}',
        '{"format": 1, "keys": {"a": 1}}',
        "[" * 100_000,
        '{"format": 1, "keys": [{"id": "a", "name": "n", "salt": "s", "hash": "", "created": ""}]}',
    ],
)
def test_a_damaged_key_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.json"
    path.touch(0o600)
    path.write_text(text)

    with pytest.raises(ConfigError, match="no key file"):
        read_keys(path)


def test_keys_added_at_once_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    threads = [threading.Thread(target=add_key, args=(path, f"c{i}")) for i in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {k.name for k in read_keys(path).values()} == {f"c{i}" for i in range(8)}


def test_revoking_nobody_names_who_is_there(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    add_key(path, "alice")

    with pytest.raises(InvalidRequestError, match="there are: alice"):
        revoke_keys(path, "bob")


def test_a_key_for_some_models_opens_these_only(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    _, text = add_key(path, "alice", models=("bert-*",))
    guard = Guard(GuardOptions(keys=path))
    client = guard.authenticate(told(text))

    guard.permit(client, "bert-large")
    with pytest.raises(ForbiddenError) as caught:
        guard.permit(client, "gpt")

    assert caught.value.row.http == 403
    assert "bert" not in str(caught.value)


def test_only_an_admin_key_changes_the_server(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    texts = [add_key(path, n, admin=n == "root")[1] for n in ("root", "alice")]
    guard = Guard(GuardOptions(keys=path))
    root, alice = (guard.authenticate(told(t)) for t in texts)

    guard.permit(root, admin=True)
    with pytest.raises(ForbiddenError):
        guard.permit(alice, admin=True)


@given(st.text(max_size=200))
def test_no_text_but_the_key_is_the_key(text: str) -> None:
    assert verify_key({}, text) is None


def test_the_file_is_plain_json_of_known_fields(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    add_key(path, "alice")

    (row,) = json.loads(path.read_text())["keys"]

    assert set(row) == {"id", "name", "salt", "hash", "created", "models", "admin"}
