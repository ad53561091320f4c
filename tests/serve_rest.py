"""A real HTTP server on a free loopback port with the pool's and the table's REST surface."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from autoglm.errors import AutoGLMError
from autoglm.serve.core import Client, Credentials
from autoglm.serve.pool import Pool
from autoglm.serve.pool.handlers import handle as ask_pool
from autoglm.serve.routes import Routes
from autoglm.serve.routes.handlers import handle as ask_routes


@contextmanager
def served(pool: Pool, routes: Routes, key: str = "") -> Iterator[str]:
    """Its URL. With a `key`, whoever has not got it is refused."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(pool.start(), loop).result(60)

    async def answer(method: str, target: str, body: dict[str, Any]) -> dict[str, Any]:
        parts = urlsplit(target)
        if parts.path.startswith("/v1/route"):
            client = Client("anonymous", Credentials("http", address="127.0.0.1"))
            return ask_routes(routes, method, parts.path, parse_qs(parts.query), body, client)
        return await ask_pool(pool, method, parts.path, body)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.respond({})

        def do_POST(self) -> None:
            self.respond(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        do_PUT = do_POST

        def respond(self, body: dict[str, Any]) -> None:
            status, found = 200, {}
            if key and self.headers.get("Authorization") != f"Bearer {key}":
                status, found = 401, {"message": "no key", "code": "unauthenticated"}
            else:
                try:
                    work = answer(self.command, self.path, body)
                    found = asyncio.run_coroutine_threadsafe(work, loop).result(60)
                except AutoGLMError as error:
                    status = error.row.http
                    found = {"error": {"code": error.code, "message": str(error)}}
            data = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        asyncio.run_coroutine_threadsafe(pool.close(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
