"""The real server, in a thread, on a free loopback port."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autoglm.serve.guard import GuardOptions
from autoglm.serve.server import ServeOptions, Server


@contextmanager
def served(*models: Path, keys: Path | None = None, routes: Path | None = None) -> Iterator[str]:
    """Its URL. With `keys`, whoever has none of them is refused."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> Server:
        server = Server(
            ServeOptions(
                [str(m) for m in models],
                {"http": "127.0.0.1:0"},
                guard=GuardOptions(keys=keys),
                routes=routes,
            )
        )
        try:
            await server.start()
        except BaseException:
            await server.stop()
            raise
        return server

    try:
        server = asyncio.run_coroutine_threadsafe(start(), loop).result(60)
        try:
            yield server.urls["http"]
        finally:
            asyncio.run_coroutine_threadsafe(server.stop(), loop).result(60)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
