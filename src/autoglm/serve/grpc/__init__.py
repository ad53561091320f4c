"""gRPC: the Open Inference Protocol, and our own service with streaming."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from autoglm.serve.listening import Listening
from autoglm.spec import API_VERSION

if TYPE_CHECKING:
    from autoglm.serve.core import Gateway
    from autoglm.serve.grpc.server import Listener


class Grpc(Listening):
    """The transport `grpc`; takes `options` (TransportOptions) and `grpc` (GrpcOptions)."""

    name = "grpc"
    api_version = API_VERSION

    def listener(self, gateway: Gateway, options: Mapping[str, object]) -> Listener:
        """grpc.aio's server."""
        from autoglm.serve.grpc.server import Listener

        return Listener(gateway, options)
