"""What transports that listen on an address of their own have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from autoglm.serve.core import Gateway


class Listener(Protocol):
    """One open address."""

    async def start(self, address: str) -> str:
        """Listen; the URL, with the real port."""

    async def drain(self, timeout_s: float) -> None:
        """Take nothing new, and answer what was accepted."""

    async def stop(self) -> None:
        """Close every connection."""


class Listening:
    """A transport around one listener; `listener` imports its library when first asked."""

    def __init__(self) -> None:
        self._listener: Listener | None = None

    def listener(self, gateway: Gateway, options: Mapping[str, object]) -> Listener:
        """The listener of this protocol."""
        raise NotImplementedError

    async def start(self, gateway: Gateway, address: str, options: Mapping[str, object]) -> str:
        """Listen on HOST:PORT; the URL, with the real port."""
        self._listener = self.listener(gateway, options)
        return await self._listener.start(address)

    async def drain(self, timeout_s: float) -> None:
        """Take nothing new, and answer what was accepted."""
        if self._listener is not None:
            await self._listener.drain(timeout_s)

    async def stop(self) -> None:
        """Close every connection; may be called twice."""
        if self._listener is not None:
            await self._listener.stop()
            self._listener = None
