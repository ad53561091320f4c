"""Seven ways to ask a server the same, and what came of it in the words of the one table."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import grpc
import httpx
import orjson

from autoglm.serve.proto import infer_pb2, oip_pb2
from autoglm.serve.proto.tensors import oip_name
from benchmarks.serving import mqtt as tools

from .faults import BINARY, GRPC, MQTT, REST, V2, V2_GRPC, Ask, Tensor

PATHS = {
    V2_GRPC: "/inference.GRPCInferenceService/ModelInfer",
    GRPC: "/autoglm.v1.Inference/Infer",
}
PROTOBUF = "application/x-protobuf;proto=autoglm.v1.InferRequest"
LENGTH = "inference-header-content-length"
_WAIT_S = 60


@dataclass(frozen=True)
class Outcome:
    """The code ("" = answered), and the wire's own status."""

    code: str
    status: int | str


# --- how each wire writes an Ask -----------------------------------------------------------------


def envelope(ask: Ask) -> dict[str, Any]:
    """The envelope, without what a topic says."""
    body: dict[str, Any] = {"data": {tensor.name: tensor.values for tensor in ask.inputs}}
    body |= {"outputs": list(ask.outputs)} if ask.outputs else {}
    body |= {"timeout_ms": ask.timeout_s * 1000} if ask.timeout_s else {}
    return body | ({"priority": ask.priority} if ask.priority else {})


def v2(ask: Ask, *, binary: bool) -> tuple[bytes, bytes]:
    """The JSON part and the tensors' bytes."""
    parameters = {"timeout": round(ask.timeout_s * 1e6)} if ask.timeout_s else {}
    body: dict[str, Any] = {
        "inputs": [_v2_tensor(tensor, binary) for tensor in ask.inputs],
        "outputs": [{"name": name} for name in ask.outputs],
        "parameters": parameters | ({"priority": ask.priority} if ask.priority else {}),
    }
    return orjson.dumps(body), b"".join(t.data for t in ask.inputs) if binary else b""


def _v2_tensor(tensor: Tensor, binary: bool) -> dict[str, Any]:
    row = {"name": tensor.name, "datatype": oip_name(tensor.dtype), "shape": tensor.sizes}
    if binary:
        return row | {"parameters": {"binary_data_size": len(tensor.data)}}
    return row | {"data": tensor.values}


def v2_message(ask: Ask) -> bytes:
    """A ModelInferRequest with raw tensors."""
    message = oip_pb2.ModelInferRequest(model_name=ask.model, model_version=ask.version)
    for tensor in ask.inputs:
        message.inputs.add(name=tensor.name, datatype=oip_name(tensor.dtype), shape=tensor.sizes)
        message.raw_input_contents.append(tensor.data)
    for name in ask.outputs:
        message.outputs.add(name=name)
    if ask.timeout_s:
        message.parameters["timeout"].int64_param = round(ask.timeout_s * 1e6)
    if ask.priority:
        message.parameters["priority"].int64_param = ask.priority
    raw: bytes = message.SerializeToString()
    return raw


def our_message(ask: Ask, **addressed: str) -> bytes:
    """An InferRequest with raw tensors; `addressed` are model and version, where it says them."""
    message = infer_pb2.InferRequest(
        outputs=ask.outputs, timeout_s=ask.timeout_s, priority=ask.priority, **addressed
    )
    for tensor in ask.inputs:
        message.inputs.add(
            name=tensor.name, dtype=tensor.dtype, shape=tensor.sizes, raw=tensor.data
        )
    raw: bytes = message.SerializeToString()
    return raw


# --- how each wire is asked ----------------------------------------------------------------------


class Client:
    """Asks one server, over each of its transports."""

    def __init__(self, urls: Mapping[str, str], keys: Mapping[str, str], broker_port: int) -> None:
        self._urls, self._keys = urls, keys
        self._http = httpx.Client(base_url=urls.get("http", ""), timeout=_WAIT_S)
        self._channel = grpc.insecure_channel(urls["grpc"].partition("://")[2])
        self._mqtt = Broker(broker_port) if "mqtt" in urls else None
        self.prefix = "autoglm/v1"

    def close(self) -> None:
        self._http.close()
        self._channel.close()
        if self._mqtt is not None:
            self._mqtt.close()

    def ask(self, wire: str, ask: Ask, body: bytes | None = None) -> Outcome:
        """Ask so; `body` in place of what the ask would be."""
        if wire == REST:
            whole = {"model_name": ask.model, **envelope(ask)}
            whole |= {"version": ask.version} if ask.version else {}
            return self._rest("/v1/infer", ask, orjson.dumps(whole) if body is None else body)
        if wire in (V2, BINARY):
            return self._v2(ask, body, binary=wire == BINARY)
        if wire == V2_GRPC:
            return self._grpc(wire, ask, v2_message(ask) if body is None else body)
        if wire == GRPC:
            raw = our_message(ask, model=ask.model, version=ask.version) if body is None else body
            return self._grpc(wire, ask, raw)
        return self._over_mqtt(wire, ask, body)

    def _key(self, ask: Ask) -> dict[str, str]:
        return {"authorization": f"Bearer {self._keys.get(ask.key, ask.key)}"} if ask.key else {}

    def _rest(self, path: str, ask: Ask, body: bytes, **headers: str) -> Outcome:
        said = {"content-type": ask.content_type or "application/json", **headers}
        said |= self._key(ask) | ({"content-encoding": ask.coding} if ask.coding else {})
        answer = self._http.post(path, content=body, headers=said)
        found = answer.json()
        if "status_code" in found:
            assert found["status_code"] == answer.status_code
        return Outcome(found.get("code", ""), answer.status_code)

    def _v2(self, ask: Ask, body: bytes | None, *, binary: bool) -> Outcome:
        version = f"/versions/{quote(ask.version)}" if ask.version else ""
        path = f"/v2/models/{quote(ask.model, safe='')}{version}/infer"
        head, tail = v2(ask, binary=binary) if body is None else (body, b"")
        length = {LENGTH: str(len(head))} if binary else {}
        return self._rest(path, ask, head + tail, **length)

    def _grpc(self, wire: str, ask: Ask, raw: bytes) -> Outcome:
        call = self._channel.unary_unary(PATHS[wire])
        try:
            call(raw, metadata=tuple(self._key(ask).items()), timeout=_WAIT_S)
        except grpc.RpcError as error:
            told: Any = error
            trailers = dict(told.trailing_metadata() or ())
            return Outcome(str(trailers.get("autoglm-code", "")), told.code().name)
        return Outcome("", "OK")

    def _over_mqtt(self, wire: str, ask: Ask, body: bytes | None) -> Outcome:
        assert self._mqtt is not None
        version = f"/{ask.version}" if ask.version else ""
        kind = "application/json" if wire == MQTT else PROTOBUF
        if body is None:
            body = orjson.dumps(envelope(ask)) if wire == MQTT else our_message(ask)
        answer = self._mqtt.ask(
            f"{self.prefix}/{ask.model}{version}/infer",
            body,
            ask.content_type or kind,
            self._key(ask),
        )
        said = dict(getattr(answer.properties, "UserProperty", ()))
        code, status = said.get("code", ""), int(said.get("status-code", 200))
        _require_agreement(answer.payload, code, status)
        return Outcome(code, status)


def _require_agreement(payload: bytes, code: str, status: int) -> None:
    """The payload says what the properties say."""
    if payload[:1] == b"{":
        found = orjson.loads(payload)
        assert (found.get("code", ""), found["status_code"]) == (code, status)
        return
    error = infer_pb2.InferResponse.FromString(payload).error
    assert (error.code, error.http_status or 200) == (code, status)


class Broker:
    """An MQTT 5 client in a thread of its own, which waits for one answer at a time."""

    def __init__(self, port: int) -> None:
        self._reply = f"parity/{port}/{id(self)}"
        self._answers: dict[bytes, Any] = {}
        self._wake = threading.Condition()
        self._numbers = itertools.count()
        ready = threading.Event()
        self._client = tools.paho(f"parity-{port}-{id(self)}")
        self._client.on_connect = lambda *_: self._client.subscribe(self._reply, 1)
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.on_message = self._arrived
        tools.connect(self._client, port)
        self._client.loop_start()
        assert ready.wait(_WAIT_S)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def ask(self, topic: str, body: bytes, kind: str, said: Mapping[str, str]) -> Any:
        """The message that answers."""
        correlation = b"%d" % next(self._numbers)
        properties = tools.answer_properties(correlation, self._reply, kind)
        if said:
            properties.UserProperty = list(said.items())
        self._client.publish(topic, body, 1, False, properties)
        with self._wake:
            assert self._wake.wait_for(lambda: correlation in self._answers, _WAIT_S), topic
            return self._answers.pop(correlation)

    def _arrived(self, _client: Any, _data: Any, message: Any) -> None:
        with self._wake:
            self._answers[bytes(message.properties.CorrelationData)] = message
            self._wake.notify_all()
