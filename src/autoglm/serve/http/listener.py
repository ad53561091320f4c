"""One listening socket: HTTP/1.1 on uvicorn's protocol, HTTP/2 on hypercorn's, and their end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Mapping
from functools import partial
from typing import Any

from autoglm.errors import ConfigError
from autoglm.serve.http.app import App
from autoglm.serve.http.http2 import Http2
from autoglm.serve.http.protocol import Http1
from autoglm.serve.options import TransportOptions, server_context

_SLACK = 1 << 20  # chunk headers and trailers beside the body itself
_LAST_REQUESTS_S = 0.25  # what a client had sent when we stopped listening is still read


class Listener:
    """Owns its connections."""

    def __init__(self, gateway: Any, options: Mapping[str, object]) -> None:
        given = options.get("options")
        self._options = given if isinstance(given, TransportOptions) else TransportOptions()
        o = self._options
        self._app = App(gateway, max_bytes=o.max_bytes, body_timeout_s=o.body_timeout_s)
        self._http2: Http2 | None = None
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._state: Any = None

    async def start(self, address: str) -> str:
        """Listen; the URL."""
        from uvicorn.config import Config
        from uvicorn.server import ServerState

        o = self._options
        config = Config(
            self._app,
            lifespan="off",
            interface="asgi3",
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=int(o.idle_timeout_s),
        )
        config.load()
        # A line for each malformed request would let anybody fill the log.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        self._state = ServerState()
        self._http2 = Http2(self._app, idle_s=o.idle_timeout_s)
        make = partial(
            Http1,
            config,
            self._state,
            {},
            max_bytes=o.max_bytes + _SLACK,
            switch=self._http2.take,
            full=self._full,
        )
        tls = server_context(o.tls, ["h2", "http/1.1"]) if o.tls else None
        listening = _bind(address)
        self._server = await asyncio.get_running_loop().create_server(
            make, sock=listening, ssl=tls, backlog=2048
        )
        self._sweeper = asyncio.create_task(self._sweep())
        host, port = listening.getsockname()[:2]
        return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"

    async def drain(self, timeout_s: float) -> None:
        """Close the socket, answer what was accepted, then close each connection."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._state.connections):
            connection.draining = True
            if connection.cycle is not None and not connection.cycle.response_complete:
                connection.cycle.keep_alive = False
        assert self._http2 is not None
        await self._http2.drain()
        await asyncio.sleep(_LAST_REQUESTS_S)
        for connection in list(self._state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._state.tasks or self._http2.connections:
                    await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Close everything at once."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._server is not None:
            self._server.close()
            for connection in list(self._state.connections):
                connection.transport.abort()
            assert self._http2 is not None
            await self._http2.stop()

    def _full(self) -> bool:
        assert self._http2 is not None
        open_ = len(self._state.connections) + self._http2.connections
        return open_ > self._options.max_connections

    async def _sweep(self) -> None:
        """Close who takes too long to say what they want."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(1.0, self._options.head_timeout_s / 2))
            late = loop.time() - self._options.head_timeout_s
            for connection in list(self._state.connections):
                if connection.head_since and connection.head_since < late:
                    connection.too_slow()


def _bind(address: str) -> socket.socket:
    host, colon, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        if not colon:
            raise ValueError("a port is missing")
        if not 0 <= int(port) <= 65_535:
            raise ValueError("a port is 0 to 65535")
        found = socket.getaddrinfo(
            host or "127.0.0.1", int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, number, _, place = found[0]
        listening = socket.socket(family, kind, number)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place)
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigError(
            "Cannot listen on {address!r}: {reason}.",
            hint="Give HOST:PORT with a free port, such as 127.0.0.1:8000, or port 0 for any.",
            address=address,
            reason=str(error),
        ) from error
    listening.setblocking(False)
    return listening
