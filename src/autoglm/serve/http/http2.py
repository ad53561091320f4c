"""HTTP/2 by hypercorn, on connections that the HTTP/1.1 listener hands on.

hypercorn stands on hyper-h2, which refuses malformed frames and header floods; streams at once,
sizes and idle time are bounded here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache
from typing import Any

MAX_STREAMS = 128


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
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        reader.feed_data(data)
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


@cache
def _server() -> Any:
    from hypercorn.asyncio.tcp_server import TCPServer
    from hypercorn.events import Event, Updated
    from hypercorn.protocol.h2 import H2Protocol

    class Server(TCPServer):  # type: ignore[misc]
        """hypercorn takes the preface for a request and stops the idle clock, for good."""

        async def protocol_send(self, event: Event) -> None:
            if isinstance(event, Updated) and not isinstance(self.protocol.protocol, H2Protocol):
                return
            await super().protocol_send(event)

    return Server


async def _quietly(run: Callable[[], Any]) -> None:
    try:
        await run()
    except* (OSError, asyncio.CancelledError):
        pass
