"""The serving process: the pool, the gateway and its transports, from the first line to the last
answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoglm import registry
from autoglm.errors import ModelNotServedError
from autoglm.serve.batch import BatchLimits
from autoglm.serve.cache import Cache, CacheOptions
from autoglm.serve.core import ModelInfo, Transport
from autoglm.serve.gateway import LocalGateway
from autoglm.serve.guard import Guard, GuardOptions, open_warning
from autoglm.serve.options import TransportOptions
from autoglm.serve.pool import Pool, State, repository, state_file
from autoglm.serve.pool.engine import RUN_TIMEOUT_S
from autoglm.serve.routes import Preloader, Routes
from autoglm.serve.telemetry import Telemetry, TelemetryOptions, watch_batchers, watch_cache

_log = logging.getLogger("autoglm.serve")
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_LAST_S = 1.0
_YOUNG = 20_000  # objects


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
    guard: GuardOptions = field(default_factory=GuardOptions)
    cache: CacheOptions | None = None
    telemetry: TelemetryOptions = field(default_factory=TelemetryOptions)
    routes: Path | None = None  # followed while serving
    state: Path | None = None  # of aliases, labels and canaries; None = in the model repository
    strict: bool = False  # one model that does not load keeps the server from starting
    run_timeout_s: float = RUN_TIMEOUT_S  # of an engine; a run that takes longer hangs


class Server:
    """Start, wait, drain. Use `async with`."""

    def __init__(self, options: ServeOptions) -> None:
        self.options = options
        self.preloader = Preloader(self._preload)
        models = repository(options.models, process=options.process)
        self.pool = Pool(
            models,
            memory_bytes=options.memory_bytes,
            limits=options.batch,
            on_use=self.preloader.seen,
            state=State(options.state or state_file(models.folder)),
            run_timeout_s=options.run_timeout_s,
        )
        self.telemetry = Telemetry(options.telemetry, self.pool.ran)
        watch_batchers(self.telemetry, self.pool.batchers)
        self.gateway = LocalGateway(
            self.pool,
            guard=Guard(options.guard, report=_log.warning),
            routes=Routes(on_change=self.preloader.follow),
            cache=Cache(options.cache) if options.cache else None,
            telemetry=self.telemetry,
        )
        if self.gateway.cache is not None:
            watch_cache(self.telemetry, self.gateway.cache)
        self.urls: dict[str, str] = {}
        self._transports: list[Transport] = []
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def warning(self) -> str:
        """That anybody may use the server, where that is so; "" where not."""
        guard = self.gateway.guard
        addresses = {n: u.rpartition("//")[2] for n, u in self.urls.items() if n != "mqtt"}
        return open_warning(addresses, is_open=guard is None or guard.is_open)

    async def _preload(self, name: str, version: str) -> None:
        await self.pool.preload(name, version)

    async def start(self) -> None:
        """Load every model, then listen. Raises what keeps it from serving anything."""
        if self.options.routes is not None and self.gateway.routes is not None:
            self.gateway.routes.load(self.options.routes)
            self._tasks.append(asyncio.create_task(self.gateway.routes.watch(self.options.routes)))
        self._tasks.append(asyncio.create_task(self.preloader.run()))
        await self.pool.start()
        for fault in self.pool.state.faults:
            if self.options.strict:
                raise fault
            _log.warning("%s", fault.localized())
        require_models(self.gateway.models(), strict=self.options.strict)
        self.gateway.state = "ready"  # before a broker hands over what waited for us
        for name, address in self.options.addresses.items():
            transport = registry.transport(name)
            self._transports.append(transport)
            told = {"options": self.options.transport}
            self.urls[name] = await transport.start(self.gateway, address, told)

    async def drain(self) -> None:
        """Take nothing new, and answer everything that was accepted."""
        self.gateway.state = "draining"
        seconds = self.options.drain_s
        end = time.monotonic() + seconds
        await asyncio.gather(*(t.drain(seconds) for t in self._transports))
        await self.gateway.idle(max(end - time.monotonic(), 0.0))

    async def stop(self) -> None:
        """Close transports and engines; may be called twice."""
        await asyncio.gather(*(t.stop() for t in self._transports))
        self._transports.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.preloader.close()
        if self.gateway.cache is not None:
            await self.gateway.cache.close()
        self.telemetry.fold()  # while the engines can still say what they ran
        await self.pool.close(_LAST_S)  # nobody waits for an answer any more
        await asyncio.to_thread(self.telemetry.close)  # it may wait for a collector

    async def __aenter__(self) -> Server:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.stop()


def require_models(models: Sequence[ModelInfo], *, strict: bool) -> None:
    """ModelNotServedError with every reason where nothing can be served; with `strict`, where
    anything does not load.
    """
    failed = [i for i in models if i.state == "failed"]
    if any(i.state == "ready" for i in models) and not (strict and failed):
        return
    shown = failed if strict and failed else models
    raise ModelNotServedError(
        "No model loads: {reasons}" if shown is models else "These do not load: {reasons}",
        hint="`autoglm run PATH --random` shows what is wrong with a bundle.",
        reasons="; ".join(f"{i.name} {i.version}: {i.reason or i.state}" for i in shown) or "none",
    )


def serve(options: ServeOptions, announce: Callable[[Server], None]) -> None:
    """Serve until SIGTERM or Ctrl-C, then drain; a second signal ends it at once."""
    # Requests in flight hold more objects than Python's 700, so each few would start a collection
    # that finds nothing: 10 us of a gRPC call at 64 callers (benchmarks/serving/parts.py).
    gc.set_threshold(_YOUNG)
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
    ended, task = asyncio.Event(), asyncio.current_task()
    assert task is not None
    _on_signal(task.cancel)  # while models load there is nothing to drain
    try:
        async with Server(options) as server:
            _on_signal(ended.set)
            announce(server)
            await ended.wait()
            _on_signal(task.cancel)
            await server.drain()
    finally:
        for number in _SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)


def _on_signal(act: Callable[[], object]) -> None:
    for number in _SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, act)
