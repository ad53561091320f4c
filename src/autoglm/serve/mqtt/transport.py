"""Requests from a broker, answers back to it: each accepted request is answered once.

A QoS 1 request is acknowledged together with its answer. What a lost connection or a killed worker
left unacknowledged the broker delivers again, marked DUP; of such a message only what was not
answered here before is answered.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Mapping
from typing import Any

from autoglm.errors import AutoGLMError, OverloadedError, TooLargeError
from autoglm.serve.core import Gateway
from autoglm.serve.http.wire import dumps
from autoglm.serve.mqtt import wire
from autoglm.serve.mqtt.address import LARGEST, Options, parse_address, parse_options
from autoglm.serve.mqtt.link import Link, Outgoing, Receipt
from autoglm.serve.mqtt.packets import message_of, properties_of
from autoglm.serve.options import TransportOptions

log = logging.getLogger(__name__)
_OVERHEAD = 4096  # bytes of a packet beside its payload: topic, correlation, properties
REMEMBERED = 8192  # receipts; a broker that comes back from a snapshot repeats recent messages


class Mqtt:
    """The transport; one connection, one shared subscription."""

    name = "mqtt"
    api_version = 1

    def __init__(self) -> None:
        self._link: Link | None = None
        self._state = "online"
        self._running: set[asyncio.Task[None]] = set()
        self._receipts: dict[int, Receipt] = {}

    async def start(self, gateway: Gateway, address: str, options: Mapping[str, object]) -> str:
        """Connect to the broker and subscribe; returns the broker's address."""
        broker = parse_address(address)
        told = options.get("options")
        given = {}
        if isinstance(told, TransportOptions):
            given["max_bytes"] = min(told.max_bytes, LARGEST)
        self._options = parse_options(address, **given)
        self._gateway: Any = gateway
        self._link = Link(
            broker,
            self._options,
            filters(self._options),
            will=(self._status_topic, dumps({"state": "offline"})),
            on_message=self._arrived,
            on_up=self._say_state,
        )
        await self._link.open()
        return str(broker)

    async def drain(self, timeout_s: float) -> None:
        """Leave the shared subscription, answer what the broker had given us already."""
        if self._link is None or self._state == "offline":
            return
        self._state = "draining"
        try:
            async with asyncio.timeout(timeout_s):
                self._say_state()
                await self._link.unsubscribe()
                await self._empty()
        except TimeoutError:
            log.warning("mqtt: %d requests are not answered in time", len(self._running))

    async def stop(self) -> None:
        """Say offline and leave; may be called twice."""
        link, self._link = self._link, None
        if link is None:
            return
        unanswered = bool(self._running)
        for task in self._running:
            task.cancel()
        self._state = "offline"
        link.publish(self._status())
        try:
            await asyncio.wait_for(link.settled(), 1.0)
        except TimeoutError:
            log.warning("mqtt: the broker did not take the last messages")
        await link.close(keep_session=unanswered)

    @property
    def _status_topic(self) -> str:
        return f"{self._options.prefix}/status/{self._options.client_id}"

    def _status(self) -> Outgoing:
        body = {"state": self._state, "group": self._options.group}
        return Outgoing(self._status_topic, dumps(body), 1, retain=True)

    def _say_state(self) -> None:
        if self._link is not None:
            self._link.publish(self._status())

    async def _empty(self) -> None:
        """Until nothing runs, and an exchange with the broker brings nothing new."""
        assert self._link is not None
        while True:
            while self._running:
                await asyncio.wait(self._running)
            self._say_state()
            await self._link.settled()
            if not self._running:
                return

    def _arrived(self, packet: Any) -> None:
        """One message from the broker; must not raise."""
        assert self._link is not None
        if packet.qos and packet.dup and self._known(packet):
            return
        receipt = Receipt(packet.mid, self._link.connection, _mark(packet)) if packet.qos else None
        if receipt is not None:
            self._receipts.pop(receipt.mid, None)
            self._receipts[receipt.mid] = receipt
            if len(self._receipts) > REMEMBERED:
                del self._receipts[next(iter(self._receipts))]
        task = asyncio.get_running_loop().create_task(self._answer(packet, receipt))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def _known(self, packet: Any) -> bool:
        """Whether this delivery repeats a message that was answered here, or will be."""
        assert self._link is not None
        receipt = self._receipts.get(packet.mid)
        if receipt is None or receipt.what != _mark(packet):
            return False
        receipt.connection = self._link.connection
        if receipt.done:
            self._link.acknowledge(receipt)
        return True

    async def _answer(self, packet: Any, receipt: Receipt | None) -> None:
        options = self._options
        try:
            message = message_of(packet)
        except UnicodeDecodeError:
            message = wire.Message("", b"")
        question = wire.read(message, prefix=options.prefix, max_bytes=options.max_bytes)
        error: AutoGLMError | None = None
        try:
            # The broker bounds QoS 1 by the receive maximum; nothing bounds QoS 0.
            if receipt is None and len(self._running) > 4 * options.receive_maximum:
                raise OverloadedError("Too many requests with QoS 0.", retry_after_s=1)
            request = await wire.to_request(question, self._gateway, prefix=options.prefix)
            payload = wire.answer(await self._gateway.infer(request), question.reply)
        except AutoGLMError as found:
            error = found
        except Exception as fault:
            log.exception("mqtt: a request failed")
            error = AutoGLMError("{kind}: a mistake of ours.", kind=type(fault).__name__)
        if error is not None:
            payload = wire.refusal(error, question.reply)
        self._send(question, payload, error, receipt)

    def _send(
        self,
        question: wire.Question,
        payload: bytes,
        error: AutoGLMError | None,
        receipt: Receipt | None,
    ) -> None:
        if self._link is None:
            return
        reply = question.reply
        if not reply.topic:
            log.warning(
                "mqtt: %r dropped, no topic to answer on: %s", question.message.topic, error
            )
            if receipt is not None:
                self._link.acknowledge(receipt)
            return
        if len(payload) + _OVERHEAD > self._link.largest:
            error = TooLargeError(
                "The answer has {found} bytes; the MQTT broker takes {limit}.",
                found=len(payload),
                limit=self._link.largest,
            )
            payload = wire.refusal(error, reply)
        properties = properties_of(reply, error)
        self._link.publish(Outgoing(reply.topic, payload, reply.qos, False, properties, receipt))


def filters(options: Options) -> tuple[str, str]:
    """What a worker subscribes to: with a version in the topic, and without."""
    root = f"$share/{options.group}/{options.prefix}"
    return f"{root}/+/infer", f"{root}/+/+/infer"


def _mark(packet: Any) -> tuple[int, int, bytes]:
    correlation = getattr(packet.properties, "CorrelationData", b"")
    return len(packet.payload), zlib.crc32(packet.payload), bytes(correlation)
