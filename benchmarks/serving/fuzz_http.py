"""A million spoilt HTTP requests: each gets a clear status or an end of its connection, and the
server goes on.

    python -m benchmarks.serving.fuzz_http [--app 900000] [--h1 80000] [--h2 20000] [--seed 1]

`app` plays requests to the application in this process, as the HTTP parsers would hand them over;
`h1` and `h2` send bytes to a server in a process of its own, over HTTP/1.1 and HTTP/2. Prints how
often each status came. Ends with 1 where a status is a mistake of ours (500), an exception left the
application, or the server does not answer a sound request at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import hpack
import httpx
import numpy as np

from autoglm.serve.http.app import App
from autoglm.serve.options import TransportOptions
from autoglm.serve.server import ServeOptions, Server
from tests.serve.tiny import WIDTH, dense_bundle

ROW = [1.0] * WIDTH
GOOD = json.dumps({"model_name": "dense", "data": [ROW]}).encode()
MINE = {"500", "exception", "no answer"}  # what nobody may be told
_LENGTH = "inference-header-content-length"
_AT_ONCE = 32
_PATIENCE_S = 30.0  # for all messages of a connection
_STREAMS = 3  # of one HTTP/2 connection
# A client that does not go on is told so soon; 408 is then its right answer.
_SHORT = TransportOptions(
    max_bytes=1 << 16, head_timeout_s=0.3, body_timeout_s=0.3, idle_timeout_s=1.0
)


# --- sound requests, and how they are spoilt -----------------------------------------------------


def _v2(binary: bool) -> bytes:
    row: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": [1, WIDTH]}
    row |= {"parameters": {"binary_data_size": 4 * WIDTH}} if binary else {"data": ROW}
    body: dict[str, Any] = {"inputs": [row], "outputs": [{"name": "y"}], "id": "a"}
    return json.dumps(body | {"parameters": {"timeout": 5_000_000, "priority": 1}}).encode()


_BINARY = _v2(binary=True)
SEEDS: tuple[tuple[str, str, dict[str, str], bytes], ...] = (
    ("POST", "/v1/infer", {"content-type": "application/json"}, GOOD),
    (
        "POST",
        "/v1/infer",
        {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "authorization": "Bearer agk_1_2"},
        json.dumps(
            {
                "model_name": "dense",
                "version": "1",
                "data": {"x": [ROW, ROW]},
                "outputs": ["y"],
                "timeout_ms": 5000,
                "priority": 2,
                "id": "a",
            }
        ).encode(),
    ),
    ("POST", "/v2/models/dense/infer", {}, _v2(binary=False)),
    (
        "POST",
        "/v2/models/dense/versions/1/infer",
        {_LENGTH: str(len(_BINARY))},
        _BINARY + np.float32(ROW).tobytes(),
    ),
    ("GET", "/v2/models/dense/config", {}, b""),
    ("GET", "/v1/route?client=a&model=dense", {}, b""),
    ("POST", "/v2/repository/index", {}, b'{"ready": true}'),
    ("PUT", "/v1/routes", {}, b'{"rules": []}'),
)
_TOKENS = (
    *(b'{ } [ ] " , : null true -1 0 1e999 NaN 1.5 99999999999999999999 "x" "data" [[]]'.split()),
    *(b"\\u0000 \\ud800 \xff \xc0\x80 FP32 BYTES INT64 %2e%2e/ %00 %ff / ? chunked".split()),
    b"\r\n", b"\0", b"[" * 300, b'{"a":' * 200, b"9" * 400,
)  # fmt: skip


def spoilt(text: bytes, chance: random.Random) -> bytes:
    """`text` with one to four places changed, cut, doubled, or with something odd in them."""
    data = bytearray(text)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(6):
            case 0 if data:
                data[at % len(data)] ^= 1 << chance.randrange(8)
            case 1:
                del data[at : at + chance.randrange(8)]
            case 2:
                data[at:at] = chance.randbytes(chance.randrange(6))
            case 3:
                data[at:at] = data[at : at + chance.randrange(30)]
            case 4:
                data[at : at + chance.randrange(12)] = chance.choice(_TOKENS)
            case _:
                data[at:at] = chance.choice(_TOKENS)
    return bytes(data)


def requests(count: int, seed: int) -> Iterator[tuple[str, bytes, dict[bytes, bytes], bytes]]:
    """Method, target, headers and body, with one or several of them spoilt."""
    chance = random.Random(seed)
    for _ in range(count):
        method, path, headers, body = chance.choice(SEEDS)
        target = path.encode()
        said = {k.encode(): v.encode() for k, v in headers.items()}
        if body and chance.random() < 0.8:
            body = spoilt(body, chance)
        if chance.random() < 0.15:
            target = b"/" + spoilt(target, chance).lstrip(b"/")
        if chance.random() < 0.2:
            said[chance.choice(_NAMES)] = spoilt(chance.choice(_VALUES), chance)
        if chance.random() < 0.05:
            method = chance.choice(("HEAD", "DELETE", "OPTIONS", "PATCH", "GET", "POST"))
        yield method, target, said, body


_NAMES = (
    b"content-type", b"content-encoding", b"traceparent", b"authorization", b"host", b"origin",
    b"accept", _LENGTH.encode(), b"x-client", b"expect", b"cookie",
)  # fmt: skip
_VALUES = (b"application/json", b"gzip", b"00-a-b-01", b"Bearer x", b"localhost", b"5", b"")


# --- the application in this process -------------------------------------------------------------


async def fuzz_app(count: int, seed: int, bundle: Path) -> Counter[str]:
    """Statuses of `count` requests that the application is handed."""
    found: Counter[str] = Counter()
    async with Server(ServeOptions([f"dense={bundle}"])) as server:
        app = App(server.gateway, max_bytes=_SHORT.max_bytes)
        source = enumerate(requests(count, seed))

        async def work() -> None:
            for number, request in source:
                found[await _handed(app, number, *request)] += 1

        await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
        assert await _handed(app, 0, "POST", b"/v1/infer", {}, GOOD) == "200"
    return found


async def _handed(
    app: App, number: int, method: str, target: bytes, headers: dict[bytes, bytes], body: bytes
) -> str:
    """The status of one request; every tenth comes over HTTP/2, every hundredth goes away."""
    clean = bytes.maketrans(b"\r\n\0", b"   ")  # no parser lets these into a head
    path, _, query = target.translate(clean).decode("latin-1").partition("?")
    sent: list[dict[str, Any]] = []
    half = len(body) // 2
    parts = [
        {"type": "http.request", "body": body[:half], "more_body": True},
        {"type": "http.request", "body": body[half:], "more_body": False},
    ]
    if number % 100 == 99:
        parts[1] = {"type": "http.disconnect"}

    async def receive() -> dict[str, Any]:
        if parts:
            return parts.pop(0)
        await asyncio.Event().wait()  # it stays until it is answered
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "http_version": "2" if number % 10 == 0 else "1.1",
        "method": method,
        "path": unquote(path),
        "query_string": query.encode("latin-1"),
        "headers": [(k, v.translate(clean)) for k, v in headers.items()],
        "client": ("192.0.2.1", 5),
    }
    try:
        await app(scope, receive, send)
    except Exception as error:
        print(f"{type(error).__name__}: {error}: {method} {target!r} {body!r}", file=sys.stderr)
        return "exception"
    if not sent:
        return "gone" if number % 100 == 99 else "no answer"
    status = str(sent[0]["status"])
    if status in MINE:
        print(f"{status}: {method} {target!r} {headers!r} {body!r}", file=sys.stderr)
    return status


# --- a server in a process of its own ------------------------------------------------------------


@contextlib.contextmanager
def child(bundle: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A server that is patient for a third of a second only, and its HOST:PORT."""
    argv = [sys.executable, "-m", "benchmarks.serving.fuzz_http", "serve", str(bundle)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    try:
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        yield process, url.partition("://")[2]
        answer = httpx.post(f"{url}/v1/infer", content=GOOD, timeout=60)
        if process.poll() is not None or answer.status_code != 200:
            raise SystemExit("the server does not answer any more")
    finally:
        process.terminate()
        process.wait(60)


async def serve(bundle: Path) -> None:
    """That server."""
    options = ServeOptions([f"dense={bundle}"], {"http": "127.0.0.1:0"}, _SHORT)
    async with Server(options) as server:
        print(server.urls["http"], flush=True)
        await asyncio.Event().wait()


Play = Callable[
    [asyncio.StreamReader, asyncio.StreamWriter, list[Any], Counter[str]], Awaitable[int]
]


async def fuzz_wire(address: str, messages: Iterator[Any], play: Play, size: int) -> Counter[str]:
    """Statuses of messages that are sent `size` to a connection, many connections at a time."""
    host, _, port = address.rpartition(":")
    found: Counter[str] = Counter()

    async def work() -> None:
        batch: list[Any] = []
        while batch := batch or [m for _, m in zip(range(size), messages, strict=False)]:
            try:
                reader, writer = await asyncio.open_connection(host, int(port))
            except OSError:
                found["no answer"] += len(batch)
                continue
            told: Counter[str] = Counter()
            sent = len(batch)
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    sent = await play(reader, writer, batch, told)
            except TimeoutError:
                told["no answer"] += 1
                print(f"no answer: {batch!r}", file=sys.stderr)
            except OSError:
                pass  # it closed the connection
            told["closed"] += max(0, sent - told.total())
            batch = batch[sent:]
            found.update(told)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
    return +found


# --- HTTP/1.1 ------------------------------------------------------------------------------------


def heads(count: int, seed: int) -> Iterator[bytes]:
    """Whole HTTP/1.1 messages; in a third of them their very bytes are spoilt."""
    chance = random.Random(seed)
    for method, target, headers, body in requests(count, seed + 1):
        lines = [b" ".join((method.encode(), target, b"HTTP/1.1")), b"host: x"]
        lines += [b"%b: %b" % pair for pair in headers.items()]
        if chance.random() < 0.2:
            lines.append(b"transfer-encoding: chunked")
            half = len(body) // 2
            body = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (body[:half], body[half:]) if p)
            body += b"0\r\n\r\n"
        else:
            lines.append(b"content-length: %d" % len(body))
        message = b"\r\n".join(lines) + b"\r\n\r\n" + body
        yield spoilt(message, chance) if chance.random() < 0.35 else message


async def play_h1(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    batch: list[bytes],
    told: Counter[str],
) -> int:
    """Send each and read its answer, until the server ends the connection; how many were sent."""
    for number, message in enumerate(batch, 1):
        writer.write(message)
        status, goes_on = await _status(reader, bare=message.startswith(b"HEAD "))
        if status:
            told[status] += 1
        if not goes_on:
            return number
    return len(batch)


async def _status(reader: asyncio.StreamReader, *, bare: bool) -> tuple[str, bool]:
    """Read one answer, whose body is not sent where `bare`; "" where none came, and whether the
    connection goes on.
    """
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        _, _, rest = head.partition(b"content-length: ")
        length = int(rest.split(b"\r\n")[0]) if rest else 0
        if length and not bare:
            with contextlib.suppress(asyncio.IncompleteReadError):
                await asyncio.wait_for(reader.readexactly(length), 0.5)
    except (asyncio.IncompleteReadError, TimeoutError, ValueError):
        return "", False
    return head[9:12].decode(), b"connection: close" not in head


# --- HTTP/2 --------------------------------------------------------------------------------------

_DATA, _HEADERS, _RESET, _SETTINGS, _GOAWAY = 0, 1, 3, 4, 7
_END_STREAM, _END_HEADERS = 1, 4


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One frame."""
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload


async def play_h2(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    batch: list[Any],
    told: Counter[str],
) -> int:
    """All of them as streams of one connection; the frames of some are spoilt: what is in them, or
    their very bytes, after which nothing is where it should be.
    """
    chance = random.Random(repr(batch[0]))
    data = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(_SETTINGS, 0, 0, b"")
    for number, request in enumerate(batch):
        message = _stream(2 * number + 1, *request)
        match chance.randrange(40):
            case 0:
                message = spoilt(message, chance)
            case 1 | 2 | 3:
                message = _spoilt_inside(message, chance)
        data += message
    writer.write(data)
    decoder = hpack.Decoder()
    while told.total() < len(batch):
        try:
            kind, payload = await _frame(reader)
        except asyncio.IncompleteReadError:
            break
        if kind == _HEADERS:
            told[str(dict(decoder.decode(payload))[":status"])] += 1
        elif kind == _RESET:
            told["reset"] += 1
        elif kind == _GOAWAY:
            break
    return len(batch)


def _spoilt_inside(message: bytes, chance: random.Random) -> bytes:
    """Frames of the right lengths with a spoilt kind, flags, number or payload."""
    found = b""
    while message:
        size = 9 + int.from_bytes(message[:3], "big")
        part, message = message[3:size], message[size:]
        if chance.random() < 0.5:
            part = spoilt(part, chance)[: 1 << 14].ljust(6, b"\0")
        found += (len(part) - 6).to_bytes(3, "big") + part
    return found


def _stream(
    number: int, method: str, target: bytes, headers: dict[bytes, bytes], body: bytes
) -> bytes:
    pairs = [
        (b":method", method.encode()),
        (b":scheme", b"http"),
        (b":path", target),
        (b":authority", b"x"),
        *headers.items(),
    ]
    # Never indexed: what one stream says about another's headers is no part of a message.
    block = hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*pair) for pair in pairs])
    head = frame(_HEADERS, _END_HEADERS | (0 if body else _END_STREAM), number, block)
    return head + (frame(_DATA, _END_STREAM, number, body[: 1 << 14]) if body else b"")


async def _frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readexactly(9)
    return head[3], await reader.readexactly(int.from_bytes(head[:3], "big"))


def main() -> None:
    """The command line above; `serve` is the process that it starts."""
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(Path(sys.argv[2])))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--app", type=int, default=900_000)
    parser.add_argument("--h1", type=int, default=80_000)
    parser.add_argument("--h2", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    found: dict[str, Counter[str]] = {}
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        bundle = dense_bundle(Path(folder))
        found["app"] = asyncio.run(fuzz_app(chosen.app, chosen.seed, bundle))
        with child(bundle) as (_, address):
            h1 = fuzz_wire(address, heads(chosen.h1, chosen.seed), play_h1, 16)
            found["h1"] = asyncio.run(h1)
            h2 = fuzz_wire(address, requests(chosen.h2, chosen.seed + 2), play_h2, _STREAMS)
            found["h2"] = asyncio.run(h2)
    rows = {part: dict(sorted(counts.items())) for part, counts in found.items()}
    total = sum(counts.total() for counts in found.values())
    seconds = round(time.monotonic() - begun)
    print(json.dumps({"messages": total, "seconds": seconds, **rows}, indent=1))
    if any(set(counts) & MINE for counts in found.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
