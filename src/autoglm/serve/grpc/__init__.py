"""gRPC: the Open Inference Protocol, and our own service with streaming."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from autoglm.spec import API_VERSION

if TYPE_CHECKING:
    from autoglm.serve.core import Gateway
    from autoglm.serve.grpc.server import Listener


class Grpc:
    """The transport `grpc`."""

    name = "grpc"
    api_version = API_VERSION

    def __init__(self) -> None:
        self._listener: Listener | None = None

    async def start(self, gateway: Gateway, address: str, options: Mapping[str, object]) -> str:
        """Listen on HOST:PORT; the URL, with the real port. Takes `options` (TransportOptions)
        and `grpc` (GrpcOptions).
        """
        from autoglm.serve.grpc.server import Listener

        self._listener = Listener(gateway, options)
        return await self._listener.start(address)

    async def drain(self, timeout_s: float) -> None:
        """Take no new calls, and answer what was accepted."""
        if self._listener is not None:
            await self._listener.drain(timeout_s)

    async def stop(self) -> None:
        """Close every connection; may be called twice."""
        if self._listener is not None:
            await self._listener.stop()
            self._listener = None
