"""REST over HTTP/1.1 and HTTP/2: our envelope, the Open Inference Protocol, and the server's own
pages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from autoglm.spec import API_VERSION

if TYPE_CHECKING:
    from autoglm.serve.core import Gateway
    from autoglm.serve.http.listener import Listener


class Http:
    """The transport `http`."""

    name = "http"
    api_version = API_VERSION

    def __init__(self) -> None:
        self._listener: Listener | None = None

    async def start(self, gateway: Gateway, address: str, options: Mapping[str, object]) -> str:
        """Listen on HOST:PORT; the URL, with the real port."""
        from autoglm.serve.http.listener import Listener

        self._listener = Listener(gateway, options)
        return await self._listener.start(address)

    async def drain(self, timeout_s: float) -> None:
        """Take no new connections, and answer what was accepted."""
        if self._listener is not None:
            await self._listener.drain(timeout_s)

    async def stop(self) -> None:
        """Close every connection; may be called twice."""
        if self._listener is not None:
            await self._listener.stop()
            self._listener = None
