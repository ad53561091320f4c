"""What floods, leavers and a full store may cost: their own requests, and little memory."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hpack
import httpx
import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serve.mosquitto import BINARY, MISSING, Mosquitto
from serve.small_gateway import SmallGateway
from serve.test_redis import SERVER, Redis
from serve.tiny import WEIGHTS, dense_bundle, running

from autoglm.serve.cache import CacheOptions
from autoglm.serve.http.http2 import MAX_FRAME, Frames
from autoglm.serve.mqtt import Mqtt
from autoglm.serve.server import ServeOptions
from benchmarks.serving import fuzz_http

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = fuzz_http.frame(4, 0, 0, b"")
ROW = [1.0, 2.0, 3.0, 4.0]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dense_bundle(tmp_path_factory.mktemp("robust"))


@pytest.fixture(scope="module")
def child(bundle: Path) -> Iterator[tuple[psutil.Process, str]]:
    """A server in a process of its own, which must answer at the end as well."""
    with fuzz_http.child(bundle) as (process, address):
        yield psutil.Process(process.pid), address


def connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def everything(peer: socket.socket) -> bytes:
    """What comes until the server closes; it must."""
    found = b""
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        while part := peer.recv(65536):
            found += part
    return found


# --- HTTP/2 --------------------------------------------------------------------------------------


def test_a_frame_too_long_ends_the_connection_at_its_head(child: tuple[Any, str]) -> None:
    with connect(child[1]) as peer:
        peer.sendall(PREFACE + SETTINGS + (MAX_FRAME + 1).to_bytes(3, "big"))
        assert everything(peer).endswith(bytes.fromhex("000008 07 00 00000000 00000000 00000006"))


@given(
    st.lists(st.binary(max_size=40) | st.just(b"x" * MAX_FRAME), max_size=5),
    st.integers(MAX_FRAME + 1, (1 << 24) - 1),
    st.lists(st.integers(1, 30), min_size=1),
)
def test_only_a_frame_too_long_does_not_fit_however_it_is_cut(
    payloads: list[bytes], size: int, cuts: list[int]
) -> None:
    good = PREFACE + b"".join(fuzz_http.frame(0, 0, 1, p) for p in payloads)
    frames, at = Frames(), 0
    while at < len(good):
        step = cuts[at % len(cuts)]
        assert frames.fit(good[at : at + step])
        at += step

    assert not frames.fit(size.to_bytes(3, "big"))


def test_data_after_the_answer_costs_no_other_stream(child: tuple[Any, str]) -> None:
    head = {b"content-length": b"999999"}
    begun = fuzz_http._stream(1, "POST", b"/v1/infer", head, b"")
    begun = begun[:4] + bytes([begun[4] & ~1]) + begun[5:]  # its body is to come

    decoder = hpack.Decoder()

    async def story() -> tuple[str, str]:
        host, _, port = child[1].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(PREFACE + SETTINGS + begun)
        first = await status(reader)
        writer.write(fuzz_http.frame(0, 0, 1, b"x" * 1000) * 3)
        writer.write(fuzz_http._stream(3, "POST", b"/v1/infer", {}, fuzz_http.GOOD))
        second = await status(reader)
        writer.close()
        return first, second

    async def status(reader: asyncio.StreamReader) -> str:
        while True:
            kind, payload = await asyncio.wait_for(fuzz_http._frame(reader), 30)
            if kind == 1:
                return str(dict(decoder.decode(payload))[":status"])

    assert asyncio.run(story()) == ("413", "200")


def test_a_request_that_is_no_ascii_ends_its_connection_without_a_traceback(
    bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = fuzz_http._stream(1, "POST", b"/v1/infer", {}, fuzz_http.GOOD)
    bad = fuzz_http._stream(3, "GET", b"/v1/\xaa", {}, b"")
    with running(ServeOptions([str(bundle)], {"http": "127.0.0.1:0"})) as server:
        address = server.urls["http"].partition("://")[2]
        for _ in range(5):
            with connect(address) as peer:
                peer.sendall(PREFACE + SETTINGS + good + bad)
                everything(peer)

        assert server.gateway.inflight == 0
    gc.collect()  # a task that nobody asks for its exception says so when it goes
    assert not [r for r in caplog.records if r.levelname == "ERROR"]


# --- memory through floods, and clients that leave -----------------------------------------------


def flood(address: str, begin: bytes, part: bytes, times: int) -> None:
    with contextlib.suppress(OSError), connect(address) as peer:
        peer.sendall(begin)
        for _ in range(times):
            peer.sendall(part)
        peer.recv(1)


FLOODS: dict[str, tuple[bytes, bytes]] = {
    "frames without end": (PREFACE + SETTINGS + b"\xff\xff\xff\0\0\0\0\0\1", b"x" * 65536),
    "headers without end": (b"GET / HTTP/1.1\r\n", b"x: " + b"y" * 65000 + b"\r\n"),
    "chunks without end": (
        b"POST /v1/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n",
        b"10000\r\n" + b"x" * 65536 + b"\r\n",
    ),
    "a body without end": (
        b"POST /v1/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 65000\r\n\r\n",
        b"[" * 65536,
    ),
    "continuations without end": (
        PREFACE + SETTINGS + fuzz_http.frame(1, 0, 1, b""),
        fuzz_http.frame(9, 0, 1, b"\0" * 16000),
    ),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_costs_little_memory(child: tuple[psutil.Process, str], kind: str) -> None:
    process, address = child
    before = process.memory_info().rss

    threads = [threading.Thread(target=flood, args=(address, *FLOODS[kind], 60)) for _ in range(24)]
    for thread in threads:
        thread.start()
    most = before
    while any(thread.is_alive() for thread in threads):
        most = max(most, process.memory_info().rss)
        threads[0].join(0.01)

    # 24 connections of 4 MB each; a connection holds what one body may have, and two reads.
    assert most - before < 24 << 20
    assert httpx.post(f"http://{address}/v1/infer", content=fuzz_http.GOOD).status_code == 200


def test_who_leaves_in_the_middle_of_a_body_leaves_nothing_behind(bundle: Path) -> None:
    head = b"POST /v1/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{"
    two = PREFACE + SETTINGS + fuzz_http._stream(1, "POST", b"/v1/infer", {}, b"{")[:-1]
    with running(ServeOptions([str(bundle)], {"http": "127.0.0.1:0"})) as server:
        address = server.urls["http"].partition("://")[2]
        port = int(address.rpartition(":")[2])
        for begun in (head, two) * 100:
            with connect(address) as peer:
                peer.sendall(begun)

        limit = time.monotonic() + 30
        while any(c.laddr.port == port for c in psutil.Process().net_connections() if c.raddr):
            assert time.monotonic() < limit, "connections stay open"
            time.sleep(0.02)
        answer = httpx.post(f"{server.urls['http']}/v1/infer", content=fuzz_http.GOOD)
        assert answer.status_code == 200


# --- a store that is full ------------------------------------------------------------------------


@pytest.mark.skipif(SERVER is None, reason="redis-server is not installed")
def test_a_full_redis_costs_hits_and_no_answer(bundle: Path, tmp_path: Path) -> None:
    redis = Redis(tmp_path)
    try:
        with connect(f"127.0.0.1:{redis.port}") as peer:
            peer.sendall(b"CONFIG SET maxmemory 1\r\n")
            assert peer.recv(100).startswith(b"+OK")
            peer.sendall(b"SET a b\r\n")
            assert peer.recv(100).startswith(b"-OOM")
        options = ServeOptions(
            [str(bundle)],
            {"http": "127.0.0.1:0"},
            cache=CacheOptions(max_bytes=1 << 20, redis=redis.url),
        )
        with running(options) as server, httpx.Client(base_url=server.urls["http"]) as client:
            for i in range(20):
                row = [float(i), *ROW[1:]]
                answer = client.post("/v1/infer", json={"model_name": "dense", "data": [row]})
                expected = np.array([row], np.float32) @ WEIGHTS
                np.testing.assert_allclose(answer.json()["result"], expected, rtol=1e-5)
            client.post("/v1/infer", json={"model_name": "dense", "data": [row]})
            assert server.gateway.cache is not None
            assert server.gateway.cache.stats.hits == 1  # its own memory goes on
    finally:
        redis.stop()


# --- MQTT ----------------------------------------------------------------------------------------


@pytest.mark.skipif(BINARY is None, reason=MISSING)
@pytest.mark.parametrize("width", [2, 200_000])
def test_an_answer_and_its_receipt_leave_in_one_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    from paho.mqtt.client import Client
    from serve.wires import Broker

    sent: list[bytes] = []
    send: Callable[..., int] = Client._sock_send

    def recorded(client: Any, data: bytes) -> int:
        if client._client_id == b"worker":
            sent.append(bytes(data[:1]) + bytes(data[-4:]))
        return send(client, data)

    monkeypatch.setattr(Client, "_sock_send", recorded)
    body = b'{"data": [[' + b",".join(b"%d" % i for i in range(width)) + b"]]}"

    async def story(broker: Mosquitto) -> list[Any]:
        transport = Mqtt()
        await transport.start(SmallGateway(), f"{broker.url}?client_id=worker", {})  # type: ignore[arg-type]
        asker = await asyncio.to_thread(Broker, broker.port)
        answers = [
            await asyncio.to_thread(
                asker.ask, "autoglm/v1/twice/infer", body, "application/json", {}
            )
            for _ in range(4)
        ]
        await asyncio.to_thread(asker.close)
        await transport.stop()
        return answers

    with Mosquitto(tmp_path) as broker:
        answers = asyncio.run(asyncio.wait_for(story(broker), 120))

    result = np.array(httpx.Response(200, content=answers[-1].payload).json()["result"])
    np.testing.assert_array_equal(result, [[2.0 * i for i in range(width)]])
    receipts = [data for data in sent if data[-4:-2] == b"\x40\x02"]
    assert len(receipts) >= 4
    # A large answer leaves in parts; the last of them has the receipt.
    assert width > 2 or all(data[0] & 0xF0 == 0x30 for data in receipts)
    assert not any(data[0] == 0x40 for data in sent)
