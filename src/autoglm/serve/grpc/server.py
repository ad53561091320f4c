"""One listening gRPC server: its services, its limits, its end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from autoglm.errors import ConfigError
from autoglm.serve.core import Gateway
from autoglm.serve.grpc import health, inference, oip
from autoglm.serve.grpc.calls import Terms, stream, unary
from autoglm.serve.options import Tls, TransportOptions, server_context
from autoglm.serve.proto.pool import POOL

TURN_AWAY_S = 0.25
COMPRESSION = {
    "none": grpc.Compression.NoCompression,
    "deflate": grpc.Compression.Deflate,
    "gzip": grpc.Compression.Gzip,
}


@dataclass(frozen=True, slots=True)
class GrpcOptions:
    """What only gRPC has. Requests may be compressed in any case; `compression` is of answers."""

    compression: str = "none"  # none | deflate | gzip
    stream_in_flight: int = 64  # requests of one stream that are answered at a time
    keepalive_s: float = 30.0  # a silent peer is asked, and dropped when it stays silent
    ping_interval_s: float = 10.0  # a client that asks more often is dropped
    max_streams: int = 1024  # open calls of one connection


class Listener:
    """Serves one gateway on one address."""

    def __init__(self, gateway: Gateway, options: Mapping[str, object]) -> None:
        shared, own = options.get("options"), options.get("grpc")
        self._shared = shared if isinstance(shared, TransportOptions) else TransportOptions()
        self._own = own if isinstance(own, GrpcOptions) else GrpcOptions()
        tls = self._shared.tls
        mutual = tls is not None and tls.client_ca is not None
        self._terms = Terms(gateway, asyncio.Event(), self._shared.max_bytes, mutual)
        self._server: grpc.aio.Server | None = None

    async def start(self, address: str) -> str:
        """Listen; the URL."""
        if self._own.compression not in COMPRESSION:
            raise ConfigError(
                "compression is one of {known}; found {found!r}.",
                known=", ".join(COMPRESSION),
                found=self._own.compression,
            )
        server = grpc.aio.server(
            options=channel_options(self._shared, self._own),
            compression=COMPRESSION[self._own.compression],
        )
        self._add_services(server)
        tls = self._shared.tls
        host = address.rpartition(":")[0] or "127.0.0.1"
        port = _bind(server, f"{host}:{address.rpartition(':')[2]}", tls)
        await server.start()
        self._server = server
        return f"{'grpcs' if tls else 'grpc'}://{host}:{port}"

    async def drain(self, timeout_s: float) -> None:
        """Say that we go, take no new calls, end streams, and answer what was accepted."""
        self._terms.draining.set()
        if self._server is not None:
            # gRPC answers CANCELLED to what arrives once it stops, which no client may send again;
            # for a moment we say UNAVAILABLE ourselves, so that clients turn away first.
            first = min(TURN_AWAY_S, timeout_s)
            await asyncio.sleep(first)
            await self._server.stop(timeout_s - first)

    async def stop(self) -> None:
        """Close every connection; may be called twice."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop(0)

    def _add_services(self, server: grpc.aio.Server) -> None:
        for service, methods in ((oip, oip.UNARY), (inference, inference.UNARY)):
            handlers = {name: unary(self._terms, answer) for name, answer in methods.items()}
            handlers |= self._streams(service.SERVICE)
            _add(server, service.SERVICE, handlers)
        names = (oip.SERVICE, inference.SERVICE)
        _add(server, health.SERVICE, health.handlers(self._terms, names))
        for file in (health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
            POOL.AddSerializedFile(file.serialized_pb)
        listed = (*names, health.SERVICE, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(listed, server, pool=POOL)

    def _streams(self, service: str) -> dict[str, grpc.RpcMethodHandler]:
        if service == oip.SERVICE:
            name, answer, refuse = "ModelStreamInfer", oip.stream_infer, oip.refuse
        else:
            name, answer, refuse = "InferStream", inference.infer, inference.refuse
        handler = stream(
            self._terms,
            answer,
            refuse,
            in_flight=self._own.stream_in_flight,
            # Triton's clients match answers to requests by their order.
            ordered=service == oip.SERVICE,
        )
        return {name: handler}


def channel_options(shared: TransportOptions, own: GrpcOptions) -> list[tuple[str, int]]:
    """The bounds as gRPC's core names them."""
    return [
        ("grpc.max_receive_message_length", 2 * shared.max_bytes + 65_536),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", own.max_streams),
        ("grpc.keepalive_time_ms", int(own.keepalive_s * 1000)),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", int(own.ping_interval_s * 1000)),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", int(own.ping_interval_s * 1000)),
        # A second server on the same port must fail, not take half of the connections.
        ("grpc.so_reuseport", 0),
    ]


def _add(
    server: grpc.aio.Server, service: str, handlers: Mapping[str, grpc.RpcMethodHandler]
) -> None:
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, dict(handlers)),)
    )


def _bind(server: grpc.aio.Server, address: str, tls: Tls | None) -> int:
    try:
        if tls is None:
            return int(server.add_insecure_port(address))
        return int(server.add_secure_port(address, _credentials(tls)))
    except RuntimeError as error:
        raise ConfigError(
            "gRPC cannot listen on {address}: {reason}.",
            hint="Choose a free port; 0 takes any.",
            address=address,
            reason=str(error)[:300],
        ) from error


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    server_context(tls, ["h2"])  # gRPC itself would say nothing about a file that is no PEM
    authority = tls.client_ca.read_bytes() if tls.client_ca else None
    return grpc.ssl_server_credentials(
        [(tls.key.read_bytes(), tls.certificate.read_bytes())],
        root_certificates=authority,
        require_client_auth=authority is not None,
    )
