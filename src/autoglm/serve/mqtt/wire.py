"""MQTT messages to requests and back. Nothing here does I/O, and nothing a peer sends raises
anything but an AutoGLMError.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from autoglm.errors import (
    AutoGLMError,
    InvalidRequestError,
    TooLargeError,
    UnsupportedTypeError,
)
from autoglm.serve.core import Credentials, Request, Response
from autoglm.serve.http import envelope
from autoglm.serve.http.numbers import parse as parse_json
from autoglm.serve.http.wire import dumps, error_reply
from autoglm.serve.proto import convert

if TYPE_CHECKING:
    from autoglm.serve.gateway import LocalGateway

JSON = "application/json"
PROTOBUF = "application/x-protobuf"
REQUEST_TYPE = f"{PROTOBUF};proto=autoglm.v1.InferRequest"
RESPONSE_TYPE = f"{PROTOBUF};proto=autoglm.v1.InferResponse"
_LONGEST_TOPIC = 1024


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it came. `properties` are the user properties, names in lower case."""

    topic: str
    payload: bytes
    qos: int = 0
    reply_topic: str = ""
    correlation: bytes = b""
    content_type: str = ""
    expiry_s: int | None = None
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """Where an answer goes, and in which form."""

    topic: str
    qos: int = 0
    correlation: bytes = b""
    json: bool = True
    id: str = ""
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """A message that was read: `body` is a JSON object or an InferRequest, or `error` says why
    not.
    """

    message: Message
    reply: Reply
    body: Any = None
    error: AutoGLMError | None = None


def read(message: Message, *, prefix: str, max_bytes: int) -> Question:
    """What the message asks and where the answer goes; `reply.topic` is "" where it says neither.

    MQTT 3.1.1 has no Response Topic, so there the payload names it.
    """
    reply = Reply(
        message.reply_topic,
        min(message.qos, 1),
        message.correlation,
        json=_is_json(message),
        traceparent=message.properties.get("traceparent", ""),
    )
    body, error = None, None
    try:
        body = _body(message, reply.json, max_bytes)
        reply = _addressed(reply, body)
        _check_reply(reply.topic, prefix)
    except AutoGLMError as found:
        error = found
    if not may_answer(reply.topic, prefix):
        reply = replace(reply, topic="")
    return Question(message, reply, body, error)


async def to_request(question: Question, gateway: LocalGateway, *, prefix: str) -> Request:
    """The request for the gateway; raises what is wrong with it, the peer's identity included."""
    if question.error is not None:
        raise question.error
    message, body = question.message, question.body
    model, version = _named(message.topic, prefix)
    client = gateway.authenticate(credentials(question))
    if question.reply.json:
        _fill(body, "model_name", model)
        _fill(body, "version", version)
        request = await envelope.read_request(gateway, client, body)
    else:
        request = convert.to_request(body, client)
        request.model = _agreed("model", request.model, model)
        request.version = _agreed("version", request.version, version)
    request.traceparent = question.reply.traceparent or request.traceparent
    if message.expiry_s is not None:
        expiry = time.monotonic() + message.expiry_s
        request.deadline = min(expiry, request.deadline or expiry)
    return request


def credentials(question: Question) -> Credentials:
    """What the message says of its sender; a broker does not pass on who that is."""
    said = question.message.properties
    key = said.get("authorization") or said.get("api-key") or ""
    if not key and question.reply.json:
        key = str(question.body.get("authorization") or "")
    return Credentials("mqtt", authorization=key, client_id=said.get("client-id", ""), headers=said)


def answer(response: Response, reply: Reply) -> bytes:
    """The answer in the form of the question."""
    if reply.json:
        return envelope.write_response(response)
    payload: bytes = convert.from_response(response).SerializeToString()
    return payload


def refusal(error: AutoGLMError, reply: Reply) -> bytes:
    """The error in the form of the question."""
    if not reply.json:
        payload: bytes = convert.from_error(error, reply.id).SerializeToString()
        return payload
    body: dict[str, Any] = parse_json(error_reply(error, oip=False).body)
    wait = convert.retry_after_s(error)
    return dumps(
        body | ({"id": reply.id} if reply.id else {}) | ({"retry_after_s": wait} if wait else {})
    )


def may_answer(topic: str, prefix: str) -> bool:
    """Whether an answer may go there: a real topic, and not one that workers read or own."""
    if not topic or len(topic) > _LONGEST_TOPIC or topic[0] == "$":
        return False
    if any(c in "+#" or c < " " or "\x7f" <= c <= "\x9f" for c in topic):
        return False
    return not topic.startswith(f"{prefix}/") or topic.startswith(f"{prefix}/reply/")


def _check_reply(topic: str, prefix: str) -> None:
    if not may_answer(topic, prefix):
        raise InvalidRequestError(
            "{topic} is no topic for an answer.",
            hint="Set the Response Topic (or reply_topic in the payload) to a topic of your own.",
            topic=repr(topic[:100]),
        )


def _is_json(message: Message) -> bool:
    kind = message.content_type.partition(";")[0].strip().lower()
    if kind in (JSON, PROTOBUF):
        return kind == JSON
    # Clients of MQTT 3.1.1 cannot say. An InferRequest has tags and lengths among its first bytes,
    # which no text has.
    return all(byte >= 0x20 or byte in b"\t\n\r" for byte in message.payload[:64])


def _body(message: Message, json: bool, max_bytes: int) -> Any:
    kind = message.content_type.partition(";")[0].strip().lower()
    if len(message.payload) > max_bytes:
        raise TooLargeError(
            "The request has {found} bytes; allowed are {limit}.",
            found=len(message.payload),
            limit=max_bytes,
        )
    if kind not in ("", JSON, PROTOBUF, "text/plain", "application/octet-stream"):
        raise UnsupportedTypeError(
            "Content type {found} is not known; known: {known}.",
            found=repr(kind[:100]),
            known=f"{JSON}, {REQUEST_TYPE}",
        )
    return parse_json(message.payload) if json else convert.parse(message.payload)


def _addressed(reply: Reply, body: Any) -> Reply:
    if not reply.json:
        return replace(reply, topic=reply.topic or body.reply_topic, id=body.id)
    topic, request_id = body.get("reply_topic"), body.get("id")
    return replace(
        reply,
        topic=reply.topic or (topic if isinstance(topic, str) else ""),
        id=request_id if isinstance(request_id, str) else "",
    )


def _named(topic: str, prefix: str) -> tuple[str, str]:
    levels = topic.removeprefix(f"{prefix}/").split("/")
    if not topic.startswith(f"{prefix}/") or levels[-1] != "infer" or not 2 <= len(levels) <= 3:
        raise InvalidRequestError(
            "{topic} is no topic for requests; write {prefix}/MODEL[/VERSION]/infer.",
            topic=repr(topic[:200]),
            prefix=prefix,
        )
    return levels[0], levels[1] if len(levels) == 3 else ""


def _fill(body: dict[str, Any], name: str, said: str) -> None:
    found = body.get(name)
    value = _agreed(name, str(found) if isinstance(found, str | int) else "", said)
    if value:
        body[name] = value


def _agreed(name: str, found: str, said: str) -> str:
    if found and said and found != said:
        raise InvalidRequestError(
            "{name}: the topic says {said}, the payload {found}.",
            name=name,
            said=repr(said[:100]),
            found=repr(found[:100]),
        )
    return said or found
