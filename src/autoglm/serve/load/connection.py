"""Keep-alive HTTP/1.1 connections that ask again as soon as they are answered."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httptools

from autoglm.serve.load.tally import CONNECTION, TIMEOUT, Load, Tally

_OK = b"HTTP/1.1 200"
_AGAIN_S = 0.05  # before a client that cannot connect tries again


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer; header names in lower case."""

    status: int
    headers: Mapping[bytes, bytes]
    body: bytes


# Code and message of what is wrong with an answer; None = it is right.
Verdict = Callable[[Answer], "tuple[str, str] | None"]


@dataclass(frozen=True, slots=True)
class Address:
    """Where to connect."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None


def request(method: str, path: str, host: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """One HTTP/1.1 request as it goes over the wire."""
    said = {"host": host, "content-length": str(len(body)), **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in said.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body


def press(
    address: Address,
    question: bytes,
    verdict: Verdict,
    *,
    concurrency: int,
    seconds: float,
    timeout_s: float = 30.0,
) -> Load:
    """Ask for so long on so many connections, each with one question under way."""
    import uvloop

    run = _Run(address, question, verdict, Tally(seconds), timeout_s)
    uvloop.run(run.press(concurrency))
    return run.tally.load(concurrency)


def ask(address: Address, question: bytes, timeout_s: float) -> Answer:
    """One question, one answer; OSError where there is none."""
    import uvloop

    answers: list[Answer] = []
    run = _Run(address, question, answers.append, Tally(0.0), timeout_s)
    uvloop.run(run.once())
    if not answers:
        said = next(iter(run.tally.faults.values()), None)
        raise OSError(said.message if said else "the connection was closed")
    return answers[0]


class _Run:
    """One question, asked again and again."""

    def __init__(
        self, address: Address, question: bytes, verdict: Verdict, tally: Tally, timeout_s: float
    ) -> None:
        self.address, self.question, self.verdict = address, question, verdict
        self.tally, self.timeout_s = tally, timeout_s
        # Of a right answer that came at once; the next that has both needs no parser.
        self.length, self.body = -1, b""
        self._open: set[_Connection] = set()

    async def once(self) -> None:
        connection = await self._connect()
        watch = asyncio.create_task(self._expire())
        connection.ask(time.perf_counter())
        await connection.closed
        watch.cancel()

    async def press(self, concurrency: int) -> None:
        made = [await self._try_connect() for _ in range(concurrency)]
        watch = asyncio.create_task(self._expire())
        self.tally.start()
        await asyncio.gather(*(self._client(connection) for connection in made))
        watch.cancel()

    async def _client(self, connection: _Connection | None) -> None:
        """Keep one question under way until the end, through lost connections."""
        while (now := time.perf_counter()) < self.tally.end:
            if connection is None:
                await asyncio.sleep(_AGAIN_S)
            else:
                connection.ask(now)
                await connection.closed
            if time.perf_counter() < self.tally.end:
                connection = await self._try_connect()

    async def _try_connect(self) -> _Connection | None:
        try:
            return await self._connect()
        except OSError as error:
            self.tally.fault(CONNECTION, str(error) or type(error).__name__)
            return None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        to = self.address
        _, connection = await asyncio.wait_for(
            loop.create_connection(
                lambda: _Connection(self, loop.create_future()), to.host, to.port, ssl=to.tls
            ),
            self.timeout_s,
        )
        self._open.add(connection)
        connection.closed.add_done_callback(lambda _: self._open.discard(connection))
        return connection

    async def _expire(self) -> None:
        """Give up what is not answered in time."""
        while True:
            await asyncio.sleep(min(0.25, self.timeout_s / 4))
            latest = time.perf_counter() - self.timeout_s
            for connection in tuple(self._open):
                connection.expire(latest)


class _Connection(asyncio.Protocol):
    """Asks, waits, asks: no task is woken for it."""

    __slots__ = (
        "_asked",
        "_begun",
        "_body",
        "_complete",
        "_headers",
        "_keep",
        "_parser",
        "_run",
        "_size",
        "_transport",
        "closed",
    )

    def __init__(self, run: _Run, closed: asyncio.Future[None]) -> None:
        self._run, self.closed = run, closed
        self._transport: Any = None
        self._asked = False
        self._begun = 0.0
        self._fresh()

    def ask(self, now: float) -> None:
        """Send the question."""
        run = self._run
        self._asked, self._begun = True, now
        run.tally.sent += len(run.question)
        self._transport.write(run.question)

    def expire(self, latest: float) -> None:
        """Give up where the question left before `latest`."""
        if self._asked and self._begun < latest:
            self._asked = False
            self._run.tally.fault(TIMEOUT, f"no answer in {self._run.timeout_s:g} s")
            self._transport.abort()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if self._asked:
            self._run.tally.fault(CONNECTION, str(error or "closed before the answer"))
            self._asked = False
        if not self.closed.done():
            self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        run = self._run
        run.tally.received += len(data)
        if (
            not self._size
            and len(data) == run.length
            and data.startswith(_OK)
            and data.endswith(run.body)
        ):
            self._answered(None, keep=True)
            return
        self._size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if self._asked:
                run.tally.fault(CONNECTION, f"no HTTP: {error}")
            self._asked = False
            self._transport.abort()
            return
        if self._complete:
            self._parsed(at_once=self._size == len(data))

    def _parsed(self, *, at_once: bool) -> None:
        run, keep = self._run, self._keep
        answer = Answer(self._parser.get_status_code(), self._headers, b"".join(self._body))
        wrong = run.verdict(answer)
        if wrong is None and at_once and keep and answer.body:
            run.length, run.body = self._size, answer.body
        self._fresh()
        self._answered(wrong, keep=keep)

    def _answered(self, wrong: tuple[str, str] | None, *, keep: bool) -> None:
        if not self._asked:  # an answer to nothing
            self._transport.abort()
            return
        tally = self._run.tally
        now = time.perf_counter()
        if wrong is None:
            tally.latencies.append(now - self._begun)
        else:
            tally.fault(*wrong)
        self._asked = False
        if keep and now < tally.end:
            self.ask(now)
        else:
            self._transport.close()

    def _fresh(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._size, self._complete, self._keep = 0, False, False

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        # Asked after it, the parser has forgotten what the headers said.
        self._complete, self._keep = True, self._parser.should_keep_alive()
