"""What a hostile or broken HTTP client can do: be told so, and cost nobody else anything."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h2.connection
import h2.events
import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serve.certificates import self_signed
from serve.tiny import WIDTH, dense_bundle, running

from autoglm.serve.batch import BatchLimits
from autoglm.serve.http.protocol import subject_of
from autoglm.serve.options import Tls, TransportOptions
from autoglm.serve.server import ServeOptions, Server

LIMITS = TransportOptions(
    max_bytes=1 << 16,
    head_timeout_s=0.4,
    body_timeout_s=0.6,
    idle_timeout_s=2.0,
    max_connections=20,
)
GOOD = json.dumps({"model_name": "dense", "data": [[1.0] * WIDTH]}).encode()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dense_bundle(tmp_path_factory.mktemp("limits"))


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Server]:
    options = ServeOptions([str(bundle)], {"http": "127.0.0.1:0"}, LIMITS)
    with running(options) as server:
        yield server


@pytest.fixture(autouse=True)
def _still_answers(server: Server) -> Iterator[None]:
    yield
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:  # connections of the test may still be closing
        with contextlib.suppress(httpx.TransportError):
            answer = httpx.post(f"{server.urls['http']}/v1/infer", content=GOOD, timeout=30)
            if answer.status_code == 200:
                return
    pytest.fail("the server does not answer any more")


def connect(server: Server) -> socket.socket:
    host, _, port = server.urls["http"].removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def head(*lines: str) -> bytes:
    first = ("POST /v1/infer HTTP/1.1", "host: x", *lines)
    return "\r\n".join(first).encode() + b"\r\n\r\n"


def everything(peer: socket.socket) -> bytes:
    """What comes until the server closes; it must."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while part := peer.recv(65536):
            data += part
    return data


def flood(peer: socket.socket, part: bytes, times: int) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(times):
            peer.sendall(part)


@pytest.mark.parametrize("sent", [b"", b"POST /v1/in", b"POST /v1/infer HTTP/1.1\r\nhost: x\r\n"])
def test_a_head_that_does_not_come_is_a_408(server: Server, sent: bytes) -> None:
    with connect(server) as peer:
        peer.sendall(sent)
        assert everything(peer).startswith(b"HTTP/1.1 408 ")


def test_a_head_in_drops_is_no_excuse(server: Server) -> None:
    with connect(server) as peer:
        peer.sendall(b"POST /v1/infer HTTP/1.1\r\n")
        with contextlib.suppress(OSError):
            for i in range(40):
                peer.sendall(b"x-%d: 1\r\n" % i)
                time.sleep(0.05)
        assert everything(peer)[:12] in (b"HTTP/1.1 408", b"")


@pytest.mark.parametrize("begun", [b"{", b""])
def test_a_body_that_does_not_come_is_a_408(server: Server, begun: bytes) -> None:
    with connect(server) as peer:
        peer.sendall(head("content-length: 100") + begun)
        answer = peer.recv(65536)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"status_code":408' in answer + everything(peer)


def test_a_body_that_does_not_come_to_a_path_that_is_not_there_is_a_408(server: Server) -> None:
    with connect(server) as peer:
        peer.sendall(b"POST /nowhere HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        assert everything(peer).startswith(b"HTTP/1.1 408 ")


def test_a_path_that_is_not_there_costs_its_request_only(server: Server) -> None:
    with connect(server) as peer:
        peer.sendall(b"POST /nowhere HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n{")
        peer.sendall(b"  }GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        answers = everything(peer)
    assert answers.startswith(b"HTTP/1.1 404 ")
    assert b"HTTP/1.1 200 OK" in answers


def test_a_stream_without_its_body_is_a_408(server: Server) -> None:
    link = h2.connection.H2Connection()
    link.initiate_connection()
    link.send_headers(
        1, [(":method", "GET"), (":path", "/healthz"), (":scheme", "http"), (":authority", "x")]
    )
    with connect(server) as peer:
        peer.sendall(link.data_to_send())
        status = ""
        while not status and (data := peer.recv(65536)):
            for event in link.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    status = dict(event.headers)[b":status"].decode()
    assert status == "408"


def test_a_body_announced_too_long_is_a_413_before_it_is_sent(server: Server) -> None:
    with connect(server) as peer:
        peer.sendall(head("content-length: 99999999999"))
        assert peer.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_chunks_without_end_are_a_413(server: Server) -> None:
    with connect(server) as peer:
        peer.sendall(head("transfer-encoding: chunked"))
        flood(peer, b"4000\r\n" + b"x" * 0x4000 + b"\r\n", 200)
        everything(peer)  # ends: the connection was closed while we were sending


@pytest.mark.parametrize(
    "part",
    [b"1;" + b"e" * 4000 + b"\r\nx\r\n", b"0\r\n" + b"".join(b"t: %d\r\n" % i for i in range(500))],
)
def test_chunk_extensions_and_trailers_are_bounded(server: Server, part: bytes) -> None:
    with connect(server) as peer:
        peer.sendall(head("transfer-encoding: chunked"))
        flood(peer, part, 1000)
        everything(peer)


def test_headers_without_end_are_a_431(server: Server) -> None:
    with connect(server) as peer:
        peer.sendall(b"GET / HTTP/1.1\r\n")
        flood(peer, b"x-long: " + b"y" * 1000 + b"\r\n", 500)
        everything(peer)


@pytest.mark.parametrize("text", [b"\x00\xff\x16\x03", b"GET\r\n\r\n", b"BREW / HTTP/9.9\r\n\r\n"])
def test_what_is_not_http_is_a_400(server: Server, text: bytes) -> None:
    with connect(server) as peer:
        peer.sendall(text)
        assert everything(peer)[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 408")


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_bring_it_down(server: Server, data: bytes, after_head: bool) -> None:
    with connect(server) as peer:
        start = head(f"content-length: {len(data)}", "connection: close") if after_head else b""
        peer.sendall(start + data)
        peer.shutdown(socket.SHUT_WR)
        everything(peer)


def test_connections_beyond_the_limit_are_told_503(server: Server) -> None:
    peers = [connect(server) for _ in range(LIMITS.max_connections + 5)]
    try:
        assert b" 503 " in everything(peers[-1])
    finally:
        for peer in peers:
            peer.close()


class Held:
    """An engine's run that waits until it is let go."""

    def __init__(self, run: Any) -> None:
        self.run, self.rows = run, 0
        self.open = False

    def __call__(self, feeds: Mapping[str, Any]) -> Any:
        deadline = time.monotonic() + 30
        while not self.open and time.monotonic() < deadline:
            time.sleep(0.005)
        self.rows += len(feeds["x"])
        return self.run(feeds)


@pytest.mark.parametrize("two", [False, True])
def test_who_hangs_up_is_not_computed_for(bundle: Path, two: bool) -> None:
    options = ServeOptions(
        [str(bundle)], {"http": "127.0.0.1:0"}, batch=BatchLimits(inline_below_s=0.0)
    )
    with running(options) as server:
        ((_, _, batcher),) = server.pool.batchers()
        held = batcher.run = Held(batcher.run)

        async def scene() -> None:
            url = f"{server.urls['http']}/v1/infer"
            async with httpx.AsyncClient(timeout=60) as stays:
                first = asyncio.create_task(stays.post(url, content=GOOD))
                await until(lambda: batcher.busy)
                async with httpx.AsyncClient(timeout=60, http1=not two, http2=two) as leaves:
                    gone = [asyncio.create_task(leaves.post(url, content=GOOD)) for _ in range(8)]
                    await until(lambda: batcher.queued_rows == 8)
                    for task in gone:
                        task.cancel()
                    await asyncio.gather(*gone, return_exceptions=True)
                await until(lambda: server.gateway.inflight == 1)
                held.open = True
                assert (await first).status_code == 200

        asyncio.run(scene())
        assert held.rows == 1


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


def test_rapid_resets_of_streams_leave_nothing_behind(server: Server) -> None:
    with connect(server) as peer:
        link = h2.connection.H2Connection()
        link.initiate_connection()
        headers = [
            (":method", "POST"),
            (":path", "/v1/infer"),
            (":scheme", "http"),
            (":authority", "x"),
        ]
        with contextlib.suppress(OSError):
            for stream in range(1, 2001, 2):
                link.send_headers(stream, headers)
                link.reset_stream(stream)
                peer.sendall(link.data_to_send())
    asyncio.run(until(lambda: server.gateway.inflight == 0))


def test_garbage_after_the_http2_preface_ends_that_connection_only(server: Server) -> None:
    with connect(server) as peer:
        peer.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 4000)
        everything(peer)


def test_tls_offers_both_versions_and_a_certificate_names_its_client(
    bundle: Path, tmp_path: Path
) -> None:
    certificate, key = self_signed(tmp_path)
    options = ServeOptions(
        [str(bundle)],
        {"http": "127.0.0.1:0"},
        TransportOptions(tls=Tls(certificate, key, client_ca=certificate)),
    )
    with running(options) as server:
        assert server.urls["http"].startswith("https://")
        trust = ssl.create_default_context(cafile=str(certificate))
        trust.load_cert_chain(certificate, key)
        trust.check_hostname = False
        for two in (False, True):
            with httpx.Client(http1=not two, http2=two, verify=trust, timeout=60) as client:
                answer = client.post(f"{server.urls['http']}/v1/infer", content=GOOD)
                assert answer.status_code == 200
                assert answer.http_version == ("HTTP/2" if two else "HTTP/1.1")
        nameless = ssl.create_default_context(cafile=str(certificate))
        nameless.check_hostname = False
        with httpx.Client(verify=nameless) as client, pytest.raises(httpx.TransportError):
            client.post(f"{server.urls['http']}/v1/infer", content=GOOD)


def test_subjects_are_written_as_rfc_4514_says() -> None:
    subject = ((("organizationName", "A, B"),), (("commonName", "edge-7"),))

    assert subject_of({"subject": subject}) == "CN=edge-7,O=A\\, B"
    assert subject_of({}) == ""


def test_numbers_agree_however_large_the_body_is() -> None:
    from autoglm.serve.http.numbers import LARGE, array_of, parse

    for rows in (3, 2000):
        data = np.random.default_rng(rows).standard_normal((rows, 7)).round(6)
        body = json.dumps({"data": data.tolist()}).encode()

        assert (len(body) >= LARGE) is (rows == 2000)
        np.testing.assert_array_equal(
            array_of("x", parse(body)["data"], "float32"), data.astype(np.float32)
        )
