"""`autoglm bench-serve` against a server that runs, over every protocol, and where it cannot."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serve.certificates import self_signed
from serve.mosquitto import BINARY, MISSING, Mosquitto
from serve.tiny import running
from served_bundles import bundle

from autoglm.cli.app import invoke
from autoglm.errors import TABLE
from autoglm.serve.guard import GuardOptions
from autoglm.serve.guard.keys import add_key
from autoglm.serve.options import Tls, TransportOptions
from autoglm.serve.server import ServeOptions

Capture = pytest.CaptureFixture[str]
SHORT = ("--concurrency", "1,3", "--seconds", "0.2")


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = bundle(tmp_path_factory.mktemp("served") / "triple", 3.0)
    addresses = {"http": "127.0.0.1:0", "grpc": "127.0.0.1:0"}
    with running(ServeOptions([str(folder)], addresses)) as server:
        yield server.urls


def asked(words: list[str], capsys: Capture, status: int = 0) -> Any:
    capsys.readouterr()
    assert invoke(["bench-serve", *words, "--json"]) == status, capsys.readouterr().out
    return json.loads(capsys.readouterr().out)


def check(report: dict[str, Any], protocol: str) -> None:
    assert report["protocol"] == protocol
    assert report["inputs"] == {"x": "float32 1x4"}
    assert list(report["outputs"].values()) == ["float32 1x4"]
    assert report["unfit"] == []
    assert [load["concurrency"] for load in report["loads"]] == [1, 3]
    for load in report["loads"]:
        assert (load["errors"], load["faults"]) == (0, {})
        assert load["requests"] > 0
        assert load["sent_bytes"] > 0 < load["received_bytes"]
        assert load["p50_ms"] <= load["p90_ms"] <= load["p99_ms"] <= load["max_ms"]


@pytest.mark.parametrize("protocol", ["oip", "oip-binary", "grpc"])
def test_every_protocol_is_asked_and_answers_right(
    urls: dict[str, str], protocol: str, capsys: Capture
) -> None:
    url = urls["grpc" if protocol == "grpc" else "http"]

    report = asked(["--url", url, "--model", "triple", "--protocol", protocol, *SHORT], capsys)

    check(report, protocol)


def test_the_envelope_has_no_dtypes(urls: dict[str, str], capsys: Capture) -> None:
    report = asked(
        ["--url", urls["http"], "--model", "triple", "--protocol", "rest", *SHORT], capsys
    )

    assert report["unfit"] == []
    assert all(load["requests"] > 0 and not load["errors"] for load in report["loads"])


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_the_one_model_need_not_be_named(
    urls: dict[str, str], scheme: str, capsys: Capture
) -> None:
    report = asked(["--url", urls[scheme], *SHORT], capsys)

    assert report["model"] == "triple"


def test_of_several_models_one_is_named(tmp_path: Path, capsys: Capture) -> None:
    folders = [str(bundle(tmp_path / name, 1.0)) for name in ("a", "b")]
    with running(ServeOptions(folders, {"http": "127.0.0.1:0"})) as server:
        error = asked(["--url", server.urls["http"]], capsys, TABLE["input"].exit)["error"]

    assert "lists: a, b" in error["message"]
    assert "--model" in error["hint"]


@pytest.mark.skipif(BINARY is None, reason=MISSING)
def test_mqtt_is_asked_with_a_shape_and_says_what_is_wrong(tmp_path: Path, capsys: Capture) -> None:
    folder = bundle(tmp_path / "triple", 3.0)
    with Mosquitto(tmp_path) as broker:
        words = ["--url", broker.url, "--timeout-s", "20", *SHORT]
        shape = ["--shape", "x=1,4"]
        with running(ServeOptions([str(folder)], {"mqtt": broker.url})):
            report = asked(["--model", "triple", *words, *shape], capsys)
            unknown = asked(
                ["--model", "none", *words, *shape], capsys, TABLE["model-not-served"].exit
            )
            untold = asked(["--model", "triple", *words], capsys, TABLE["input"].exit)
        alone = asked(["--model", "triple", *words, *shape], capsys, TABLE["draining"].exit)

    check(report, "mqtt")
    assert "none" in unknown["error"]["message"]
    assert "--shape" in untold["error"]["hint"]
    assert "autoglm/v1/triple/infer" in alone["error"]["message"]


def test_the_table_shows_figures_and_a_file_is_asked(
    urls: dict[str, str], tmp_path: Path, capsys: Capture
) -> None:
    np.savez(tmp_path / "x.npz", x=np.ones((5, 4), np.float32))

    words = ["--url", urls["http"], "--model", "triple", "--inputs", str(tmp_path / "x.npz")]
    assert invoke(["bench-serve", *words, *SHORT]) == 0

    out = capsys.readouterr().out
    assert "x float32 5x4" in out
    assert "p99 ms" in out


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_an_unknown_model_is_one_line(urls: dict[str, str], scheme: str, capsys: Capture) -> None:
    status = invoke(["bench-serve", "--url", urls[scheme], "--model", "nobody"])

    error = capsys.readouterr().err
    assert status == TABLE["model-not-served"].exit
    assert "nobody" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("scheme", ["http", "grpc", "mqtt"])
def test_no_server_is_one_line(scheme: str, capsys: Capture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    words = ["--url", f"{scheme}://127.0.0.1:{port}", "--model", "m", "--shape", "x=1"]
    status = invoke(["bench-serve", *words])

    error = capsys.readouterr().err
    assert status == TABLE["draining"].exit
    assert "No server answers at" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("found", ["", "0", "1,,2", "x", "-1", "5000", "1.5", "²"])
def test_a_bad_concurrency_is_refused_before_anybody_is_asked(found: str, capsys: Capture) -> None:
    words = ["--url", "http://127.0.0.1:1", "--model", "m", f"--concurrency={found}"]

    assert invoke(["bench-serve", *words]) == TABLE["usage"].exit
    assert "1 to 4096" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--url", "ftp://x"], "begins with http://"),
        (["--url", "http://h:x"], "no address of a server"),
        (["--url", "http://h:1", "--protocol", "grpc"], "no address for protocol 'grpc'"),
        (["--url", "mqtt://h", "--protocol", "oip"], "no address for protocol 'oip'"),
    ],
)
def test_an_address_that_does_not_fit_is_refused(
    words: list[str], text: str, capsys: Capture
) -> None:
    assert invoke(["bench-serve", "--model", "m", *words]) == TABLE["config"].exit
    assert text in capsys.readouterr().err


def test_wrong_inputs_are_refused_in_the_servers_words(
    urls: dict[str, str], tmp_path: Path, capsys: Capture
) -> None:
    np.savez(tmp_path / "x.npz", x=np.ones((1, 7), np.float32))
    at = ["--url", urls["http"], "--model", "triple"]

    wrong = asked([*at, "--inputs", str(tmp_path / "x.npz")], capsys, 64)
    absent = asked([*at, "--inputs", str(tmp_path / "y.npz")], capsys, TABLE["file"].exit)
    shape = asked([*at, "--shape", "z=1,4"], capsys, TABLE["input"].exit)
    form = asked([*at, "--shape", "x=1,a"], capsys, TABLE["usage"].exit)

    assert "answered 400" in wrong["error"]["message"]
    assert "y.npz" in absent["error"]["message"]
    assert "takes x" in shape["error"]["message"]
    assert "x=1,a" in form["error"]["message"]


def test_a_key_and_tls_are_used(tmp_path: Path, capsys: Capture) -> None:
    folder = bundle(tmp_path / "triple", 3.0)
    certificate, key = self_signed(tmp_path)
    _, token = add_key(tmp_path / "keys.json", "bench")
    options = ServeOptions(
        [str(folder)],
        {"http": "127.0.0.1:0", "grpc": "127.0.0.1:0"},
        TransportOptions(tls=Tls(certificate, key, None)),
        guard=GuardOptions(keys=tmp_path / "keys.json"),
    )

    with running(options) as server:
        for name in ("http", "grpc"):
            port = server.urls[name].rpartition(":")[2]
            at = ["--url", f"{name}s://localhost:{port}", "--model", "triple", *SHORT]
            trusted = [*at, "--ca", str(certificate)]
            report = asked([*trusted, "--api-key", token], capsys)
            stranger = asked(trusted, capsys, TABLE["unauthenticated"].exit)
            doubted = asked([*at, "--api-key", token], capsys, TABLE["draining"].exit)

            check(report, "grpc" if name == "grpc" else "oip")
            assert "--api-key-file" in stranger["error"]["hint"]
            assert "No server answers" in doubted["error"]["message"]
