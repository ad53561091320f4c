"""What every call shares: who asks, until when, and how a fault leaves.

Handlers take and give bytes: grpc's own deserializer would answer bytes that do not parse as
INTERNAL, and log a traceback for each.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias
from urllib.parse import unquote

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from autoglm.errors import AutoGLMError, DrainingError, TooLargeError
from autoglm.serve.core import Client, Credentials, Gateway
from autoglm.serve.proto import convert

CODE_KEY = "autoglm-code"
DOMAIN = "open-autoglm"
_CODES = {code.name: code for code in grpc.StatusCode}
_log = logging.getLogger("autoglm.serve.grpc")

Answer: TypeAlias = Callable[[bytes, "Call"], Awaitable[Any]]  # -> a message
Refusal: TypeAlias = Callable[[bytes, AutoGLMError], Any]  # -> a message


@dataclass(frozen=True, slots=True)
class Terms:
    """What all calls of one listener share."""

    gateway: Gateway
    draining: asyncio.Event
    max_bytes: int
    mutual: bool = False  # peers show a certificate, and it was verified


class Call:
    """One call, or one message of a stream: its gateway, its client, its deadline."""

    __slots__ = ("client", "context", "credentials", "gateway", "headers")

    def __init__(self, terms: Terms, context: Any) -> None:
        self.gateway = terms.gateway
        self.context = context
        metadata = context.invocation_metadata() or ()
        self.headers: dict[str, str] = {k: v for k, v in metadata if isinstance(v, str)}
        self.credentials = _credentials(context, self.headers, terms.mutual)
        self.client: Client = self.gateway.authenticate(self.credentials)

    def deadline(self, own: float | None = None) -> float | None:
        """The earlier of gRPC's deadline and the message's own, in time.monotonic() seconds."""
        left = self.context.time_remaining()
        if left is None:
            return own
        end = time.monotonic() + float(left)
        return end if own is None else min(own, end)


def _credentials(context: Any, headers: dict[str, str], mutual: bool) -> Credentials:
    return Credentials(
        "grpc",
        address=_address(context.peer()),
        authorization=headers.get("authorization", ""),
        certificate=_subject(context) if mutual else "",
        headers=headers,
    )


def _address(peer: str) -> str:
    """`ipv4:10.0.0.1:80` and `ipv6:%5B::1%5D:80` as host and port; a Unix socket is this host's."""
    kind, _, rest = peer.partition(":")
    return "localhost:0" if kind == "unix" else unquote(rest)


def _subject(context: Any) -> str:
    facts = context.auth_context()
    found = facts.get("x509_subject") or facts.get("x509_common_name") if facts else None
    if not found:
        return ""
    text: str = found[0].decode("utf-8", "replace")
    return text if "=" in text else f"CN={text}"


def known(error: Exception) -> AutoGLMError:
    """`error` as one of the table; what nobody foresaw is logged and told without its text."""
    if isinstance(error, AutoGLMError):
        return error
    _log.error("a mistake of ours", exc_info=error)
    return AutoGLMError("{kind}: a mistake of ours.", kind=type(error).__name__)


async def abort(context: Any, error: AutoGLMError) -> NoReturn:
    """End the call with the error's status, its stable code and its facts."""
    code = _CODES[error.row.grpc]
    told = convert.to_error(error)
    text = convert.printable(f"{told.message} {told.hint}".strip(), 800)
    status = Status(code=code.value[0], message=text)
    reason = error.code.upper().replace("-", "_")
    _add(status, ErrorInfo(reason=reason, domain=DOMAIN, metadata=told.facts))
    trailers: list[tuple[str, str | bytes]] = [(CODE_KEY, error.code)]
    if told.retry_after_s > 0:
        retry = RetryInfo()
        retry.retry_delay.FromNanoseconds(int(told.retry_after_s * 1e9))
        _add(status, retry)
        trailers.append(("grpc-retry-pushback-ms", str(int(told.retry_after_s * 1000))))
    trailers.append(("grpc-status-details-bin", status.SerializeToString()))
    await context.abort(code, text, tuple(trailers))
    raise AssertionError("abort returned")


def _add(status: Any, detail: Any) -> None:
    packed = AnyMessage()
    packed.Pack(detail)
    status.details.append(packed)


def unary(terms: Terms, answer: Answer) -> grpc.RpcMethodHandler:
    """One request, one answer. A cancelled call cancels this task, and so its queued work."""

    async def handle(raw: bytes, context: Any) -> bytes:
        try:
            if terms.draining.is_set():
                raise _stopping()
            _require_size(raw, terms.max_bytes)
            reply = await answer(raw, Call(terms, context))
            return reply.SerializeToString()  # type: ignore[no-any-return]
        except Exception as error:
            await abort(context, known(error))

    return grpc.unary_unary_rpc_method_handler(handle)


def stream(
    terms: Terms, answer: Answer, refuse: Refusal, *, in_flight: int, ordered: bool
) -> grpc.RpcMethodHandler:
    """Many requests, at most `in_flight` of them being answered; `ordered` answers in their order.

    A fault answers its own request and the stream goes on. A draining server answers what it has
    read and ends the stream as UNAVAILABLE.
    """

    async def handle(_: Any, context: Any) -> None:
        try:
            call = Call(terms, context)
            slots, writing = asyncio.Semaphore(in_flight), asyncio.Lock()
            previous: asyncio.Task[None] | None = None

            async def reply(raw: bytes, before: asyncio.Task[None] | None) -> None:
                message = await _settled(answer, refuse, raw, call, terms.max_bytes)
                if before is not None:
                    await asyncio.wait((before,))
                async with writing:  # gRPC takes one write at a time
                    await context.write(message.SerializeToString())
                slots.release()

            async with asyncio.TaskGroup() as group, _ending(terms.draining) as end:
                while (raw := await _read(context, end)) is not None:
                    await slots.acquire()
                    previous = group.create_task(reply(raw, previous if ordered else None))
            if terms.draining.is_set():
                raise _stopping()
        except Exception as error:
            await abort(context, known(error))

    return grpc.stream_stream_rpc_method_handler(handle)


def _require_size(raw: bytes, max_bytes: int) -> None:
    """gRPC's core takes twice as much, so that what is too large by less is told as on any wire."""
    if len(raw) > max_bytes:
        raise TooLargeError(
            "The request has {found} bytes; allowed are {limit}.", found=len(raw), limit=max_bytes
        )


def _stopping() -> DrainingError:
    return DrainingError("The server is stopping.", hint="Ask another one, or again soon.")


async def _settled(answer: Answer, refuse: Refusal, raw: bytes, call: Call, max_bytes: int) -> Any:
    try:
        _require_size(raw, max_bytes)
        # A key may be revoked, and a token expire, while its stream is open.
        call.client = call.gateway.authenticate(call.credentials)
        return await answer(raw, call)
    except Exception as error:
        return refuse(raw, known(error))


@asynccontextmanager
async def _ending(draining: asyncio.Event) -> AsyncIterator[asyncio.Future[Any]]:
    end = asyncio.ensure_future(draining.wait())
    try:
        yield end
    finally:
        end.cancel()


async def _read(context: Any, end: asyncio.Future[Any]) -> bytes | None:
    """The next message, or None at the end of the stream or of the server."""
    reading = asyncio.ensure_future(context.read())
    try:
        await asyncio.wait((reading, end), return_when=asyncio.FIRST_COMPLETED)
        raw = reading.result() if reading.done() else None
        return raw if isinstance(raw, bytes) else None  # grpc.aio.EOF ends it
    finally:
        reading.cancel()
