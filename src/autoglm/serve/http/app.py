"""The ASGI application: finds the handler, reads the body within its limits, says every error."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from autoglm.errors import AutoGLMError, TooLargeError, UnsupportedTypeError
from autoglm.serve.core import Credentials
from autoglm.serve.gateway import LocalGateway
from autoglm.serve.http.routes import Route, find
from autoglm.serve.http.wire import Call, HttpError, Reply, error_reply

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_KEPT_PATHS = 4096
_log = logging.getLogger("autoglm.http")


class _GoneError(Exception):
    """The client left."""


class App:
    """Bare ASGI; one instance a listener."""

    def __init__(
        self, gateway: LocalGateway, *, max_bytes: int = 64 << 20, body_timeout_s: float = 60.0
    ) -> None:
        self.gateway = gateway
        self.max_bytes = max_bytes
        self.body_timeout_s = body_timeout_s
        self._found: dict[tuple[str, str], Route] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        try:
            reply = await self._answer(scope, path, receive)
        except (_GoneError, asyncio.CancelledError):
            return  # nobody is there to be answered
        except AutoGLMError as error:
            reply = error_reply(error, oip=path.startswith("/v2"))
        except Exception as error:  # the last net: a mistake of ours ends one request only
            _log.exception("a mistake of ours at %s", path[:200])
            wrapped = AutoGLMError("{kind}: a mistake of ours.", kind=type(error).__name__)
            reply = error_reply(wrapped, oip=path.startswith("/v2"))
        await _send(reply, scope, send)

    async def _answer(self, scope: Scope, path: str, receive: Receive) -> Reply:
        method = scope["method"]
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        peer = scope["client"]
        credentials = Credentials(
            "http",
            _address(peer),
            headers.get("authorization", ""),
            scope.get("state", {}).get("certificate", ""),
            headers=headers,
        )
        gateway = self.gateway
        try:
            route = self._found.get((method, path)) or self._find(method, path)
            client = None if route.open else gateway.authenticate(credentials)
        except AutoGLMError:
            # No clock runs for a body that comes after its answer, and nothing else can follow it.
            await self._in_time(receive, keep=False)
            raise
        body = await self._body(headers, receive, bool(scope.get("whole")))
        if route.json and body:
            _require_type(headers)
        call = Call(method, path, scope["query_string"], headers, body, client)  # type: ignore[arg-type]
        if scope["http_version"][0] != "2":
            return await route.handler(gateway, call, *route.arguments)
        return await _while_there(route.handler(gateway, call, *route.arguments), receive)

    def _find(self, method: str, path: str) -> Route:
        route = find(method, path)
        if len(self._found) < _KEPT_PATHS:
            self._found[method, path] = route
        return route

    async def _body(self, headers: dict[str, str], receive: Receive, whole: bool) -> bytes:
        length = headers.get("content-length")
        # Python reads no number of thousands of digits; the parsers let only zeros be so many.
        if length is not None and (size := int(length[-20:])) > self.max_bytes:
            raise self._too_large(size)
        if whole:  # it is there already: no clock is needed
            return await self._read(receive)
        return await self._in_time(receive)

    async def _in_time(self, receive: Receive, *, keep: bool = True) -> bytes:
        try:
            async with asyncio.timeout(self.body_timeout_s):
                return await self._read(receive, keep=keep)
        except TimeoutError as error:
            raise HttpError(
                408,
                "The body did not come within {seconds} s.",
                seconds=self.body_timeout_s,
                close=True,
            ) from error

    async def _read(self, receive: Receive, *, keep: bool = True) -> bytes:
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _GoneError
            part: bytes = message.get("body", b"")
            if keep:
                parts.append(part)
            size += len(part)
            if size > self.max_bytes:
                raise self._too_large(size)
            more = message.get("more_body", False)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _too_large(self, size: int) -> TooLargeError:
        return TooLargeError(
            "The body has at least {size} bytes; {limit} are taken.",
            hint="Send fewer rows at once, or binary tensors instead of JSON.",
            size=size,
            limit=self.max_bytes,
            close=True,
        )


def _address(peer: tuple[str, int] | None) -> str:
    if not peer:
        return ""
    return f"[{peer[0]}]:{peer[1]}" if ":" in peer[0] else f"{peer[0]}:{peer[1]}"


def _require_type(headers: dict[str, str]) -> None:
    """JSON, binary tensors, nothing at all (tritonclient), or what curl says by itself."""
    if (coding := headers.get("content-encoding", "identity")) != "identity":
        raise UnsupportedTypeError(
            "Content-Encoding {found!r} is not taken; send the body as it is.", found=coding[:100]
        )
    said = headers.get("content-type", "").partition(";")[0].strip().lower()
    allowed = ("", "application/json", "application/octet-stream")
    if said in allowed or said.endswith("+json") or said == "application/x-www-form-urlencoded":
        return
    raise UnsupportedTypeError(
        "Content-Type {found!r} is not taken; allowed: application/json, and "
        "application/octet-stream with binary tensors.",
        found=said[:100],
    )


async def _while_there(work: Awaitable[Reply], receive: Receive) -> Reply:
    """Run the handler, and cancel it when the HTTP/2 stream is reset."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(receive())
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise _GoneError
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _send(reply: Reply, scope: Scope, send: Send) -> None:
    body = reply.body
    headers = [
        (b"content-type", reply.content_type),
        (b"content-length", b"%d" % len(body)),
        *reply.headers,
    ]
    if reply.close and scope["http_version"][0] != "2":
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    shown = b"" if scope["method"] == "HEAD" else body
    await send({"type": "http.response.body", "body": shown})
