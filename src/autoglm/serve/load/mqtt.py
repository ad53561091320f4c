"""`autoglm.v1` over MQTT 5: QoS 1, Response Topic, Correlation Data, one connection."""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from autoglm.serve.load.answers import Headers, Judge, Outputs, Signature
from autoglm.serve.load.refusal import no_server, refused
from autoglm.serve.load.tally import CONNECTION, DIFFERENT, TIMEOUT, Load, Tally
from autoglm.serve.load.target import Target
from autoglm.serve.mqtt.address import Broker, parse_address, parse_options
from autoglm.serve.mqtt.wire import REQUEST_TYPE
from autoglm.serve.proto import convert, tensors
from autoglm.serve.proto import infer_pb2 as pb
from autoglm.spec import Value

_NOBODY = 0x10  # MQTT 5, 3.4.2.1: the broker took it, and nobody subscribes to the topic
_TICK_S = 0.05
_CONNECT_S = 10.0


class Mqtt:
    """One model behind one broker."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._options = parse_options(target.url)
        version = f"/{target.version}" if target.version else ""
        self.topic = f"{self._options.prefix}/{target.model}{version}/infer"
        self._question = b""
        self._judge: Judge | None = None

    def models(self) -> Sequence[str]:
        """(): MQTT has no question for it."""
        return ()

    def signature(self) -> Signature | None:
        """None: MQTT has no question for it."""
        return None

    def first(self, inputs: Mapping[str, Value], told: Signature | None) -> Outputs:
        """Ask once; its answer is what all others are compared with."""
        self._question = question(self.target, inputs)
        run = _Run(self, Tally(0.0), self._question)
        answers: list[bytes] = []
        run.settle = lambda payload, _: answers.append(payload)
        with self._connected(run):
            run.tally.start()
            run.ask()
            run.work()
        if not answers:
            fault = next(iter(run.tally.faults.values()), None)
            raise no_server(self.target.shown, fault.message if fault else "nothing came back")
        if error := _error(answers[0]):
            raise refused(
                self.target.shown, error.http_status, error.code, error.message, error.hint
            )
        self._judge = Judge(read_answer, answers[0])
        return self._judge.outputs

    def press(self, concurrency: int, seconds: float) -> Load:
        """Keep so many questions under way for so long."""
        tally = Tally(seconds)
        run = _Run(self, tally, self._question)
        run.judge = self._judge
        with self._connected(run):
            tally.start()
            for _ in range(concurrency):
                run.ask()
            run.work()
        return tally.load(concurrency)

    @contextlib.contextmanager
    def _connected(self, run: _Run) -> Iterator[None]:
        broker, client = parse_address(self.target.url), None
        try:
            client = self._client(broker)
            run.attach(client)
            client.connect(broker.host, broker.port, self._options.keepalive_s)
            until = time.monotonic() + _CONNECT_S
            while not run.ready:
                if client.loop(_TICK_S) or run.refused or time.monotonic() > until:
                    raise ConnectionError(run.refused or "the broker closed the connection")
            yield
        except (OSError, ValueError) as error:
            raise no_server(self.target.shown, str(error) or type(error).__name__) from error
        finally:
            if client is not None:
                client.disconnect()

    def _client(self, broker: Broker) -> Any:
        from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv5

        made = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5, reconnect_on_failure=False)
        made.max_inflight_messages_set(0)  # the window is ours: it is the broker's, known later
        made.connect_timeout = _CONNECT_S
        made.on_socket_open = _no_delay
        if broker.username:
            made.username_pw_set(broker.username, broker.password)
        if broker.tls:
            ca = str(self.target.ca) if self.target.ca else self._options.ca or None
            made.tls_set(ca, self._options.cert or None, self._options.key or None)
        return made


class _Run:
    """The questions under way on one connection."""

    def __init__(self, wire: Mqtt, tally: Tally, question: bytes) -> None:
        self._wire, self.tally, self._question = wire, tally, question
        self.judge: Judge | None = None
        self.settle: Callable[[bytes, float], None] = self._settle
        self.ready, self.refused = False, ""
        self._reply = f"autoglm-bench/{secrets.token_hex(8)}"
        self._open: dict[bytes, float] = {}  # correlation -> when it was asked
        self._sent: dict[int, bytes] = {}  # packet number -> correlation
        self._held: deque[bytes] = deque()  # correlations of what the broker does not take yet
        self._window = 65_535
        self._next = self._waiting = 0
        self._client: Any = None

    def attach(self, client: Any) -> None:
        """Listen on this connection."""
        self._client = client
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish

    def ask(self) -> None:
        """Send one question."""
        self._next += 1
        correlation = b"%d" % self._next
        self.tally.sent += len(self._question)
        self._open[correlation] = time.perf_counter()
        self._held.append(correlation)
        self._pump()

    def work(self) -> None:
        """Read and ask again until the end, and until nothing is under way."""
        look = now = time.perf_counter()
        while self._open or (self._waiting and now < self.tally.end):
            if self._client.loop(_TICK_S):
                self._fail(list(self._open), CONNECTION, "the broker closed the connection")
                return
            if (now := time.perf_counter()) - look > _TICK_S:
                look = now
                self._look(now)

    def _pump(self) -> None:
        """Send as many as the broker takes before it acknowledges one."""
        while self._held and len(self._sent) < self._window:
            correlation = self._held.popleft()
            said = self._properties(correlation)
            sent = self._client.publish(self._wire.topic, self._question, 1, False, said)
            self._sent[sent.mid] = correlation

    def _look(self, now: float) -> None:
        """Give up what is not answered in time, and ask again for what failed."""
        late = [c for c, left in self._open.items() if left < now - self._wire.target.timeout_s]
        self._fail(late, TIMEOUT, f"no answer in {self._wire.target.timeout_s:g} s")
        again, self._waiting = self._waiting, 0
        for _ in range(again if now < self.tally.end else 0):
            self.ask()

    def _on_connect(self, client: Any, _data: Any, _flags: Any, reason: Any, given: Any) -> None:
        if reason.is_failure:
            self.refused = f"the broker says: {reason}"
        else:
            self._window = getattr(given, "ReceiveMaximum", 65_535)
            client.subscribe(self._reply, 1)

    def _on_subscribe(self, _c: Any, _data: Any, _mid: int, reasons: Any, _props: Any) -> None:
        failed = [str(reason) for reason in reasons if reason.is_failure]
        self.refused = f"the broker says of {self._reply}: {failed[0]}" if failed else ""
        self.ready = not failed

    def _on_publish(self, _client: Any, _data: Any, mid: int, reason: Any, _props: Any) -> None:
        correlation = self._sent.pop(mid, b"")
        if correlation in self._open and (reason.is_failure or reason.value == _NOBODY):
            why = f"the broker says of {self._wire.topic}: {reason}"
            self._fail([correlation], CONNECTION, why)
        self._pump()

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        now = time.perf_counter()
        left = self._open.pop(bytes(getattr(message.properties, "CorrelationData", b"")), None)
        if left is None:  # given up, or given twice
            return
        self.tally.received += len(message.payload)
        self.settle(message.payload, now - left)
        if now < self.tally.end:
            self.ask()

    def _settle(self, payload: bytes, took: float) -> None:
        judge = self.judge
        assert judge is not None, "first() comes first"
        if payload == judge.body:
            self.tally.latencies.append(took)
        elif error := _error(payload):
            self.tally.fault(f"{error.http_status} {error.code}", error.message)
        elif apart := judge.difference(payload):
            self.tally.fault(DIFFERENT, apart)
        else:
            self.tally.latencies.append(took)

    def _fail(self, correlations: list[bytes], code: str, message: str) -> None:
        for correlation in correlations:
            del self._open[correlation]
            self.tally.fault(code, message)
            self._waiting += 1

    def _properties(self, correlation: bytes) -> Any:
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        made = Properties(PacketTypes.PUBLISH)
        made.ResponseTopic = self._reply
        made.CorrelationData = correlation
        made.ContentType = REQUEST_TYPE
        if key := self._wire.target.api_key:
            made.UserProperty = ("authorization", f"Bearer {key}")
        return made


def question(target: Target, inputs: Mapping[str, Value]) -> bytes:
    """An InferRequest with raw tensors."""
    message = pb.InferRequest(model=target.model, version=target.version, id="bench")
    for name, value in inputs.items():
        dtype, shape, raw = tensors.encode(value)
        message.inputs.add(name=name, dtype=dtype, shape=shape, raw=raw)
    encoded: bytes = message.SerializeToString()
    return encoded


def read_answer(raw: bytes, _: Headers) -> Outputs:
    """The outputs of an InferResponse."""
    return {t.name: convert.to_value(t) for t in pb.InferResponse.FromString(raw).outputs}


def _error(raw: bytes) -> Any:
    """The error in an InferResponse; None where there is none, or where it is no InferResponse."""
    from google.protobuf.message import DecodeError

    try:
        message = pb.InferResponse.FromString(raw)
    except DecodeError:
        return None
    return message.error if message.HasField("error") else None


def _no_delay(_client: Any, _data: Any, sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
