"""The serving process: the pool, the gateway and its transports, from the first line to the last
answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autoglm import registry
from autoglm.errors import ModelNotServedError
from autoglm.serve.batch import BatchLimits
from autoglm.serve.core import ModelInfo, Transport
from autoglm.serve.gateway import LocalGateway
from autoglm.serve.options import TransportOptions
from autoglm.serve.pool import Pool, repository


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """One server."""

    models: Sequence[str]  # PATH or NAME=PATH
    addresses: Mapping[str, str] = field(default_factory=dict)  # transport -> address
    transport: TransportOptions = field(default_factory=TransportOptions)
    batch: BatchLimits = field(default_factory=BatchLimits)
    memory_bytes: int = 0
    process: bool = False  # engines in processes of their own
    drain_s: float = 30.0


class Server:
    """Start, wait, drain. Use `async with`."""

    def __init__(self, options: ServeOptions) -> None:
        self.options = options
        self.pool = Pool(
            repository(options.models, process=options.process),
            memory_bytes=options.memory_bytes,
            limits=options.batch,
        )
        self.gateway = LocalGateway(self.pool)
        self.urls: dict[str, str] = {}
        self._transports: list[Transport] = []

    async def start(self) -> None:
        """Load every model, then listen. Raises what keeps it from serving anything."""
        await self.pool.start()
        if not any(info.state == "ready" for info in self.gateway.models()):
            raise nothing_loads(self.gateway.models())
        try:
            for name, address in self.options.addresses.items():
                transport = registry.transport(name)
                self._transports.append(transport)
                told = {"options": self.options.transport}
                self.urls[name] = await transport.start(self.gateway, address, told)
        except BaseException:
            await self.stop()
            raise
        self.gateway.state = "ready"

    async def drain(self) -> None:
        """Take nothing new, and answer everything that was accepted."""
        self.gateway.state = "draining"
        seconds = self.options.drain_s
        await asyncio.gather(*(t.drain(seconds) for t in self._transports))
        await self.gateway.idle(seconds)

    async def stop(self) -> None:
        """Close transports and engines; may be called twice."""
        await asyncio.gather(*(t.stop() for t in self._transports))
        self._transports.clear()
        await self.pool.close()

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.stop()


def nothing_loads(models: Sequence[ModelInfo]) -> ModelNotServedError:
    """Why there is nothing to serve, model by model."""
    return ModelNotServedError(
        "No model loads: {reasons}",
        hint="`autoglm run PATH --random` shows what is wrong with a bundle.",
        reasons="; ".join(f"{i.name} {i.version}: {i.reason or i.state}" for i in models) or "none",
    )


def serve(options: ServeOptions, announce: Callable[[Server], None]) -> None:
    """Serve until SIGTERM or Ctrl-C, then drain; a second signal ends it at once."""
    with contextlib.suppress(asyncio.CancelledError):
        _run(_serve(options, announce))


def _run(main: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
        return
    uvloop.run(main)


async def _serve(options: ServeOptions, announce: Callable[[Server], None]) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    async with Server(options) as server:
        announce(server)
        await ended.wait()
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        await server.drain()
