"""`autoglm models` against a server that runs: what it shows, changes, and says when it cannot."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from serve_rest import served
from served_bundles import bundle, corrupt

from autoglm.cli.app import invoke
from autoglm.errors import TABLE
from autoglm.serve.guard.keys import add_key

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    bundle(tmp_path / "r/m/1", 1.0)
    bundle(tmp_path / "r/m/2", 2.0)
    return tmp_path / "r"


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    with served(folder) as address:
        yield address


def asked(words: list[str], capsys: Capture, status: int = 0) -> Any:
    capsys.readouterr()
    assert invoke(["models", *words, "--json"]) == status
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("port", ["PORT", "nine"])
def test_no_error_shows_the_password_of_an_address(port: str, capsys: Capture) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        port = port.replace("PORT", str(taken.getsockname()[1]))
        url = f"http://me:secret@127.0.0.1:{port}"
        assert invoke(["models", "list", "--url", url, "--json"]) != 0

    said = capsys.readouterr()
    assert f"127.0.0.1:{port}" in said.out + said.err
    assert "secret" not in said.out + said.err


def test_a_user_in_the_address_is_passed_over(url: str, capsys: Capture) -> None:
    rows = asked(["list", "--url", url.replace("://", "://me:secret@")], capsys)["models"]

    assert [r["version"] for r in rows] == ["1", "2"]


def test_list_shows_every_version(url: str, capsys: Capture) -> None:
    rows = asked(["list", "--url", url], capsys)["models"]

    assert [(r["name"], r["version"], r["state"]) for r in rows] == [
        ("m", "1", "ready"),
        ("m", "2", "ready"),
    ]
    assert invoke(["models", "list", "--url", url]) == 0
    assert "m:2  ready" in capsys.readouterr().out


def test_load_unload_alias_label_and_canary_change_the_server(
    url: str, folder: Path, capsys: Capture
) -> None:
    bundle(folder / "m/3", 3.0)
    at = ["--url", url]

    loaded = asked(["load", "m", "--canary", "25", *at], capsys)["models"]
    assert (loaded[-1]["version"], loaded[-1]["canary_percent"]) == ("3", 25.0)
    asked(["alias", "m", "stable", "1", *at], capsys)
    asked(["label", "m", "int8", "2", *at], capsys)
    asked(["canary", "m", "3", "50", "--by", "request", *at], capsys)
    rows = asked(["unload", "m", "--version", "2", *at], capsys)["models"]

    assert [r["state"] for r in rows] == ["ready", "unloaded", "ready"]
    assert rows[0]["aliases"] == ["stable"]
    assert rows[1]["labels"] == ["int8"]
    assert rows[2]["canary_percent"] == 50.0
    assert asked(["alias", "m", "stable", *at], capsys)["models"][0]["aliases"] == []


def test_a_corrupted_bundle_is_refused_with_its_reason(
    url: str, folder: Path, capsys: Capture
) -> None:
    corrupt(bundle(folder / "m/3", 3.0))

    error = asked(["load", "m", "--url", url], capsys, TABLE["bundle"].exit)["error"]

    assert "has changed since it was written" in error["message"]
    assert error["code"] == "bundle"


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["load", "other"], "file", "holds no model other"),
        (["unload", "m", "--version", "9"], "model-not-served", "no version '9'"),
        (["canary", "m", "2", "200"], "invalid-request", "0 to 100"),
        (["canary", "m", "2", "2", "--by", "colour"], "invalid-request", "client"),
        (["load", "m", "../../etc"], "forbidden", "not a bundle inside"),
        (["load", "a/b"], "invalid-request", "There is no"),
    ],
)
def test_what_the_server_refuses_is_said_as_it_said_it(
    url: str, words: list[str], code: str, text: str, capsys: Capture
) -> None:
    error = asked([*words, "--url", url], capsys, TABLE[code].exit)["error"]

    assert error["code"] == code
    assert text in error["message"]


def test_a_key_is_sent_and_its_absence_explained(
    folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    _, admin = add_key(tmp_path / "keys.json", "operator", admin=True)
    _, user = add_key(tmp_path / "keys.json", "user")
    (tmp_path / "key").write_text(f"{admin}\n", "utf-8")
    with served(folder, keys=tmp_path / "keys.json") as url:
        for words, code in (([], "unauthenticated"), (["--api-key", user], "forbidden")):
            error = asked(["list", "--url", url, *words], capsys, TABLE[code].exit)["error"]
            assert error["code"] == code
        assert asked(["list", "--url", url, "--api-key", admin], capsys)["models"]
        by_file = ["list", "--url", url, "--api-key-file", str(tmp_path / "key")]
        assert asked(by_file, capsys)["models"]


def test_no_server_is_one_line_that_says_what_to_do(capsys: Capture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        free = listener.getsockname()[1]

    status = invoke(["models", "list", "--url", f"http://127.0.0.1:{free}"])

    error = capsys.readouterr().err
    assert status == TABLE["draining"].exit
    assert "No server answers at" in error
    assert "autoglm serve" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("url", ["ftp://x", "127.0.0.1:8000", "file:///etc/passwd", "http://"])
def test_an_address_that_is_none_is_refused(url: str, capsys: Capture) -> None:
    assert invoke(["models", "list", "--url", url]) == TABLE["config"].exit
    assert "begins with http://, https://" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (200, b"<html>hello</html>", "no autoglm server"),
        (502, b"<html>bad gateway</html>", "answered 502"),
        (302, b"", "answered 302"),
        (500, b'{"error": "plain text {of} another"}', "plain text {of} another"),
        (429, b'{"message": "slow down", "hint": "wait {1} s"}', "slow down"),
    ],
)
def test_an_answer_of_something_else_is_no_crash(
    status: int, body: bytes, text: str, capsys: Capture
) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Other)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    code = invoke(["models", "list", "--url", f"http://127.0.0.1:{server.server_port}"])
    server.shutdown()
    server.server_close()
    thread.join(10)

    error = capsys.readouterr().err
    assert code != 0
    assert text in error
    assert "mistake of ours" not in error
