"""The MQTT transport through a real mosquitto, with mosquitto's own clients."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from serve.mosquitto import BINARY, MISSING, Mosquitto, free_port
from serve.small_gateway import SmallGateway

from autoglm.errors import ConfigError, ServeError
from autoglm.serve.mqtt import Mqtt
from autoglm.serve.proto import infer_pb2

pytestmark = pytest.mark.skipif(BINARY is None, reason=MISSING)
TOPIC = "autoglm/v1/twice/infer"
BODY = '{"data": [[1, 2]], "id": "a"}'


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path) as running:
        yield running


@pytest.fixture
def lasting(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path, persistence=True) as running:
        yield running


@asynccontextmanager
async def serving(
    broker: Mosquitto, gateway: SmallGateway, **options: object
) -> AsyncIterator[Mqtt]:
    transport = Mqtt()
    await transport.start(gateway, f"{broker.url}?{urlencode(options)}", {})  # type: ignore[arg-type]
    try:
        yield transport
    finally:
        await transport.stop()


async def command(broker: Mosquitto, *argv: str, stdin: bytes | None = None) -> str:
    """What one of mosquitto's clients prints."""
    process = await asyncio.create_subprocess_exec(
        argv[0], "-p", str(broker.port), *argv[1:], stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(stdin), 60)
    assert process.returncode == 0, err.decode()
    return out.decode().strip()


async def ask(
    broker: Mosquitto, body: str = BODY, *more: str, topic: str = TOPIC, qos: int = 1
) -> str:
    return await command(
        broker, "mosquitto_rr", "-V", "mqttv5", "-t", topic, "-e", "me/reply", "-q", str(qos),
        "-W", "50", "-m", body, *more,
    )  # fmt: skip


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a fact; a minute is enough for a busy machine."""
    limit = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < limit, "it did not come true in a minute"
        await asyncio.sleep(0.01)


async def status(broker: Mosquitto, client_id: str, state: str) -> None:
    """Wait for the retained status of a worker."""
    limit = time.monotonic() + 60
    found = ""
    while f'"{state}"' not in found:
        assert time.monotonic() < limit, f"status is {found}, expected {state}"
        found = await command(
            broker, "mosquitto_sub", "-t", f"autoglm/v1/status/{client_id}", "-C", "1", "-W", "50"
        )


class Listener:
    """A paho client in its own thread: publishes, and keeps the answers."""

    def __init__(self, broker: Mosquitto, reply: str, *, session_s: int = 600) -> None:
        from benchmarks.serving import mqtt as tools

        self._tools, self.reply = tools, reply
        self.answers: list[Any] = []
        self.subscribed = False
        self.taken = 0
        self._client = tools.paho(f"listener-{reply}")
        self._client.on_connect = lambda *_: self._client.subscribe(reply, 1)
        self._client.on_subscribe = self._on_subscribe
        self._client.on_publish = self._on_publish
        self._client.on_message = lambda _c, _d, message: self.answers.append(message)
        tools.connect(self._client, broker.port, session_s=session_s)
        self._client.loop_start()

    def _on_subscribe(self, *_: object) -> None:
        self.subscribed = True

    def _on_publish(self, *_: object) -> None:
        self.taken += 1

    def send(self, body: str, number: int, *, qos: int = 1) -> None:
        properties = self._tools.answer_properties(
            str(number).encode(), self.reply, "application/json"
        )
        self._client.publish(TOPIC, body.encode(), qos, False, properties)

    def numbers(self) -> list[int]:
        return sorted(int(message.properties.CorrelationData) for message in list(self.answers))

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@asynccontextmanager
async def listening(broker: Mosquitto, reply: str = "me/reply") -> AsyncIterator[Listener]:
    listener = Listener(broker, reply)
    try:
        await until(lambda: listener.subscribed)
        yield listener
    finally:
        await asyncio.to_thread(listener.close)


def run(body: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 200))  # type: ignore[arg-type]


@pytest.mark.parametrize("topic", [TOPIC, "autoglm/v1/twice/1/infer"])
@pytest.mark.parametrize("qos", [0, 1])
def test_mosquitto_rr_gets_the_envelope_with_its_correlation(
    broker: Mosquitto, topic: str, qos: int
) -> None:
    async def body() -> None:
        async with serving(broker, SmallGateway()):
            answer = await ask(
                broker, BODY, "-D", "publish", "correlation-data", "seven", "-F", "%q %D %C %p",
                topic=topic, qos=qos,
            )  # fmt: skip

            sent_qos, correlation, kind, payload = answer.split(" ", 3)
            assert (sent_qos, correlation, kind) == (str(qos), "seven", "application/json")
            assert json.loads(payload)["result"] == [[2.0, 4.0]]
            assert json.loads(payload)["status_code"] == 200
            assert json.loads(payload)["id"] == "a"

    run(body)


def test_protobuf_is_answered_in_protobuf(broker: Mosquitto) -> None:
    request = infer_pb2.InferRequest(id="b")
    request.inputs.add(name="x", dtype="float32", shape=[1, 2], raw=np.float32([[3, 4]]).tobytes())

    async def body() -> None:
        async with serving(broker, SmallGateway()), listening(broker) as listener:
            properties = listener._tools.answer_properties(
                b"1", listener.reply, "application/x-protobuf;proto=autoglm.v1.InferRequest"
            )
            listener._client.publish(TOPIC, request.SerializeToString(), 1, False, properties)
            await until(lambda: bool(listener.answers))

            (message,) = listener.answers
            answer = infer_pb2.InferResponse.FromString(message.payload)
            kind = message.properties.ContentType
            assert kind == "application/x-protobuf;proto=autoglm.v1.InferResponse"
            assert (answer.id, answer.model, answer.version) == ("b", "twice", "1")
            assert np.frombuffer(answer.outputs[0].raw, np.float32).tolist() == [6.0, 8.0]

    run(body)


@pytest.mark.parametrize("form", ["json", "protobuf"])
def test_a_311_client_names_its_reply_topic_in_the_payload(broker: Mosquitto, form: str) -> None:
    request = infer_pb2.InferRequest(reply_topic="old/reply", id="c")
    request.inputs.add(name="x", dtype="float32", shape=[1], raw=np.float32([5]).tobytes())
    text = json.dumps({"data": [[5]], "reply_topic": "old/reply", "id": "c"}).encode()
    payload = text if form == "json" else request.SerializeToString()

    async def body() -> None:
        async with serving(broker, SmallGateway()):
            old = ("mosquitto_sub", "-V", "mqttv311", "-c", "-i", "old", "-q", "1")
            where = ("-t", "old/reply")
            await command(broker, *old, *where, "-E")  # the session stays, subscribed
            await command(
                broker, "mosquitto_pub", "-V", "mqttv311", "-q", "1", "-t", TOPIC, "-s",
                stdin=payload,
            )  # fmt: skip
            raw = bytes.fromhex(
                await command(broker, *old, *where, "-C", "1", "-W", "50", "-N", "-F", "%x")
            )

            if form == "json":
                assert json.loads(raw)["result"] == [[10.0]]
                assert json.loads(raw)["id"] == "c"
            else:
                answer = infer_pb2.InferResponse.FromString(raw)
                assert np.frombuffer(answer.outputs[0].raw, np.float32).tolist() == [10.0]

    run(body)


FAULTS = [
    (TOPIC, "no json at all {", (), 400, "invalid-request"),
    (TOPIC, "[1, 2]", (), 400, "invalid-request"),
    (TOPIC, '{"data": ' + "[" * 5000 + "]" * 5000 + "}", (), 400, "invalid-request"),
    (TOPIC, '{"data": [[NaN]]}', (), 400, "invalid-request"),
    (TOPIC, '{"data": "' + "x" * 3000 + '"}', (), 413, "too-large"),
    (TOPIC, '{"data": [[1], [2, 3]]}', (), 400, "invalid-request"),
    (TOPIC, '{"data": [["one"]]}', (), 400, "invalid-request"),
    (TOPIC, '{"model_name": "other", "data": [[1]]}', (), 400, "invalid-request"),
    ("autoglm/v1/none/infer", BODY, (), 404, "model-not-served"),
    ("autoglm/v1/twice/9/infer", BODY, (), 404, "model-not-served"),
    (TOPIC, BODY, ("-D", "publish", "content-type", "image/png"), 415, "unsupported-type"),
]  # fmt: skip


@pytest.mark.parametrize(("topic", "payload", "more", "number", "code"), FAULTS)
def test_what_is_wrong_gets_one_clear_error(
    broker: Mosquitto, topic: str, payload: str, more: tuple[str, ...], number: int, code: str
) -> None:
    limit = {} if "[" * 50 in payload else {"max_bytes": 2000}

    async def body() -> None:
        async with serving(broker, SmallGateway(), **limit):
            found = json.loads(await ask(broker, payload, *more, topic=topic))

            assert (found["status_code"], found["code"]) == (number, code)
            assert found["message"]
            assert found["result"] is None
            assert json.loads(await ask(broker))["status_code"] == 200

    run(body)


def test_an_error_has_its_code_in_the_user_properties_too(broker: Mosquitto) -> None:
    async def body() -> None:
        async with serving(broker, SmallGateway()):
            answer = await ask(broker, BODY, "-F", "%P", topic="autoglm/v1/none/infer")

            assert "code:model-not-served" in answer
            assert "status-code:404" in answer

    run(body)


def test_an_error_of_a_protobuf_request_is_a_protobuf_error(broker: Mosquitto) -> None:
    async def body() -> None:
        async with serving(broker, SmallGateway()), listening(broker) as listener:
            kind = "application/x-protobuf"
            properties = listener._tools.answer_properties(b"1", listener.reply, kind)
            listener._client.publish(TOPIC, b"\xff" * 50, 1, False, properties)
            await until(lambda: bool(listener.answers))

            answer = infer_pb2.InferResponse.FromString(listener.answers[0].payload)
            assert (answer.error.code, answer.error.http_status) == ("invalid-request", 400)

    run(body)


@pytest.mark.parametrize("reply", ["", "autoglm/v1/twice/infer", "autoglm/v1/status/x"])
def test_without_a_fit_reply_topic_it_is_dropped_with_a_log_line(
    broker: Mosquitto, reply: str, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = SmallGateway()
    where = ("-D", "publish", "response-topic", reply) if reply else ()

    async def body() -> None:
        async with serving(broker, gateway):
            with caplog.at_level(logging.WARNING):
                await command(
                    broker, "mosquitto_pub", "-V", "mqttv5", "-q", "1", "-t", TOPIC, "-m", BODY,
                    *where,
                )  # fmt: skip
                assert json.loads(await ask(broker))["status_code"] == 200

            assert "no topic to answer on" in caplog.text
            assert len(gateway.asked) == 1

    run(body)


def test_expiry_trace_key_and_client_come_with_the_properties(broker: Mosquitto) -> None:
    gateway = SmallGateway(key="secret")
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    async def body() -> None:
        async with serving(broker, gateway):
            before = time.monotonic()
            answer = await ask(
                broker, BODY, "-F", "%P",
                "-D", "publish", "message-expiry-interval", "40",
                "-D", "publish", "user-property", "traceparent", trace,
                "-D", "publish", "user-property", "api-key", "secret",
                "-D", "publish", "user-property", "client-id", "camera-7",
            )  # fmt: skip

            (request,) = gateway.asked
            assert request.deadline is not None
            assert before + 30 < request.deadline <= time.monotonic() + 40
            assert request.traceparent == trace
            assert request.client.name == "camera-7"
            assert f"traceparent:{trace}" in answer

    run(body)


def test_without_a_key_there_is_a_401(broker: Mosquitto) -> None:
    async def body() -> None:
        async with serving(broker, SmallGateway(key="secret")):
            refused = json.loads(await ask(broker))
            taken = json.loads(await ask(broker, '{"data": [[1]], "authorization": "secret"}'))

            assert (refused["status_code"], refused["code"]) == (401, "unauthenticated")
            assert taken["status_code"] == 200

    run(body)


def test_two_workers_divide_the_requests(broker: Mosquitto) -> None:
    first, second = SmallGateway(), SmallGateway()

    async def body() -> None:
        async with serving(broker, first), serving(broker, second), listening(broker) as listener:
            for number in range(40):
                listener.send(BODY, number)
            await until(lambda: len(listener.answers) == 40)

            assert listener.numbers() == list(range(40))
            assert len(first.asked) + len(second.asked) == 40
            assert min(len(first.asked), len(second.asked)) >= 10

    run(body)


def test_the_broker_holds_back_what_is_over_the_receive_maximum(broker: Mosquitto) -> None:
    gateway = SmallGateway()
    gateway.hold = True

    async def body() -> None:
        async with serving(broker, gateway, receive_maximum=4), listening(broker) as listener:
            for number in range(20):
                listener.send(BODY, number)
            # QoS 0 is not held back, so when it is here, so is what came before it.
            listener.send(BODY, 20, qos=0)
            await until(lambda: len(gateway.asked) == 5)
            await until(lambda: listener.taken >= 20)
            assert len(gateway.asked) == 5

            gateway.release.set()
            await until(lambda: len(listener.answers) == 21)
            assert listener.numbers() == list(range(21))

    run(body)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_broker_without_memory_comes_back_and_the_worker_subscribes_again(
    broker: Mosquitto, how: signal.Signals
) -> None:
    async def body() -> None:
        async with serving(broker, SmallGateway(), client_id="w") as transport:
            assert json.loads(await ask(broker))["status_code"] == 200
            await asyncio.to_thread(broker.restart, how)
            await until(lambda: transport._link is not None and transport._link.connection == 2)
            await status(broker, "w", "online")

            assert json.loads(await ask(broker))["status_code"] == 200

    run(body)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_what_is_in_work_while_the_broker_restarts_is_run_once_and_answered_once(
    lasting: Mosquitto, how: signal.Signals
) -> None:
    gateway = SmallGateway()
    gateway.hold = True

    async def body() -> None:
        async with (
            serving(lasting, gateway, client_id="w") as transport,
            listening(lasting) as listener,
        ):
            for number in range(10):
                listener.send(BODY, number)
            await until(lambda: len(gateway.asked) == 10)
            await until(lambda: listener.taken == 10)
            await asyncio.to_thread(lasting.restart, how)
            await until(lambda: transport._link is not None and transport._link.connection == 2)
            gateway.release.set()
            await until(lambda: len(listener.answers) >= 10)
            await transport.drain(60)

            assert len(gateway.asked) == 10
            assert listener.numbers() == list(range(10))

    run(body)


def test_drain_answers_what_was_accepted_and_takes_no_more(broker: Mosquitto) -> None:
    gateway = SmallGateway()
    gateway.hold = True

    async def body() -> None:
        options = {"client_id": "w", "receive_maximum": 4}
        async with serving(broker, gateway, **options) as transport, listening(broker) as listener:
            for number in range(10):
                listener.send(BODY, number)
            await until(lambda: len(gateway.asked) == 4 and listener.taken == 10)
            draining = asyncio.create_task(transport.drain(60))
            await status(broker, "w", "draining")
            gateway.release.set()
            await draining
            await transport.stop()
            await until(lambda: len(listener.answers) == 10)

            assert listener.numbers() == list(range(10))
            await status(broker, "w", "offline")
            listener.send(BODY, 99)
            await until(lambda: listener.taken == 11)
            assert len(gateway.asked) == 10

    run(body)


def test_a_killed_worker_is_offline_and_its_successor_answers(lasting: Mosquitto) -> None:
    from benchmarks.serving import mqtt as tools

    async def body() -> None:
        worker = await asyncio.to_thread(tools.start, "worker", lasting.url, "worker-0")
        try:
            await status(lasting, "worker-0", "online")
            worker.kill()
            await status(lasting, "worker-0", "offline")
        finally:
            worker.kill()
            worker.wait()

        async with listening(lasting) as listener:
            for number in range(5):
                listener.send('{"data": [[1, 2]]}', number)
            await until(lambda: listener.taken == 5)
            assert not listener.answers
            async with serving(lasting, SmallGateway(), client_id="worker-0"):
                await until(lambda: len(listener.answers) == 5)
            assert listener.numbers() == list(range(5))

    run(body)


def test_an_answer_that_the_broker_does_not_take_becomes_an_error(tmp_path: Path) -> None:
    async def body() -> None:
        with Mosquitto(tmp_path, lines=("max_packet_size 20000",)) as broker:
            async with serving(broker, SmallGateway()):
                row = f'{{"data": [[{",".join("1" * 7000)}]]}}'  # "1" is answered by "2.0"
                found = json.loads(await ask(broker, row))

                assert (found["status_code"], found["code"]) == (413, "too-large")
                assert json.loads(await ask(broker))["status_code"] == 200

    run(body)


def test_a_broker_that_sends_nonsense_is_left_and_tried_again() -> None:
    connections = 0

    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.read(1000)  # CONNECT
        writer.write(bytes.fromhex("2003000000"))  # CONNACK
        subscribe = await reader.read(1000)
        writer.write(b"\x90\x05" + subscribe[2:4] + b"\x00\x01\x01")  # SUBACK
        writer.write(bytes.fromhex("3208000174000102ffff"))  # PUBLISH, property 255
        await writer.drain()
        await reader.read(1000)
        await reader.read()

    async def body() -> None:
        server = await asyncio.start_server(nonsense, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        transport = Mqtt()
        await transport.start(SmallGateway(), f"mqtt://127.0.0.1:{port}", {})  # type: ignore[arg-type]
        await until(lambda: connections >= 3)
        await transport.stop()
        server.close()

    run(body)


def test_tls_with_user_and_password(tmp_path: Path) -> None:
    from serve.certificates import self_signed

    certificate, key = self_signed(tmp_path)
    passwords = tmp_path / "passwords"
    passwords.touch(mode=0o600)

    async def body() -> None:
        made = await asyncio.create_subprocess_exec(
            "mosquitto_passwd", "-b", str(passwords), "robot", "p@ss"
        )
        assert await made.wait() == 0
        lines = (
            f"certfile {certificate}", f"keyfile {key}", f"cafile {certificate}",
            f"password_file {passwords}", "allow_anonymous false",
        )  # fmt: skip
        with Mosquitto(tmp_path, lines=lines) as broker:
            transport = Mqtt()
            address = f"mqtts://robot:p%40ss@localhost:{broker.port}?ca={certificate}"
            shown = await transport.start(SmallGateway(), address, {})  # type: ignore[arg-type]
            try:
                secure = ("--cafile", str(certificate), "-h", "localhost")
                answer = await ask(broker, BODY, *secure, "-u", "robot", "-P", "p@ss")
                assert json.loads(answer)["status_code"] == 200
                assert "p@ss" not in shown
                assert "p%40ss" not in shown
            finally:
                await transport.stop()

            with pytest.raises(ServeError, match="refuses client") as refused:
                await Mqtt().start(
                    SmallGateway(),  # type: ignore[arg-type]
                    f"mqtts://robot:wrong@localhost:{broker.port}?ca={certificate}",
                    {},
                )
            assert "wrong" not in str(refused.value)

    run(body)


def test_mutual_tls(tmp_path: Path) -> None:
    from serve.certificates import self_signed

    certificate, key = self_signed(tmp_path)
    lines = (
        f"certfile {certificate}", f"keyfile {key}", f"cafile {certificate}",
        "require_certificate true",
    )  # fmt: skip

    async def body() -> None:
        with Mosquitto(tmp_path, lines=lines) as broker:
            address = f"mqtts://localhost:{broker.port}?ca={certificate}&connect_timeout_s=20"
            with pytest.raises(ServeError, match="does not answer"):
                await Mqtt().start(SmallGateway(), address, {})  # type: ignore[arg-type]
            transport = Mqtt()
            shown = f"{address}&cert={certificate}&key={key}&client_id=w"
            await transport.start(SmallGateway(), shown, {})  # type: ignore[arg-type]
            try:
                secure = ("--cafile", str(certificate), "-h", "localhost")
                mine = ("--cert", str(certificate), "--key", str(key))
                assert json.loads(await ask(broker, BODY, *secure, *mine))["status_code"] == 200
            finally:
                await transport.stop()

    run(body)


def test_a_flood_of_qos_0_is_answered_with_overloaded(broker: Mosquitto) -> None:
    gateway = SmallGateway()
    gateway.hold = True

    async def body() -> None:
        async with serving(broker, gateway, receive_maximum=1), listening(broker) as listener:
            for number in range(6):
                listener.send(BODY, number, qos=0)
            await until(lambda: len(listener.answers) == 2)
            found = [json.loads(message.payload) for message in listener.answers]
            assert [answer["code"] for answer in found] == ["overloaded"] * 2
            assert found[0]["retry_after_s"] == 1

            gateway.release.set()
            await until(lambda: len(listener.answers) == 6)
            assert listener.numbers() == list(range(6))

    run(body)


def test_two_workers_of_one_id_slow_down_and_the_log_says_why(
    broker: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def body() -> None:
        async with (
            serving(broker, SmallGateway(), client_id="w") as first,
            serving(broker, SmallGateway(), client_id="w"),
        ):
            assert first._link is not None
            await until(lambda: first._link is not None and first._link._pause_s > 0.3)
            assert "another client of the id w" in caplog.text

    run(body)


def test_a_broker_that_is_not_there_is_one_clear_error() -> None:
    async def body() -> None:
        with pytest.raises(ServeError, match="does not answer"):
            await Mqtt().start(SmallGateway(), f"mqtt://127.0.0.1:{free_port()}", {})  # type: ignore[arg-type]

    run(body)


@pytest.mark.parametrize(
    "address", ["", "broker", "http://h:1", "mqtt://", "mqtt://h:99999", "mqtt://h/x"]
)
def test_a_wrong_address_says_how_to_write_it(address: str) -> None:
    async def body() -> None:
        with pytest.raises(ConfigError, match="no address of an MQTT broker"):
            await Mqtt().start(SmallGateway(), address, {})  # type: ignore[arg-type]

    run(body)


@pytest.mark.parametrize(
    "query",
    ["nonsense=1", "group=a/b", "prefix=a/%23", "receive_maximum=0", "client_id=$x",
     "keepalive_s=soon", "prefix=a//b"],
)  # fmt: skip
def test_a_wrong_option_says_what_is_allowed(query: str) -> None:
    async def body() -> None:
        with pytest.raises(ConfigError, match="MQTT"):
            await Mqtt().start(SmallGateway(), f"mqtt://127.0.0.1?{query}", {})  # type: ignore[arg-type]

    run(body)


def test_nagle_is_off_on_the_connection(broker: Mosquitto) -> None:
    async def body() -> None:
        async with serving(broker, SmallGateway()) as transport:
            assert transport._link is not None
            sock = transport._link._client.socket()

            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1

    run(body)
