"""HTTP/2 by hypercorn, on connections that the HTTP/1.1 listener hands on.

hypercorn stands on hyper-h2, which refuses malformed frames and header floods; streams at once,
sizes and idle time are bounded here. hyper-h2 looks at a frame when it has all of it, up to 16 MiB:
one that announces more than we allow is refused here at its first bytes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import cache
from typing import Any

MAX_STREAMS = 128
MAX_FRAME = 1 << 14  # what HTTP/2 allows until we say more, and we do not
_PREFACE = 24
_log = logging.getLogger("autoglm.http")
_TOO_LONG = bytes.fromhex("000008 07 00 00000000 00000000 00000006")  # GOAWAY, FRAME_SIZE_ERROR


class Http2:
    """What all HTTP/2 connections of one listener share."""

    def __init__(self, app: Any, *, idle_s: float) -> None:
        from hypercorn.app_wrappers import ASGIWrapper
        from hypercorn.asyncio.worker_context import WorkerContext
        from hypercorn.config import Config

        self._config = Config()
        self._config.h2_max_concurrent_streams = MAX_STREAMS
        self._config.h2_max_header_list_size = 64 << 10
        self._config.keep_alive_timeout = idle_s
        self._config.keep_alive_max_requests = 1 << 40  # a lasting connection is no fault
        self._config.include_date_header = False
        self._config.include_server_header = False
        self._app = ASGIWrapper(app)
        self._context = WorkerContext(None)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._tasks)

    def take(self, transport: asyncio.Transport, data: bytes) -> None:
        """Serve a connection whose first bytes were read already."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=1 << 16, loop=loop)
        protocol = _Bounded(reader, transport)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        protocol.data_received(data)
        state: dict[str, Any] = {}
        if certificate := transport.get_extra_info("peercert"):
            from autoglm.serve.http.protocol import subject_of

            state["certificate"] = subject_of(certificate)
        server = _server()(self._app, loop, self._config, self._context, state, reader, writer)
        task = loop.create_task(_quietly(server.run))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Say GOAWAY, and let open streams end."""
        await self._context.terminated.set()

    async def stop(self) -> None:
        """Close what is left."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Frames:
    """Follows where each frame of a connection ends."""

    def __init__(self) -> None:
        self._skip = _PREFACE  # bytes until the next frame's head
        self._head = b""

    def fit(self, data: bytes) -> bool:
        """Whether no frame that begins in `data` is longer than MAX_FRAME."""
        at = 0
        while at < len(data):
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
                at += step
                continue
            part = data[at : at + 9 - len(self._head)]
            self._head += part
            at += len(part)
            length = int.from_bytes(self._head[:3])
            if len(self._head) >= 3 and length > MAX_FRAME:
                return False
            if len(self._head) == 9:
                self._skip, self._head = length, b""
        return True


class _Bounded(asyncio.StreamReaderProtocol):
    """Ends a connection at the head of a frame that is too long."""

    def __init__(self, reader: asyncio.StreamReader, transport: asyncio.Transport) -> None:
        super().__init__(reader, loop=asyncio.get_running_loop())
        self._frames, self._peer = Frames(), transport

    def data_received(self, data: bytes) -> None:
        if self._frames.fit(data):
            super().data_received(data)
        elif not self._peer.is_closing():
            self._peer.write(_TOO_LONG)
            self._peer.close()


@cache
def _server() -> Any:
    from hypercorn.asyncio.tcp_server import TCPServer
    from hypercorn.events import Closed, Event, Updated
    from hypercorn.protocol.h2 import H2Protocol

    class Server(TCPServer):  # type: ignore[misc]
        """hypercorn with four mistakes mended.

        It takes the preface for a request and stops the idle clock, for good. It ends a connection
        for data of a stream that it has answered. Where a request makes it raise, it waits for ever
        for what it has stopped itself. And a connection that the client has closed it keeps until
        the idle clock ends, or for ever where an answer was on its way.
        """

        _ended = False  # nothing more is read, so there is nothing to be idle for

        async def _read_data(self) -> None:
            try:
                await super()._read_data()
            except Exception as error:  # such as a path that is no ASCII
                _log.debug("an HTTP/2 connection was ended: %r", error)
                streams = self.protocol.protocol.streams
                for number in [n for n, s in streams.items() if not hasattr(s, "scope")]:
                    del streams[number]  # this one's request made it raise
                await self.protocol.handle(Closed())
            finally:
                self._ended = True
                for buffer in list(getattr(self.protocol.protocol, "stream_buffers", {}).values()):
                    await buffer.close()  # an answer that nobody sends is not waited for
                await self.idle_task.stop()

        async def protocol_send(self, event: Event) -> None:
            spoken = self.protocol.protocol
            is_h2 = isinstance(spoken, H2Protocol)
            if isinstance(event, Updated) and (self._ended or not is_h2):
                return
            if is_h2 and not isinstance(spoken.streams, _Streams):
                spoken.streams = _Streams(spoken.streams)
            await super().protocol_send(event)

    return Server


class _Streams(dict[int, Any]):
    """What comes for a stream that has been answered is passed over."""

    def __missing__(self, number: int) -> Any:
        return _Answered()


class _Answered:
    idle = True

    async def handle(self, event: object) -> None:
        """Nobody reads it."""


async def _quietly(run: Callable[[], Any]) -> None:
    try:
        await run()
    except* (OSError, asyncio.CancelledError):
        pass
