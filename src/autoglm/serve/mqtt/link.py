"""One connection to a broker, driven by the asyncio loop: paho's client without its threads.

It connects, subscribes, resumes after a loss, and hands over each message; it knows no request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from autoglm.errors import ServeError
from autoglm.serve.mqtt.address import Broker, Options

log = logging.getLogger(__name__)
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 5.0  # between attempts to connect
_PUBLISH, _DISCONNECT = 0x30, 0xE0
_ENOUGH = 256 << 10  # bytes: paho copies what is left of a packet each time that it sends a part
_DOWN = (OSError, TimeoutError, ValueError)  # what paho raises where no connection is made


@dataclass(slots=True)
class Receipt:
    """A message that the broker keeps until it is acknowledged."""

    mid: int
    connection: int
    what: object = None  # tells a message from another of the same number
    done: bool = False


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to send, and the one whose answer it is."""

    topic: str
    payload: bytes
    qos: int
    retain: bool = False
    properties: Any = None
    receipt: Receipt | None = None


class Link:
    """A connection that comes back by itself; `connection` counts how often."""

    def __init__(
        self,
        broker: Broker,
        options: Options,
        filters: Sequence[str],
        *,
        will: tuple[str, bytes],
        on_message: Callable[[Any], None],
        on_up: Callable[[], None],
    ) -> None:
        self.connection = 0
        self.largest = 0xFFFFFFFF  # bytes of a packet that the broker takes
        self._broker, self._options, self._filters = broker, options, tuple(filters)
        self._on_message, self._on_up = on_message, on_up
        self._loop = asyncio.get_running_loop()
        self._up = False
        self._leaving = False
        self._pause_s = SHORTEST_PAUSE_S
        self._since = 0.0  # when the connection came, in the loop's time
        self._down = asyncio.Event()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._left = asyncio.Event()  # the broker has unsubscribed us
        self._settled = asyncio.Event()  # the broker has all we had to send
        self._held: deque[Outgoing] = deque()
        self._window = options.receive_maximum
        self._sent: set[int] = set()  # by number, until the broker acknowledges
        self._keeper: asyncio.Task[None] | None = None
        self._client = self._new_client(*will)

    async def open(self) -> None:
        """Connect and subscribe; ServeError where the broker is not there or does not let us."""
        try:
            async with asyncio.timeout(self._options.connect_timeout_s):
                await self._connect()
                await self._ready
        except _DOWN as error:
            self._drop()
            raise ServeError(
                "The MQTT broker at {broker} does not answer: {reason}.",
                hint="Check the address, and that the broker runs: mosquitto_sub -h HOST -t '#'",
                broker=str(self._broker),
                reason=str(error) or f"nothing in {self._options.connect_timeout_s:g} s",
            ) from error
        except ServeError:
            self._drop()
            raise
        self._keeper = self._loop.create_task(self._keep())

    def publish(self, outgoing: Outgoing) -> None:
        """Send as soon as there is a connection and the broker takes more."""
        self._held.append(outgoing)
        self._settled.clear()
        self._pump()

    def acknowledge(self, receipt: Receipt) -> None:
        """The broker may forget this message."""
        receipt.done = True
        # On another connection its number may stand for another message; there the broker sends
        # it again, and `done` tells.
        if self._up and receipt.connection == self.connection:
            self._client.ack(receipt.mid, 1)

    async def unsubscribe(self) -> None:
        """No new messages; what the broker has queued for us still comes."""
        self._leaving = True
        if self._up:
            self._client.unsubscribe(list(self._filters))
        await self._left.wait()

    async def settled(self) -> None:
        """Wait until the broker has all we had to send."""
        await self._settled.wait()

    async def close(self, *, keep_session: bool = False) -> None:
        """Leave; no last will is sent. Without the session the broker holds nothing for us."""
        if self._keeper is None:
            return
        self._keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._keeper
        self._keeper = None
        if self._up:
            self._down.clear()
            expiry = self._options.session_expiry_s if keep_session else 0
            leave = _properties("DISCONNECT", SessionExpiryInterval=expiry)
            self._client.disconnect(properties=leave)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._down.wait(), 1.0)
        self._drop()

    def _new_client(self, will_topic: str, will: bytes) -> Any:
        from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv5

        options, broker = self._options, self._broker
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=options.client_id,
            protocol=MQTTv5,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.max_inflight_messages_set(0)  # the window is ours: a receipt goes with its answer
        client.connect_timeout = options.connect_timeout_s
        client.will_set(will_topic, will, 1, retain=True)
        if broker.username:
            client.username_pw_set(broker.username, broker.password)
        if broker.tls:
            client.tls_set(options.ca or None, options.cert or None, options.key or None)
        client.on_connect = self._connected
        client.on_subscribe = self._subscribed
        client.on_unsubscribe = lambda *_: self._left.set()
        client.on_publish = self._taken
        client.on_message = lambda _client, _data, message: self._on_message(message)
        client.on_socket_open = _no_delay
        client.on_socket_close = self._closing
        # Called by the connecting thread too. One callback later an answer and its receipt are both
        # there, and leave in one call.
        client.on_socket_register_write = lambda *_: self._loop.call_soon_threadsafe(self._write)
        client.on_socket_unregister_write = lambda _c, _d, sock: self._loop.remove_writer(sock)
        return client

    async def _connect(self) -> None:
        options, broker = self._options, self._broker
        properties = _properties(
            "CONNECT",
            SessionExpiryInterval=options.session_expiry_s,
            ReceiveMaximum=options.receive_maximum,
            # Twice: so that what is too large by less still gets an answer that says so.
            MaximumPacketSize=2 * options.max_bytes + 65_536,
        )
        await asyncio.to_thread(
            self._client.connect,
            broker.host,
            broker.port,
            options.keepalive_s,
            clean_start=False,
            properties=properties,
        )
        self._down.clear()
        if (sock := self._client.socket()) is not None:
            self._loop.add_reader(sock, self._read)

    async def _keep(self) -> None:
        """Hold the connection: ping while it is there, come back when it is lost."""
        while True:
            if self._client.socket() is not None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._down.wait(), 1.0)
                self._client.loop_misc()
                continue
            await asyncio.sleep(self._pause_s * random.uniform(0.5, 1.0))
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
            try:
                await self._connect()
            except _DOWN as error:
                log.warning("broker %s: %s; again in %.1f s", self._broker, error, self._pause_s)

    def _connected(self, _client: Any, _data: Any, _flags: Any, reason: Any, given: Any) -> None:
        if reason.is_failure:
            self._fail(f"{reason}")
            return
        self.connection += 1
        self._up = True
        self._since = self._loop.time()
        # paho sends by itself, once more, what was sent and not taken.
        self._window = min(getattr(given, "ReceiveMaximum", 65_535), self._options.receive_maximum)
        self.largest = getattr(given, "MaximumPacketSize", 0xFFFFFFFF)
        if self._leaving:
            self._client.unsubscribe(list(self._filters))
        else:
            # Always: the broker may have lost the session in a restart.
            self._client.subscribe([(name, 1) for name in self._filters])
        self._on_up()
        self._pump()

    def _subscribed(self, _client: Any, _data: Any, _mid: int, reasons: Any, _given: Any) -> None:
        refused = [str(reason) for reason in reasons if reason.is_failure]
        if refused:
            self._fail(f"no subscription: {refused[0]}")
        elif not self._ready.done():
            self._ready.set_result(None)

    def _fail(self, reason: str) -> None:
        log.error("broker %s refuses client %s: %s", self._broker, self._options.client_id, reason)
        if not self._ready.done():
            self._ready.set_exception(
                ServeError(
                    "The MQTT broker at {broker} refuses client {client}: {reason}.",
                    hint="Check user, password and the broker's access rules.",
                    broker=str(self._broker),
                    client=self._options.client_id,
                    reason=reason,
                )
            )

    def _closing(self, _client: Any, _data: Any, sock: socket.socket) -> None:
        self._loop.remove_reader(sock)
        if self._up and self._keeper is not None:
            lasted = self._loop.time() - self._since
            # A connection that is lost at once is no reason to hurry: two workers of one id would
            # throw each other out for ever.
            if lasted > LONGEST_PAUSE_S:
                self._pause_s = SHORTEST_PAUSE_S
            log.info(
                "broker %s: the connection is closed after %.1f s; where this goes on, look for "
                "another client of the id %s", self._broker, lasted, self._options.client_id,
            )  # fmt: skip
        elif not self._ready.done():
            self._ready.set_exception(ConnectionError("it closed the connection"))
        self._up = False
        self._down.set()

    def _taken(self, _client: Any, _data: Any, mid: int, reason: Any, _given: Any) -> None:
        if mid in self._sent:
            self._sent.discard(mid)
            if reason.is_failure:
                log.warning("the broker refuses an answer: %s", reason)
            self._pump()

    def _pump(self) -> None:
        while self._up and self._held and (not self._held[0].qos or len(self._sent) < self._window):
            out = self._held.popleft()
            info = self._client.publish(out.topic, out.payload, out.qos, out.retain, out.properties)
            if out.qos:
                self._sent.add(info.mid)
            if out.receipt is not None:
                self.acknowledge(out.receipt)
        if not self._held and not self._sent:
            self._settled.set()

    def _read(self) -> None:
        self._client.loop_read()
        while (sock := self._client.socket()) is not None and getattr(sock, "pending", int)():
            self._client.loop_read()

    def _write(self) -> None:
        sock = self._client.socket()
        if sock is None:
            return
        _join(self._client._out_packet)
        self._client.loop_write()
        if self._client.want_write() and self._client.socket() is sock:
            self._loop.add_writer(sock, self._write)

    def _drop(self) -> None:
        """End the connection without a word; the broker sends the last will."""
        sock = self._client.socket()
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            self._client.loop_read()


def _join(waiting: deque[dict[str, Any]]) -> None:
    """Make one of the packets that paho would hand to the system one by one: a process that is
    killed has sent an answer and its receipt, or neither.
    """
    packets = list(waiting)
    if len(packets) < 2:
        return
    waiting.clear()
    part: list[dict[str, Any]] = []
    size = 0
    for packet in packets:
        full = size > _ENOUGH and packet["command"] & 0xF0 == _PUBLISH  # its receipt follows it
        if part and (full or _odd(packet) or _odd(part[-1])):
            waiting.append(_one(part))
            part, size = [], 0
        part.append(packet)
        size += len(packet["packet"])
    waiting.append(_one(part))


def _odd(packet: dict[str, Any]) -> bool:
    """Whether paho does more than send: for a DISCONNECT, and for a PUBLISH of QoS 0."""
    return packet["command"] & 0xF0 in (_DISCONNECT, _PUBLISH) and not packet["qos"]


def _one(part: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if len(part) == 1:
        return part[0]
    data = b"".join(packet["packet"][packet["pos"] :] for packet in part)
    # Of the first one's kind: what begins with a PUBLISH is not added to a part that is full.
    return {**part[0], "packet": data, "pos": 0, "to_process": len(data)}


def _no_delay(_client: Any, _data: Any, sock: socket.socket) -> None:
    # paho leaves Nagle's algorithm on, which costs 40 ms a question.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _properties(packet: str, **values: object) -> Any:
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    made = Properties(getattr(PacketTypes, packet))
    for name, value in values.items():
        setattr(made, name, value)
    return made
