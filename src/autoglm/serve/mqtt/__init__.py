"""MQTT 5 through a broker: the transport `mqtt` of entry point `autoglm.transports`."""

from __future__ import annotations

from autoglm.serve.mqtt.transport import Mqtt

__all__ = ["Mqtt"]
