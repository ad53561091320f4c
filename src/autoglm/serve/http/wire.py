"""What a handler is given and gives back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from autoglm.errors import AutoGLMError, InvalidRequestError
from autoglm.serve.core import Client

JSON = b"application/json"
BINARY = b"application/octet-stream"
TEXT = b"text/plain; charset=utf-8"


@dataclass(slots=True)
class Call:
    """One request as it came."""

    method: str
    path: str
    query: bytes
    headers: Mapping[str, str]  # lower-case names
    body: bytes
    client: Client


@dataclass(slots=True)
class Reply:
    """One answer."""

    body: bytes
    status: int = 200
    content_type: bytes = JSON
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    close: bool = False  # a body is left unread: the connection cannot go on


class HttpError(AutoGLMError):
    """A fault of the HTTP request itself, with its own status."""

    code = "invalid-request"

    def __init__(self, status: int, template: str, /, *, hint: str = "", **facts: object) -> None:
        super().__init__(template, hint=hint, **facts)
        self.status = status


def reply_json(value: Any, status: int = 200) -> Reply:
    """`value` as JSON; NumPy arrays as nested lists, NaN and infinities as null."""
    return Reply(dumps(value), status)


def dumps(value: Any) -> bytes:
    """JSON of plain values and NumPy arrays."""
    return orjson.dumps(value, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype.isbuiltin != 1 and value.dtype.kind != "O":
            return value.astype(np.float32)  # bfloat16, fp8
        return np.ascontiguousarray(value) if value.dtype.kind in "biuf" else value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value)


def error_reply(error: AutoGLMError, *, oip: bool) -> Reply:
    """The one table's row on this wire, in the shape that the caller's protocol has."""
    status = getattr(error, "status", 0) or error.row.http
    message = error.localized()
    if hint := error.hint:
        message = f"{message} {hint}"
    body: dict[str, Any]
    if oip:
        body = {"error": message, "code": error.code}
    else:
        body = {"result": None, "status_code": status, "message": message, "code": error.code}
    reply = reply_json(body, status)
    reply.close = bool(error.facts.get("close"))
    wait = error.facts.get("retry_after_s")
    if isinstance(wait, int | float) and status in (429, 503):
        reply.headers.append((b"retry-after", b"%d" % max(1, math.ceil(wait))))
    if status == 401:
        reply.headers.append((b"www-authenticate", b"Bearer"))
    if allowed := error.facts.get("allowed_methods"):
        reply.headers.append((b"allow", str(allowed).encode()))
    return reply


def field_of(
    message: Mapping[str, Any], name: str, kinds: tuple[type, ...], default: Any = None
) -> Any:
    """A field of a JSON object, with its type checked; `default` where it is not there."""
    value = message.get(name)
    if value is None:
        if name in message:
            raise _wrong(name, kinds, value)
        return default
    if isinstance(value, float) and float not in kinds and value.is_integer() and int in kinds:
        return int(value)  # to JSON Schema, 1.0 is a whole number
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise _wrong(name, kinds, value)
    return value


_WORDS = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}


def _wrong(name: str, kinds: tuple[type, ...], value: object) -> InvalidRequestError:
    return InvalidRequestError(
        "{name}: expected {expected}; found {found}.",
        name=name,
        expected=" or ".join(dict.fromkeys(_WORDS[k] for k in kinds)),
        found=_WORDS.get(type(value), "null"),
    )
