"""A server's refusal as the error that it would have been here."""

from __future__ import annotations

import json

from autoglm import errors
from autoglm.errors import AutoGLMError, ServeError

_KINDS: dict[str, type[AutoGLMError]] = {
    c.code: c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, AutoGLMError)
}
_SERVING = tuple(c for c in _KINDS.values() if issubclass(c, ServeError))


class NoServerError(ServeError):
    """Nobody answers at the URL, or not as a server of that protocol."""

    code = "draining"


def no_server(url: str, reason: object) -> NoServerError:
    """Nobody is there."""
    return NoServerError(
        "No server answers at {url}: {reason}.",
        hint="Start one with `autoglm serve BUNDLE`, or give its address with --url.",
        url=url,
        reason=reason,
    )


def http_refusal(status: int, data: bytes, url: str) -> AutoGLMError:
    """An HTTP answer that is no success, as far as its body says why."""
    code, message, hint = said_by(status, data)
    return refused(url, status, code, message, hint)


def grpc_refusal(status: str, message: str, url: str, code: str = "") -> AutoGLMError:
    """A gRPC status that is not OK; `code` is ours, where the server has it."""
    named = (c.code for c in _SERVING if errors.TABLE[c.code].grpc == status)
    return refused(url, status, code or next(named, "serve"), message)


def said_by(status: int, data: bytes) -> tuple[str, str, str]:
    """Code, message and hint of an HTTP answer that is no success."""
    try:
        value = json.loads(data)
    except ValueError:
        value = None
    said = value if isinstance(value, dict) else {}
    inner = said.get("error")
    facts = inner if isinstance(inner, dict) else said
    message = facts.get("message") or (inner if isinstance(inner, str) else "")
    code = str(facts.get("code") or _code(status))
    shown = str(message or data[:200].decode("utf-8", "replace") or "nothing")
    return code, shown, str(facts.get("hint") or "")


def refused(url: str, status: int | str, code: str, message: str, hint: str = "") -> AutoGLMError:
    """The error of that code; ServeError where the code is not ours."""
    return _KINDS.get(code, ServeError)(
        "The server at {url} answered {status}: {message}",
        hint=_hint(hint, code),
        url=url,
        status=status,
        message=message,
    )


def _hint(said: str, code: str) -> str:
    if said:
        return said.replace("{", "{{").replace("}", "}}")
    if code in ("unauthenticated", "forbidden"):
        return "Give a key that may do this: --api-key-file FILE"
    return ""


def _code(status: int) -> str:
    """The first code of that HTTP status among those of serving."""
    return next((c.code for c in _SERVING if errors.TABLE[c.code].http == status), "serve")
