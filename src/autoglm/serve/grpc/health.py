"""grpc.health.v1, for the server, each service and each model (`NAME`, or `NAME/VERSION`).

The answers are the gateway's own state. grpcio-health-checking brings the messages; its servicer
is not used, for it keeps a copy of the state, and its watchers lose each other when one leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2 as pb

from autoglm.errors import AutoGLMError, ModelNotServedError
from autoglm.serve.core import Client, Gateway
from autoglm.serve.grpc.calls import Call, Terms, abort
from autoglm.serve.proto import convert

SERVICE = "grpc.health.v1.Health"
LOOK_S = 0.25
_Status = pb.HealthCheckResponse


def status(gateway: Gateway, client: Client | None, name: str, draining: bool) -> int:
    """SERVING, NOT_SERVING, or SERVICE_UNKNOWN where nothing has that name. `client` asks for the
    model `name`, nobody in particular for the server (None). ForbiddenError where it is not its.
    """
    ready = True
    if client is not None:
        model, _, version = name.partition("/")
        gateway.permit(client, model)
        try:
            ready = gateway.model(model, version, client).state == "ready"
        except ModelNotServedError:
            return int(_Status.SERVICE_UNKNOWN)
    return int(
        _Status.SERVING if ready and gateway.ready() and not draining else _Status.NOT_SERVING
    )


def handlers(terms: Terms, services: Sequence[str]) -> dict[str, grpc.RpcMethodHandler]:
    """Check and Watch. The server and its services ask for no credentials, for a probe has none;
    a model is told of to a client that may use it, for its name alone says something.
    """

    async def look(raw: bytes, context: Any) -> int:
        try:
            name = convert.parse(raw, pb.HealthCheckRequest).service
            client = None if not name or name in services else Call(terms, context).client
            return status(terms.gateway, client, name, terms.draining.is_set())
        except AutoGLMError as error:
            await abort(context, error)

    async def check(raw: bytes, context: Any) -> bytes:
        found = await look(raw, context)
        if found == _Status.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "Nothing here has that name.")
        return _Status(status=found).SerializeToString()  # type: ignore[no-any-return]

    async def watch(raw: bytes, context: Any) -> None:
        last = None
        while True:
            found = await look(raw, context)
            if found != last:
                await context.write(_Status(status=found).SerializeToString())
                last = found
            if terms.draining.is_set():
                return
            await asyncio.sleep(LOOK_S)

    return {
        "Check": grpc.unary_unary_rpc_method_handler(check),
        "Watch": grpc.unary_stream_rpc_method_handler(watch),
    }
