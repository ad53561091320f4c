"""MQTT: what the transport adds to a broker's own round trip, and whether anything is ever lost.

    python -m benchmarks.serving.mqtt latency [--concurrency 1,16,64] [--seconds 5]
    python -m benchmarks.serving.mqtt faults [--requests 10000]

`latency` sends the same messages with the same client to an echo worker (paho, plain callbacks) and
to the transport with a small MLP, in turn, through one mosquitto. `faults` restarts the broker by
SIGKILL and by SIGTERM and kills a worker while QoS 1 requests are under way. Each worker is a
process of its own. Both print JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.serve.mosquitto import Mosquitto

MODEL = "mlp"
TOPIC = f"autoglm/v1/{MODEL}/infer"
ECHO = "echo/infer"
RETRY_S = 10.0  # a client asks again after so long, with the same correlation data
SETTLE_S = 3.0  # in which a second answer would come


# --- the worker processes ------------------------------------------------------------------------


class Mlp:
    """A gateway around one 128 -> 10 layer of ones: each output is the sum of the inputs."""

    def __init__(self) -> None:
        from autoglm.serve.core import ModelInfo
        from autoglm.spec import TensorInfo

        self.weights = np.ones((128, 10), np.float32)
        self.info = ModelInfo(
            MODEL,
            "1",
            (TensorInfo("x", "float32", (None, 128)),),
            (TensorInfo("y", "float32", (None, 10)),),
            "ready",
        )

    async def infer(self, request: Any) -> Any:
        from autoglm.serve.core import Response

        return Response(MODEL, "1", {"y": request.inputs["x"] @ self.weights}, request.id)

    def authenticate(self, credentials: Any) -> Any:
        from autoglm.serve.core import Client

        return Client("anonymous", credentials)

    def signature(self, name: str, version: str = "") -> Any:
        return self.info


async def serve(url: str, client_id: str) -> None:
    """One worker of the transport, until SIGTERM; then it drains."""
    from autoglm.serve.mqtt import Mqtt

    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    transport = Mqtt()
    await transport.start(Mlp(), f"{url}?client_id={client_id}", {})  # type: ignore[arg-type]
    print("ready", flush=True)
    await ended.wait()
    await transport.drain(10)
    await transport.stop()


def echo(port: int) -> None:
    """The payload back, with its correlation data: a broker's own round trip."""
    client = paho("echo")

    def on_message(_client: Any, _data: Any, message: Any) -> None:
        properties = answer_properties(message.properties.CorrelationData)
        client.publish(
            message.properties.ResponseTopic, message.payload, message.qos, False, properties
        )

    client.on_message = on_message
    client.on_connect = lambda *_: client.subscribe(f"$share/echo/{ECHO}", 1)
    client.on_subscribe = lambda *_: print("ready", flush=True)
    connect(client, port)
    client.loop_forever()


@contextmanager
def process(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """This module as a worker, ready."""
    child = start(*arguments)
    try:
        yield child
    finally:
        child.terminate()
        child.wait(30)


def start(*arguments: str) -> subprocess.Popen[bytes]:
    """Start a worker and wait until it says that it is ready."""
    child = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.serving.mqtt", *arguments],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert child.stdout is not None
    if child.stdout.readline().strip() != b"ready":
        raise RuntimeError(f"the worker does not start: {arguments}")
    return child


# --- the client ----------------------------------------------------------------------------------


def paho(name: str) -> Any:
    """A client that reconnects at once, with Nagle's algorithm off."""
    from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv5

    client = Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=MQTTv5)
    client.max_inflight_messages_set(0)
    client.reconnect_delay_set(1, 1)
    client.on_socket_open = lambda _c, _d, sock: sock.setsockopt(
        socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
    )
    return client


def connect(client: Any, port: int, *, session_s: int = 0) -> None:
    """Connect; with `session_s` the broker keeps our answers while we are away."""
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = session_s
    properties.ReceiveMaximum = 65535
    client.connect("127.0.0.1", port, 30, clean_start=False, properties=properties)


def answer_properties(correlation: bytes, reply: str = "", content_type: str = "") -> Any:
    """The properties of a question, or of an echo."""
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    made = Properties(PacketTypes.PUBLISH)
    made.CorrelationData = correlation
    if reply:
        made.ResponseTopic = reply
        made.ContentType = content_type
    return made


def question(first: float) -> bytes:
    """One InferRequest of 128 floats, the first of them `first`: 512 bytes and a little."""
    from autoglm.serve.proto import infer_pb2

    row = np.zeros((1, 128), np.float32)
    row[0, 0] = first
    message = infer_pb2.InferRequest(model=MODEL)
    message.inputs.add(name="x", dtype="float32", shape=row.shape, raw=row.tobytes())
    raw: bytes = message.SerializeToString()
    return raw


@dataclass
class Asked:
    """One question: how often it was sent, and each answer as (right, DUP flag)."""

    sent_at: float
    times: int = 1
    answers: list[tuple[bool, bool]] = field(default_factory=list)
    handed_on: int = 0  # to who asked: the first answer to a question that is open


class Requester:
    """Keeps `concurrency` questions under way; asks again where no answer comes."""

    def __init__(self, port: int, topic: str, *, concurrency: int, session_s: int = 0) -> None:
        self._reply = f"bench/{os.getpid()}/{topic.replace('/', '-')}"
        self._topic, self._concurrency = topic, concurrency
        self._wake = threading.Condition()
        self.asked: dict[int, Asked] = {}
        self.latencies: list[float] = []
        self.open: set[int] = set()
        subscribed = threading.Event()
        self._client = paho(f"requester-{os.getpid()}-{topic.replace('/', '-')}")
        self._client.on_connect = lambda *_: self._client.subscribe(self._reply, 1)
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.on_message = self._arrived
        connect(self._client, port, session_s=session_s)
        self._client.loop_start()
        assert subscribed.wait(30), "the requester is not subscribed"

    def close(self) -> None:
        """Leave."""
        self._client.disconnect()
        self._client.loop_stop()

    def ask(self, number: int) -> None:
        """Send question `number`, as soon as fewer than `concurrency` are under way."""
        with self._wake:
            while len(self.open) >= self._concurrency:
                self._wake.wait(0.5)
                self._ask_again()
            self.open.add(number)
            self.asked[number] = Asked(time.perf_counter())
        self._send(number)

    def finish(self, timeout_s: float) -> None:
        """Wait for the answers that are missing."""
        until = time.monotonic() + timeout_s
        with self._wake:
            while self.open and time.monotonic() < until:
                self._wake.wait(0.5)
                self._ask_again()

    def _send(self, number: int) -> None:
        properties = answer_properties(
            str(number).encode(),
            self._reply,
            "application/x-protobuf;proto=autoglm.v1.InferRequest",
        )
        self._client.publish(self._topic, question(float(number)), 1, False, properties)

    def _ask_again(self) -> None:
        now = time.perf_counter()
        for number in list(self.open):
            asked = self.asked[number]
            if now - asked.sent_at > RETRY_S:
                asked.sent_at, asked.times = now, asked.times + 1
                self._send(number)

    def _arrived(self, _client: Any, _data: Any, message: Any) -> None:
        now = time.perf_counter()
        number = int(message.properties.CorrelationData)
        right = self._topic == ECHO or _first(message.payload) == float(number)
        with self._wake:
            asked = self.asked[number]
            asked.answers.append((right, bool(message.dup)))
            if number in self.open:
                self.open.discard(number)
                asked.handed_on += 1
                self.latencies.append(now - asked.sent_at)
                self._wake.notify()


def _first(payload: bytes) -> float:
    from autoglm.serve.proto import infer_pb2

    answer = infer_pb2.InferResponse.FromString(payload)
    if answer.HasField("error"):
        return float("nan")
    return float(np.frombuffer(answer.outputs[0].raw, np.float32)[0])


# --- the two measurements ------------------------------------------------------------------------


def faults(requests: int, folder: Path, *, concurrency: int = 32) -> dict[str, Any]:
    """Ask `requests` times through two broker restarts and the death of a worker; count answers."""
    broker = Mosquitto(folder, persistence=True)
    broker.start()
    workers = [start("worker", broker.url, f"worker-{i}") for i in range(2)]
    requester = Requester(broker.port, TOPIC, concurrency=concurrency, session_s=600)

    def kill_worker() -> None:
        workers[0].kill()
        workers[0].wait()
        workers[0] = start("worker", broker.url, "worker-0")

    events = {
        requests // 4: lambda: broker.restart(signal.SIGKILL),
        requests // 2: kill_worker,
        requests * 3 // 4: lambda: broker.restart(signal.SIGTERM),
    }
    try:
        running: list[threading.Thread] = []
        for number in range(requests):
            if number in events:
                running.append(threading.Thread(target=events[number]))
                running[-1].start()
            requester.ask(number)
        for thread in running:
            thread.join(60)
        requester.finish(120)
        time.sleep(SETTLE_S)
    finally:
        requester.close()
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait(30)
        broker.stop()
    return counted(requester.asked)


def counted(asked: dict[int, Asked]) -> dict[str, Any]:
    """What became of the questions.

    `duplicated` are second answers to a question that was asked once and that the broker did not
    mark as its own repetition; the other two kinds are what QoS 1 means, and are counted apart.
    `handed_on_once` are those whose asker got one answer, as the Correlation Data let it tell.
    """
    twice = [a for a in asked.values() if len(a.answers) > 1]
    return {
        "requests": len(asked),
        "lost": sum(not a.answers for a in asked.values()),
        "handed_on_once": sum(a.handed_on == 1 for a in asked.values()),
        "wrong": sum(not right for a in asked.values() for right, _ in a.answers),
        "duplicated": sum(sum(not dup for _, dup in a.answers) > 1 for a in twice if a.times == 1),
        "asked_again": sum(a.times > 1 for a in asked.values()),
        "asked_again_and_answered_again": sum(a.times > 1 for a in twice),
        "repeated_by_broker": sum(sum(dup for _, dup in a.answers) for a in twice if a.times == 1),
    }


def latency(concurrencies: list[int], seconds: float, rounds: int) -> dict[str, Any]:
    """Median and 99th percentile of echo and transport, in turn, in milliseconds."""
    found: dict[str, Any] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        Mosquitto(Path(folder)) as broker,
        process("echo", str(broker.port)),
        process("worker", broker.url, "worker-0"),
    ):
        for concurrency in concurrencies:
            rows: dict[str, list[dict[str, float]]] = {"echo": [], "autoglm": []}
            for _ in range(rounds):
                for name, topic in (("echo", ECHO), ("autoglm", TOPIC)):
                    rows[name].append(_one_pass(broker, topic, concurrency, seconds))
            ratio = statistics.median(
                b["p50_ms"] / a["p50_ms"] for a, b in zip(*rows.values(), strict=True)
            )
            found[f"c{concurrency}"] = {**rows, "p50_ratio": round(ratio, 3)}
    return found


def _one_pass(broker: Mosquitto, topic: str, concurrency: int, seconds: float) -> dict[str, float]:
    requester = Requester(broker.port, topic, concurrency=concurrency)
    begin, cpu = time.perf_counter(), broker.cpu_s()
    for number in itertools.count():
        requester.ask(number)
        if time.perf_counter() - begin > seconds:
            break
    requester.finish(30)
    spent = time.perf_counter() - begin
    requester.close()
    ordered = sorted(requester.latencies[len(requester.latencies) // 10 :])
    return {
        "requests_per_s": round(len(requester.asked) / spent, 1),
        "p50_ms": round(1e3 * ordered[len(ordered) // 2], 3),
        "p99_ms": round(1e3 * ordered[int(len(ordered) * 0.99)], 3),
        "broker_us": round(1e6 * (broker.cpu_s() - cpu) / len(requester.asked), 1),
    }


def main() -> None:
    """The command line above; `worker` and `echo` are the processes that it starts."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("latency")
    command.add_argument("--concurrency", default="1,16,64")
    command.add_argument("--seconds", type=float, default=5.0)
    command.add_argument("--rounds", type=int, default=3)
    command = commands.add_parser("faults")
    command.add_argument("--requests", type=int, default=10_000)
    command = commands.add_parser("worker")
    command.add_argument("url")
    command.add_argument("client_id")
    command = commands.add_parser("echo")
    command.add_argument("port", type=int)
    chosen = parser.parse_args()
    if chosen.command == "worker":
        asyncio.run(serve(chosen.url, chosen.client_id))
    elif chosen.command == "echo":
        echo(chosen.port)
    elif chosen.command == "faults":
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(faults(chosen.requests, Path(folder)), indent=1))
    else:
        levels = [int(level) for level in chosen.concurrency.split(",")]
        print(json.dumps(latency(levels, chosen.seconds, chosen.rounds), indent=1))


if __name__ == "__main__":
    main()
