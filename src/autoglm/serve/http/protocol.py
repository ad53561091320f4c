"""uvicorn's HTTP/1.1 protocol with what it leaves open: limits on heads, on slow senders, and on
the work of clients that have left; an HTTP/2 connection is handed on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_HEAD = 64 << 10
_TOO_LONG = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\n"
    b"connection: close\r\n\r\n"
)
_TOO_LARGE = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 1\r\n"
    b"connection: close\r\n\r\n"
)


class Http1(HttpToolsProtocol):  # type: ignore[misc]
    """One connection. `head_since`: when it began to owe us a request's head; 0 = it owes none."""

    def __init__(
        self,
        *arguments: Any,
        max_bytes: int,
        switch: Callable[[asyncio.Transport, bytes], None],
        full: Callable[[], bool],
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self.head_since = 0.0
        self.draining = False
        self._max_bytes = max_bytes
        self._switch = switch
        self._full = full
        self._received = 0
        self._first: bytes | None = b""
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin; a peer that agreed on h2 within TLS is handed on at once."""
        super().connection_made(transport)
        self.head_since = self.loop.time()
        if self._full():
            self._end(_FULL)
            return
        certificate = transport.get_extra_info("peercert")
        if certificate:
            self.app_state = {"certificate": subject_of(certificate)}
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() == "h2":
            self._hand_on(b"")

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody waits for the answer any more."""
        task, cycle = self._task, self.cycle
        super().connection_lost(exc)
        if task is not None and cycle is not None and not cycle.response_complete:
            task.cancel()

    def data_received(self, data: bytes) -> None:
        """Bytes of a head or of a body, within bounds."""
        if self._first is not None:
            data = self._first + data
            if data[:24] == PREFACE[: len(data)]:
                self._first = data
                if len(data) >= len(PREFACE):
                    self._hand_on(data)
                return
            self._first = None
        self._received += len(data)
        super().data_received(data)
        if self.head_since:
            if self._received > MAX_HEAD:
                self._end(_TOO_LONG)
        elif self._received > self._max_bytes:
            # The application refuses a long body by itself; this bounds chunk headers and trailers.
            self._end(_TOO_LARGE)

    def too_slow(self) -> None:
        """The head did not come in time."""
        self._end(_TOO_SLOW)

    def on_message_begin(self) -> None:
        """A request's head begins."""
        super().on_message_begin()
        self.head_since = self.loop.time()
        self._received = 0

    def on_headers_complete(self) -> None:
        """The head is whole; the application starts."""
        self.head_since = 0.0
        super().on_headers_complete()
        if self.draining:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """The body is whole; the application finds it so in its scope."""
        self.scope["whole"] = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The connection may be used again."""
        self._task = None
        super().on_response_complete()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        task = self.loop.create_task(cycle.run_asgi(app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)
        self._task = task

    def _end(self, answer: bytes) -> None:
        if not self.transport.is_closing():
            started = self.cycle is not None and self.cycle.response_started
            if not started or self.head_since:
                self.transport.write(answer)
            self.transport.close()

    def _hand_on(self, data: bytes) -> None:
        self.head_since = 0.0
        self.connections.discard(self)
        self._switch(self.transport, data)


def subject_of(certificate: Any) -> str:
    """The subject as RFC 4514 orders it: the most specific name first."""
    names = {
        "commonName": "CN",
        "organizationName": "O",
        "organizationalUnitName": "OU",
        "countryName": "C",
        "localityName": "L",
        "stateOrProvinceName": "ST",
    }
    pairs = [pair for group in certificate.get("subject", ()) for pair in group]
    return ",".join(f"{names.get(key, key)}={_escaped(value)}" for key, value in reversed(pairs))


def _escaped(value: str) -> str:
    return "".join(f"\\{c}" if c in ',+"\\<>;=' else c for c in value)
