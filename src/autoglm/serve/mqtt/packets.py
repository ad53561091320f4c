"""Between paho's packets and our messages."""

from __future__ import annotations

from typing import Any

from autoglm.errors import AutoGLMError
from autoglm.serve.mqtt.wire import JSON, RESPONSE_TYPE, Message, Reply

_MAX_PROPERTIES = 64


def message_of(packet: Any) -> Message:
    """paho's message as ours; UnicodeDecodeError where the topic is no UTF-8."""
    given = packet.properties
    pairs = getattr(given, "UserProperty", None) or ()
    return Message(
        packet.topic,
        bytes(packet.payload),
        packet.qos,
        reply_topic=getattr(given, "ResponseTopic", ""),
        correlation=bytes(getattr(given, "CorrelationData", b"")),
        content_type=getattr(given, "ContentType", ""),
        expiry_s=getattr(given, "MessageExpiryInterval", None),
        properties={name.lower(): value for name, value in pairs[:_MAX_PROPERTIES]},
    )


def properties_of(reply: Reply, error: AutoGLMError | None = None) -> Any:
    """The properties of an answer."""
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    made = Properties(PacketTypes.PUBLISH)
    made.ContentType = JSON if reply.json else RESPONSE_TYPE
    made.PayloadFormatIndicator = int(reply.json)
    if reply.correlation:
        made.CorrelationData = reply.correlation
    pairs = [("traceparent", reply.traceparent)] if reply.traceparent else []
    if error is not None:
        pairs += [("code", error.code), ("status-code", str(error.row.http))]
    if pairs:
        made.UserProperty = pairs
    return made
