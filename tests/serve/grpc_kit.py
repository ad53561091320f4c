"""A small gateway over a NumPy function, and a gRPC server around it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from autoglm.errors import (
    ForbiddenError,
    InvalidRequestError,
    ModelNotServedError,
    UnauthenticatedError,
)
from autoglm.serve.core import Client, Credentials, ModelInfo, Request, Response
from autoglm.serve.grpc import Grpc
from autoglm.spec import TensorInfo

ANYBODY = Client()
WEIGHT = np.linspace(-1, 1, 40, dtype=np.float32).reshape(4, 10)


def mlp(request: Request) -> dict[str, Any]:
    """x [n, 4] -> y [n, 10]."""
    x = request.inputs.get("x")
    if x is None or x.dtype != np.float32 or x.ndim != 2 or x.shape[1] != 4:
        raise InvalidRequestError("x is float32 [n, 4].")
    with np.errstate(all="ignore"):  # NaN is a number to send
        return {"y": x @ WEIGHT}


def echo(request: Request) -> dict[str, Any]:
    """Every input, as it came."""
    return dict(request.inputs)


@dataclass
class SmallGateway:
    """The contract of serve.core over plain functions; `slow` waits for `release`."""

    key: str = ""
    release: asyncio.Event = field(default_factory=asyncio.Event)
    seen: list[Request] = field(default_factory=list)
    started: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    dropped: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    states: dict[str, str] = field(
        default_factory=lambda: {"mlp": "ready", "echo": "ready", "slow": "ready"}
    )
    error: Exception | None = None

    async def infer(self, request: Request) -> Response:
        self.seen.append(request)
        if self.error is not None:
            raise self.error
        info = self.model(request.model, request.version)
        if request.model == "slow":
            await self._wait(request)
        outputs = mlp(request) if request.model == "mlp" else echo(request)
        if unknown := set(request.outputs) - set(outputs):
            raise InvalidRequestError("No output {name!r}.", name=min(unknown))
        outputs = {n: outputs[n] for n in request.outputs or outputs}
        return Response(info.name, info.version, outputs, request.id, {"engine": "numpy"})

    async def _wait(self, request: Request) -> None:
        self.started.put_nowait(request.id)
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.dropped.put_nowait(request.id)
            raise

    def authenticate(self, credentials: Credentials) -> Client:
        if self.key and credentials.authorization != f"Bearer {self.key}":
            raise UnauthenticatedError("No valid key came.", hint="Send `authorization`.")
        return Client(credentials.certificate or "anonymous", credentials)

    def permit(self, client: Client, model: str = "", *, admin: bool = False) -> None:
        if admin and client.credentials.headers.get("role") != "admin":
            raise ForbiddenError("{client} may not change the server.", client=client.name)

    def models(self, client: Client = ANYBODY) -> tuple[ModelInfo, ...]:
        return tuple(self.model(name) for name in self.states)

    def model(self, name: str, version: str = "", client: Client = ANYBODY) -> ModelInfo:
        if name not in self.states or version not in ("", "1"):
            raise ModelNotServedError(
                "No model {name!r}; there are {known}.",
                name=name,
                known=", ".join(self.states),
            )
        x = TensorInfo("x", "float32", ("n", 4))
        y = TensorInfo("y", "float32", (None, 10))
        return ModelInfo(name, "1", (x,), (y,), self.states[name], engines=("numpy",))

    def statistics(self, info: ModelInfo) -> Mapping[str, Any]:
        count = sum(request.model == info.name for request in self.seen)
        stats = {"success": {"count": count, "ns": 1000 * count}}
        return {
            "name": info.name,
            "version": info.version,
            "inference_count": count,
            "inference_stats": stats,
        }

    def ready(self) -> bool:
        return True

    async def load(self, name: str, path: str = "", version: str = "") -> ModelInfo:
        self.states[name] = "ready"
        return self.model(name)

    async def unload(self, name: str, version: str = "") -> None:
        self.model(name)
        del self.states[name]


@asynccontextmanager
async def serving(gateway: Any, **options: object) -> AsyncIterator[tuple[str, Grpc]]:
    """The transport on a free port: its HOST:PORT and itself."""
    transport = Grpc()
    url = await transport.start(gateway, "127.0.0.1:0", options)
    try:
        yield url.partition("://")[2], transport
    finally:
        await transport.stop()


def run(
    scenario: Callable[..., Any], gateway: Any = None, *, timeout_s: float = 60, **options: object
) -> Any:
    """Run `scenario(channel, gateway, transport)` against a server, at most `timeout_s`."""

    async def main() -> Any:
        served = gateway() if callable(gateway) else gateway or SmallGateway()
        async with (
            asyncio.timeout(timeout_s),
            serving(served, **options) as (address, transport),
            grpc.aio.insecure_channel(address) as channel,
        ):
            return await scenario(channel, served, transport)

    return asyncio.run(main())
