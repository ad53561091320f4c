"""The smallest gateway that a transport can be tested with: `twice` doubles its one input."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from autoglm.errors import DeadlineError, ModelNotServedError, UnauthenticatedError
from autoglm.serve.core import Client, Credentials, ModelInfo, Request, Response
from autoglm.spec import TensorInfo

ANYBODY = Client()
INFO = ModelInfo(
    "twice",
    "1",
    (TensorInfo("x", "float32", (None, None)),),
    (TensorInfo("y", "float32", (None, None)),),
    "ready",
)


class SmallGateway:
    """Doubles; `hold` makes requests wait for `release`; keeps what it was asked."""

    def __init__(self, *, key: str = "") -> None:
        self.key = key
        self.asked: list[Request] = []
        self.release = asyncio.Event()
        self.hold = False

    async def infer(self, request: Request) -> Response:
        self.asked.append(request)
        if self.hold:
            await self.release.wait()
        if request.deadline is not None and request.parameters.get("late"):
            raise DeadlineError("Too late.")
        info = self.model(request.model, request.version)
        x = np.asarray(request.inputs["x"])
        return Response(info.name, info.version, {"y": x + x}, request.id)

    def authenticate(self, credentials: Credentials) -> Client:
        if self.key and credentials.authorization.removeprefix("Bearer ") != self.key:
            raise UnauthenticatedError("No valid key.")
        return Client(credentials.client_id or "anonymous", credentials)

    def models(self, client: Client = ANYBODY) -> Sequence[ModelInfo]:
        return (INFO,)

    def model(self, name: str, version: str = "", client: Client = ANYBODY) -> ModelInfo:
        if name != INFO.name or version not in ("", INFO.version):
            raise ModelNotServedError("No model {name!r}.", name=name)
        return INFO

    async def signature(
        self,
        client: Client,
        name: str,
        version: str = "",
        request_id: str = "",
        *,
        deadline: float | None = None,
    ) -> ModelInfo:
        return self.model(name, version)

    def ready(self) -> bool:
        return True

    async def load(self, name: str, path: str = "", version: str = "") -> ModelInfo:
        raise NotImplementedError

    async def unload(self, name: str, version: str = "") -> None:
        raise NotImplementedError
