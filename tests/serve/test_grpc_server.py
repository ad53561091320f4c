"""The server around the services: health, reflection, limits, TLS, its end."""

from __future__ import annotations

import asyncio
import datetime
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from serve.grpc_kit import SmallGateway, run, serving

from autoglm.errors import ConfigError
from autoglm.serve.grpc import Grpc
from autoglm.serve.grpc.server import GrpcOptions
from autoglm.serve.options import Tls, TransportOptions
from autoglm.serve.proto import infer_pb2 as pb

INFER = "/autoglm.v1.Inference/Infer"
Status = health_pb2.HealthCheckResponse


def question(model: str = "echo", rows: int = 1, request_id: str = "") -> bytes:
    """A request with `rows` zeros."""
    x = np.zeros(rows, np.float32)
    tensor = pb.Tensor(name="x", dtype="float32", shape=x.shape, raw=x.tobytes())
    return pb.InferRequest(model=model, id=request_id, inputs=[tensor]).SerializeToString()


def test_health_of_the_server_its_services_and_its_models() -> None:
    async def scenario(channel, gateway, _):
        gateway.states["slow"] = "loading"
        check = health_pb2_grpc.HealthStub(channel).Check

        async def of(name: str) -> int | grpc.StatusCode:
            try:
                return (await check(health_pb2.HealthCheckRequest(service=name))).status
            except grpc.aio.AioRpcError as error:
                return error.code()

        names = ("", "autoglm.v1.Inference", "mlp", "mlp/1", "slow", "no")
        return [await of(name) for name in names]

    assert run(scenario) == [
        *[Status.SERVING] * 4,
        Status.NOT_SERVING,
        grpc.StatusCode.NOT_FOUND,
    ]


def test_only_the_servers_own_health_is_told_to_somebody_unknown() -> None:
    async def scenario(channel, gateway, _):
        stub = health_pb2_grpc.HealthStub(channel)

        async def of(name: str, key: str = "", watch: bool = False) -> int | grpc.StatusCode:
            ask = health_pb2.HealthCheckRequest(service=name)
            said = (("authorization", f"Bearer {key}"),) if key else ()
            try:
                if watch:
                    return (await stub.Watch(ask, metadata=said).read()).status
                return (await stub.Check(ask, metadata=said)).status
            except grpc.aio.AioRpcError as error:
                return error.code()

        return (
            [await of(n, w) for n in ("", "autoglm.v1.Inference") for w in ("", "wrong")],
            [await of(n, watch=w) for n in ("mlp", "mlp/1", "no") for w in (False, True)],
            [await of(n, "secret") for n in ("mlp", "mlp/1", "no")],
        )

    server, unknown, known = run(scenario, SmallGateway(key="secret"))

    assert server == [Status.SERVING] * 4
    assert unknown == [grpc.StatusCode.UNAUTHENTICATED] * 6
    assert known == [Status.SERVING, Status.SERVING, grpc.StatusCode.NOT_FOUND]


def test_every_watcher_hears_of_a_change_when_another_has_left() -> None:
    async def scenario(channel, gateway, _):
        ask = health_pb2.HealthCheckRequest(service="mlp")
        first, second = (health_pb2_grpc.HealthStub(channel).Watch(ask) for _ in range(2))
        before = [(await watch.read()).status for watch in (first, second)]
        first.cancel()
        gateway.states["mlp"] = "unloading"
        return [*before, (await second.read()).status]

    assert run(scenario) == [Status.SERVING, Status.SERVING, Status.NOT_SERVING]


def test_a_client_that_knows_no_schema_calls_by_reflection() -> None:
    def by_reflection(address: str) -> tuple[list[str], list[str]]:
        with grpc.insecure_channel(address) as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            pool = DescriptorPool(database)
            methods = pool.FindServiceByName("inference.GRPCInferenceService").methods_by_name
            assert pool.FindMessageTypeByName("grpc.health.v1.HealthCheckRequest")
            assert "model" in pool.FindMessageTypeByName("autoglm.v1.InferRequest").fields_by_name
            return list(database.get_services()), list(methods)

    async def main() -> tuple[list[str], list[str]]:
        async with asyncio.timeout(60), serving(SmallGateway()) as (address, _):
            return await asyncio.to_thread(by_reflection, address)

    services, methods = asyncio.run(main())

    assert {"autoglm.v1.Inference", "inference.GRPCInferenceService"} <= set(services)
    assert {"ModelInfer", "RepositoryIndex", "ModelStreamInfer"} <= set(methods)


async def status_of(channel: grpc.aio.Channel, message: bytes) -> grpc.StatusCode:
    """How a call ends."""
    call = channel.unary_unary(INFER)(message, compression=grpc.Compression.Gzip)
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_a_message_over_the_limit_is_refused_also_where_it_comes_compressed() -> None:
    async def scenario(channel, gateway, _):
        over = await status_of(channel, question(rows=100_000))  # 400 kB that shrink to 500 bytes
        within = await status_of(channel, question(rows=1000))
        return over, within, len(gateway.seen)

    ended = run(scenario, options=TransportOptions(max_bytes=64 << 10))

    assert ended == (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OK, 1)


async def received(compression: str) -> int:
    """Bytes on the wire of an answer with 40 kB of zeros."""
    counted = 0

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        count = 0
        while data := await reader.read(65536):
            count += len(data)
            writer.write(data)
        writer.close()
        return count

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal counted
        there = await asyncio.open_connection(*address.split(":"))
        _, counted = await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))
        ended.set()

    ended = asyncio.Event()
    options = GrpcOptions(compression=compression)
    async with (
        asyncio.timeout(60),
        serving(SmallGateway(), grpc=options) as (address, _),
        await asyncio.start_server(relay, "127.0.0.1", 0) as between,
    ):
        port = between.sockets[0].getsockname()[1]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            raw = await channel.unary_unary(INFER)(question(rows=10_000))
        assert len(pb.InferResponse.FromString(raw).outputs[0].raw) == 40_000
        await ended.wait()
    return counted


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_answers_are_compressed_as_told(compression: str) -> None:
    assert asyncio.run(received(compression)) < 4_000
    assert asyncio.run(received("none")) > 40_000


def test_an_unknown_compression_is_told() -> None:
    with pytest.raises(ConfigError, match="none, deflate, gzip"):
        run(None, grpc=GrpcOptions(compression="zip"))


def test_a_port_that_is_taken_is_told() -> None:
    async def main() -> None:
        async with serving(SmallGateway()) as (address, _):
            await Grpc().start(SmallGateway(), address, {})

    with pytest.raises(ConfigError, match="cannot listen on"):
        asyncio.run(main())


def test_methods_that_are_not_there_are_unimplemented() -> None:
    async def scenario(channel, *_):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/autoglm.v1.Inference/Nothing")(b"")
        return caught.value.code()

    assert run(scenario) is grpc.StatusCode.UNIMPLEMENTED


def test_calls_that_are_reset_at_once_leave_nothing_behind() -> None:
    async def scenario(channel, gateway, _):
        infer = channel.unary_unary(INFER)
        for _ in range(10):
            calls = [infer(question("slow", request_id="7")) for _ in range(100)]
            await asyncio.sleep(0)
            for call in calls:
                call.cancel()
        answer = await infer(question())
        while gateway.dropped.qsize() < gateway.started.qsize():
            await asyncio.sleep(0.01)  # `run` bounds it
        return pb.InferResponse.FromString(answer)

    assert run(scenario).model == "echo"


def test_draining_answers_what_was_accepted_and_refuses_the_rest() -> None:
    async def scenario(channel, gateway, transport):
        call = channel.unary_unary(INFER)(question("slow", request_id="7"))
        stream = channel.stream_stream("/autoglm.v1.Inference/InferStream")()
        await stream.write(question("slow", request_id="8"))
        for _ in range(2):
            await gateway.started.get()
        draining = asyncio.create_task(transport.drain(30))
        late = await status_of(channel, question())
        gateway.release.set()
        accepted = pb.InferResponse.FromString(await call).id
        streamed = pb.InferResponse.FromString(await stream.read()).id
        ended = await stream.code()
        await draining
        await transport.stop()
        return accepted, streamed, late, ended

    accepted, streamed, late, ended = run(scenario)

    assert (accepted, streamed) == ("7", "8")
    assert (late, ended) == (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE)


def test_an_idle_stream_does_not_hold_up_the_drain() -> None:
    async def scenario(channel, gateway, transport):
        stream = channel.stream_stream("/autoglm.v1.Inference/InferStream")()
        await stream.write(question())
        await stream.read()
        await transport.drain(1000)
        return await stream.code()

    assert run(scenario) is grpc.StatusCode.UNAVAILABLE


def test_a_drain_ends_at_its_time_limit() -> None:
    async def scenario(channel, gateway, transport):
        call = channel.unary_unary(INFER)(question("slow", request_id="7"))
        await gateway.started.get()
        await transport.drain(0.2)
        return await gateway.dropped.get(), await call.code()

    dropped, code = run(scenario)

    assert dropped == "7"
    assert code is not grpc.StatusCode.OK


def certificate(folder: Path, name: str, signer: tuple | None = None) -> tuple:
    """A key and a certificate for `name`, signed by `signer` or by itself; files NAME.{pem,key}."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    issuer, issuer_key = signer or (subject, key)
    made = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    (folder / f"{name}.pem").write_bytes(made.public_bytes(encoding))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return subject, key


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a CA, a server and a client."""
    pytest.importorskip("cryptography", reason="cryptography is not installed")
    folder = tmp_path_factory.mktemp("keys")
    authority = certificate(folder, "ca")
    for name in ("server", "alice"):
        certificate(folder, name, authority)
    return folder


async def tls_call(keys: Path, client: str = "", *, mutual: bool) -> str:
    """Who the gateway took the caller for; the status where there was no answer."""
    files = Tls(keys / "server.pem", keys / "server.key", keys / "ca.pem" if mutual else None)
    pair = [(keys / f"{client}{end}").read_bytes() for end in (".key", ".pem")] if client else []
    trusted = grpc.ssl_channel_credentials((keys / "ca.pem").read_bytes(), *pair)
    gateway = SmallGateway()
    async with (
        asyncio.timeout(60),
        serving(gateway, options=TransportOptions(tls=files)) as (at, _),
    ):
        target = f"localhost:{at.rpartition(':')[2]}"
        async with grpc.aio.secure_channel(target, trusted) as channel:
            code = await status_of(channel, question())
    return gateway.seen[0].client.name if gateway.seen else code.name


def test_tls_and_mutual_tls(keys: Path) -> None:
    assert asyncio.run(tls_call(keys, mutual=False)) == "anonymous"
    assert asyncio.run(tls_call(keys, "alice", mutual=True)) == "CN=alice"
    assert asyncio.run(tls_call(keys, mutual=True)) == "UNAVAILABLE"


def test_a_certificate_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("nothing")
    tls = Tls(tmp_path / "bad.pem", tmp_path / "bad.pem")

    with pytest.raises(ConfigError, match="cannot be read"):
        run(None, options=TransportOptions(tls=tls))


def test_a_client_that_pings_too_often_is_dropped() -> None:
    async def main() -> str:
        pings = [
            ("grpc.keepalive_time_ms", 100),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
        ]
        gateway = SmallGateway()
        async with (
            asyncio.timeout(60),
            serving(gateway) as (address, _),
            grpc.aio.insecure_channel(address, options=pings) as channel,
        ):
            try:
                await channel.unary_unary(INFER)(question("slow", request_id="7"))
            except grpc.aio.AioRpcError as error:
                return error.details()
        return ""

    assert asyncio.run(main()).lower().replace("_", " ") == "too many pings"
