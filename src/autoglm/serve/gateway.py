"""The one gateway: every transport's request goes the same way, through the same parts.

    authenticate -> permit, admit -> route -> cache -> pool (batcher, engine) -> answer

Each part but the pool may be left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from autoglm.errors import DrainingError, ExecutionError, ForbiddenError, InvalidRequestError
from autoglm.serve.batch import BatchStats
from autoglm.serve.cache.key import key_of
from autoglm.serve.core import Client, Credentials, ModelInfo, Request, Response
from autoglm.spec import Value

if TYPE_CHECKING:
    from autoglm.serve.cache import Cache
    from autoglm.serve.guard import Guard
    from autoglm.serve.pool import Pool, Served
    from autoglm.serve.routes import Route, Routes
    from autoglm.serve.telemetry import Telemetry

_ANYBODY = Client()


class LocalGateway:
    """Answers in this process."""

    def __init__(
        self,
        pool: Pool,
        *,
        guard: Guard | None = None,
        routes: Routes | None = None,
        cache: Cache | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.pool = pool
        self.guard = guard
        self.routes = routes
        self.cache = cache
        self.telemetry = telemetry
        self.inflight = 0
        self.state = "starting"  # starting | ready | draining
        self._idle = asyncio.Event()

    async def infer(self, request: Request) -> Response:
        """Answer; cancelling the awaiting task drops queued work."""
        if self.state == "starting":
            raise DrainingError("The server is starting.", hint="Ask again soon.", retry_after_s=1)
        self.inflight += 1
        record = self.telemetry.start(request) if self.telemetry is not None else None
        try:
            response = await self._infer(request)
        except BaseException as error:
            if record is not None and self.telemetry is not None:
                self.telemetry.finish(record, error)
            raise
        finally:
            self.inflight -= 1
            if not self.inflight:
                self._idle.set()
        if record is not None and self.telemetry is not None:
            self.telemetry.finish(record, version=response.version)
        return response

    def authenticate(self, credentials: Credentials) -> Client:
        """Who this is; UnauthenticatedError when nobody we know."""
        if self.guard is None:
            return Client("anonymous", credentials)
        return self.guard.authenticate(credentials)

    def permit(self, client: Client, model: str = "", *, admin: bool = False) -> None:
        """ForbiddenError where this client may not use `model`, or not change the server."""
        if self.guard is not None:
            self.guard.permit(client, model, admin=admin)

    def models(self, client: Client = _ANYBODY) -> tuple[ModelInfo, ...]:
        """Every version known that `client` may use, ready or not."""
        return tuple(info for info in self.pool.models() if client.may_use(info.name))

    def model(self, name: str, version: str = "", client: Client = _ANYBODY) -> ModelInfo:
        """One version; ForbiddenError where it is not `client`'s, ModelNotServedError names what
        is.
        """
        self.permit(client, name)
        return self.pool.model(name, version, client)

    async def signature(
        self,
        client: Client,
        name: str,
        version: str = "",
        request_id: str = "",
        *,
        deadline: float | None = None,
    ) -> ModelInfo:
        """Inputs and outputs of the version that would answer this request of `client`; one that
        was evicted is loaded again for it. ForbiddenError comes before anything is told.
        """
        try:
            self.permit(client, name)
        except ForbiddenError as error:  # `infer`, which counts refusals, is not reached
            if self.telemetry is not None:
                refused = self.telemetry.start(Request(name, {}, client=client))
                self.telemetry.finish(refused, error)
            raise
        if (route := self._route(client, name)) is not None:
            name, version = route.model or name, version or route.version
        return await self.pool.signature(name, version, client, request_id, deadline=deadline)

    def ready(self) -> bool:
        """True when accepting work: not starting, not draining."""
        return self.state == "ready"

    def statistics(self, info: ModelInfo) -> dict[str, Any]:
        """Counts and seconds of one version, as v2's statistics name them."""
        key = (info.name, info.version)
        return counted(info, [b.stats for *of, b in self.pool.batchers() if tuple(of) == key])

    async def load(self, name: str, path: str = "", version: str = "") -> ModelInfo:
        """Load from the model repository; the old version serves until the new one is ready."""
        return await self.pool.load(name, path, version)

    async def unload(self, name: str, version: str = "") -> None:
        """Stop serving, after what was accepted is answered."""
        await self.pool.unload(name, version)

    async def idle(self, timeout_s: float) -> bool:
        """Wait until nothing is being answered; False where that took too long."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.inflight:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def _infer(self, request: Request) -> Response:
        if not -100 <= request.priority <= 100:
            raise InvalidRequestError(
                "priority: allowed -100 to 100; found {found}.", found=request.priority
            )
        if self.guard is not None:
            self.guard.permit(request.client, request.model)
            self.guard.admit(request.client, nbytes(request))
        route = self._route(request.client, request.model)
        if self.routes is None or route is None:
            return await self._answer(request)
        with self.routes.admitted(route, request.client, nbytes(request)):
            return await self._answer(routed(request, route))

    def _route(self, client: Client, model: str) -> Route | None:
        if self.routes is None or not self.routes.table.rules:
            return None
        return self.routes.route(client, model)

    async def _answer(self, request: Request) -> Response:
        served = await self.pool.acquire(
            request.model, request.version, request.client, request.id, deadline=request.deadline
        )
        if self.cache is None:
            return await _run(served, request)
        kept = await self.cache.answer(
            key_of(served.info.digest, request), lambda: _run(served, request), request.deadline
        )
        kept.id = request.id
        return kept


async def _run(served: Served, request: Request) -> Response:
    outputs = await served.infer(request)
    info = served.info
    if request.outputs:
        outputs = chosen(request, outputs, info)
    return Response(info.name, info.version, outputs, request.id)


def counted(info: ModelInfo, stats: Sequence[BatchStats]) -> dict[str, Any]:
    """The counters of a version's batchers, in the words of v2's statistics."""
    failed = sum(s.failed for s in stats)
    answered = sum(s.requests for s in stats) - failed
    run_ns = int(sum(s.run_s for s in stats) * 1e9)
    return {
        "name": info.name,
        "version": info.version,
        "inference_count": sum(s.rows for s in stats),
        "execution_count": sum(s.batches for s in stats),
        "inference_stats": {
            "success": {"count": answered, "ns": run_ns},
            "fail": {"count": failed, "ns": 0},
            "compute_infer": {"count": answered, "ns": run_ns},
        },
        "padded_rows": sum(s.padded_rows for s in stats),
        "refused": sum(s.refused for s in stats),
        "dropped": sum(s.dropped for s in stats),
    }


def routed(request: Request, route: Route) -> Request:
    """`request` as its client's route says; only a version that it names itself comes first."""
    return replace(
        request,
        model=route.model or request.model,
        version=request.version or route.version or "",
        priority=route.priority or request.priority,
    )


def nbytes(request: Request) -> int:
    """Bytes of the input arrays."""
    return sum(getattr(value, "nbytes", 0) for value in request.inputs.values())


def chosen(request: Request, outputs: Mapping[str, Value], info: ModelInfo) -> dict[str, Value]:
    """Only the outputs asked for."""
    for name in request.outputs:
        if name not in outputs:
            if any(output.name == name for output in info.outputs):
                raise ExecutionError(
                    "The engine of model {model} gave no output {name!r}.",
                    model=info.name,
                    name=name[:100],
                )
            raise InvalidRequestError(
                "Model {model} has no output {name!r}; it gives {known}.",
                model=request.model,
                name=name[:100],
                known=", ".join(outputs),
            )
    return {name: outputs[name] for name in request.outputs}
