"""Ask a running server over REST: one call, its JSON, and an error with a way on where it fails."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, urlencode, urlsplit

import typer

from autoglm.errors import ConfigError, FileMissingError
from autoglm.serve.load.refusal import NoServerError, http_refusal, no_server
from autoglm.serve.load.target import scheme_of, without_user

if TYPE_CHECKING:
    from urllib.request import OpenerDirector

DEFAULT_URL = "http://127.0.0.1:8000"
_TIMEOUT_S = 300.0  # a load answers when the new version is warm
_MAX_BYTES = 64 << 20

_OPTIONS: dict[str, tuple[Any, Any]] = {
    "url": (
        Annotated[str, typer.Option("--url", metavar="URL", help="Of the running server.")],
        DEFAULT_URL,
    ),
    "api_key": (
        Annotated[
            str,
            typer.Option(
                "--api-key", metavar="KEY", help="Sent as a bearer token.", show_default=False
            ),
        ],
        "",
    ),
    "api_key_file": (
        Annotated[
            Path | None,
            typer.Option("--api-key-file", metavar="FILE", help="Keeps it off the process list."),
        ],
        None,
    ),
    "ca": (
        Annotated[
            Path | None,
            typer.Option("--ca", metavar="FILE", help="Authority that signed its certificate."),
        ],
        None,
    ),
}


@dataclass(frozen=True, slots=True)
class Server:
    """Where to ask, and as whom."""

    url: str
    api_key: str = ""
    ca: Path | None = None

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Its JSON answer; the server's own error where it refuses, NoServerError where none
        answers.
        """
        from urllib.error import HTTPError, URLError
        from urllib.request import Request

        shown, parts = without_user(self.url), urlsplit(self.url)
        base = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
        target = base + quote(path) + ("?" + urlencode(query, True) if query else "")
        data = json.dumps(dict(body)).encode() if body is not None else None
        request = Request(target, data, {"Accept": "application/json"}, method=method)
        if data is not None:
            request.add_header("Content-Type", "application/json")
        if self.api_key:
            request.add_header("Authorization", f"Bearer {self.api_key}")
        try:
            with _opener(self).open(request, timeout=_TIMEOUT_S) as reply:
                return _parsed(reply.read(_MAX_BYTES), shown)
        except HTTPError as error:
            with error:
                raise http_refusal(error.code, error.read(_MAX_BYTES), shown) from error
        except (URLError, OSError) as error:
            raise no_server(shown, getattr(error, "reason", None) or error) from error


def connected(
    command: Callable[..., int], *, schemes: Sequence[str] = ("http", "https")
) -> Callable[..., int]:
    """Give a command the options that name a server; its `server` parameter receives it."""
    own = inspect.signature(command, eval_str=True).parameters.values()
    kept = [p.replace(kind=p.KEYWORD_ONLY) for p in own if p.name != "server"]
    extra = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in _OPTIONS.items()
    ]

    @functools.wraps(command)
    def wrapper(**values: Any) -> int:
        said = {name: values.pop(name) for name in _OPTIONS}
        return command(**values, server=_server(schemes, **said))

    del wrapper.__wrapped__  # or inspect would look through to the command itself
    vars(wrapper)["__signature__"] = inspect.Signature([*kept, *extra])
    wrapper.__annotations__ = {p.name: p.annotation for p in (*kept, *extra)}
    return wrapper


def _server(
    schemes: Sequence[str], url: str, api_key: str, api_key_file: Path | None, ca: Path | None
) -> Server:
    """The server that the options name."""
    scheme_of(url, schemes)
    for file in (api_key_file, ca):
        if file is not None and not file.is_file():
            raise FileMissingError("There is no file {path}.", path=file)
    if api_key_file is not None:
        api_key = api_key_file.read_text("utf-8").strip()
    if api_key and (not api_key.isascii() or not api_key.isprintable()):
        raise ConfigError("An API key holds printable ASCII characters only.")
    return Server(url, api_key, ca)


def _opener(server: Server) -> OpenerDirector:
    import ssl
    from urllib.request import HTTPRedirectHandler, HTTPSHandler, ProxyHandler, build_opener

    class Stay(HTTPRedirectHandler):
        """A redirect would take the key elsewhere."""

        def redirect_request(self, *_: Any) -> None:
            return None

    handlers: list[Any] = [Stay()]
    if urlsplit(server.url).hostname in ("127.0.0.1", "localhost", "::1"):
        handlers.append(ProxyHandler({}))  # a proxy has no way to this machine's own servers
    if server.ca is not None:
        handlers.append(HTTPSHandler(context=ssl.create_default_context(cafile=str(server.ca))))
    return build_opener(*handlers)


def _parsed(data: bytes, url: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise NoServerError(
            "What answers at {url} is no autoglm server: {found}.",
            hint="Give the address of `autoglm serve` with --url.",
            url=url,
            found=repr(data[:80]),
        )
    return value
