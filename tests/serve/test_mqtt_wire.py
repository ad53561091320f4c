"""Reading MQTT messages: nothing that a peer can send raises anything but one of our errors."""

from __future__ import annotations

import asyncio
import json
import os
import random
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serve.small_gateway import SmallGateway

from autoglm.errors import TABLE, AutoGLMError, DeadlineError, OverloadedError
from autoglm.serve.core import Response
from autoglm.serve.mqtt import packets, wire
from autoglm.serve.mqtt.address import parse_address, parse_options
from autoglm.serve.proto import infer_pb2

PREFIX = "autoglm/v1"
TOPIC = f"{PREFIX}/twice/infer"
GATEWAY = SmallGateway()
ANSWER = Response("twice", "1", {"y": np.float32([[2, 4]])}, "a")


def outcome(message: wire.Message) -> str:
    """Read, convert, answer or refuse: as the transport does."""
    question = wire.read(message, prefix=PREFIX, max_bytes=4096)
    try:
        asyncio.run(wire.to_request(question, GATEWAY, prefix=PREFIX))
        payload, code = wire.answer(ANSWER, question.reply), "ok"
    except AutoGLMError as error:
        payload, code = wire.refusal(error, question.reply), error.code
    assert code == "ok" or code in TABLE
    if question.reply.json:
        assert "status_code" in json.loads(payload)
    else:
        infer_pb2.InferResponse.FromString(payload)
    return code


def request_bytes() -> bytes:
    message = infer_pb2.InferRequest(model="twice", id="a", reply_topic="me")
    message.inputs.add(name="x", dtype="float32", shape=[1], raw=b"\0\0\x80?")
    raw: bytes = message.SerializeToString()
    return raw


SEEDS = (
    b'{"data": [[1, 2]], "id": "a", "reply_topic": "me", "timeout_ms": 5, "outputs": ["y"]}',
    b'{"model_name": "twice", "version": 1, "data": {"x": [[1e3]]}, "priority": 2}',
    request_bytes(),
)
KINDS = ("", wire.JSON, wire.REQUEST_TYPE, "text/plain", "image/png")
TOPICS = (TOPIC, f"{PREFIX}/twice/1/infer", f"{PREFIX}/none/infer", "x", "")


@given(
    payload=st.one_of(st.binary(max_size=200), st.sampled_from(SEEDS)),
    topic=st.one_of(st.sampled_from(TOPICS), st.text(max_size=40)),
    reply=st.one_of(st.just(""), st.text(max_size=20)),
    kind=st.one_of(st.sampled_from(KINDS), st.text(max_size=20)),
    correlation=st.binary(max_size=20),
    expiry=st.one_of(st.none(), st.integers(0, 2**32 - 1)),
    properties=st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=3),
)
def test_any_message_gives_an_answer_or_an_error_of_the_table(
    payload: bytes,
    topic: str,
    reply: str,
    kind: str,
    correlation: bytes,
    expiry: int | None,
    properties: dict[str, str],
) -> None:
    outcome(wire.Message(topic, payload, 1, reply, correlation, kind, expiry, properties))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)
FIELDS = st.sampled_from(
    ["data", "id", "model_name", "version", "reply_topic", "authorization", "timeout_ms",
     "priority", "outputs"]
)  # fmt: skip


@given(st.dictionaries(FIELDS, JSON_VALUES))
def test_any_value_in_any_field_gives_an_answer_or_an_error(body: dict[str, object]) -> None:
    outcome(wire.Message(TOPIC, json.dumps(body).encode(), 1, "me", content_type=wire.JSON))


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_million_mutated_messages() -> None:
    chance = random.Random(20261122)
    codes: dict[str, int] = {}
    for _ in range(1_000_000):
        payload = bytearray(chance.choice(SEEDS))
        for _ in range(chance.randrange(4)):
            place = chance.randrange(len(payload) + 1)
            if chance.random() < 0.5:
                payload[place : place + chance.randrange(3)] = chance.randbytes(chance.randrange(4))
            elif payload:
                payload[place % len(payload)] = chance.randrange(256)
        message = wire.Message(
            chance.choice(TOPICS), bytes(payload), 1, chance.choice(("", "me", "a/#")),
            content_type=chance.choice(KINDS),
        )  # fmt: skip
        code = outcome(message)
        codes[code] = codes.get(code, 0) + 1

    assert codes["ok"] > 10_000
    assert codes["invalid-request"] > 100_000
    assert "internal" not in codes


@pytest.mark.parametrize("topic", ["me", "a/b/c", f"{PREFIX}/reply/x", "autoglm/v2/infer", "é"])
def test_an_answer_may_go_to_a_topic_of_the_clients_own(topic: str) -> None:
    assert wire.may_answer(topic, PREFIX)


@pytest.mark.parametrize(
    "topic",
    ["", "a/#", "a/+", "$SYS/x", "a\0", "a\n", "x" * 2000, TOPIC, f"{PREFIX}/status/w"],
)
def test_an_answer_may_not_go_where_workers_read_or_nobody_can(topic: str) -> None:
    assert not wire.may_answer(topic, PREFIX)


def test_an_untyped_payload_is_told_by_its_first_bytes() -> None:
    def is_json(payload: bytes) -> bool:
        message = wire.Message(TOPIC, payload, 1, "me")
        return wire.read(message, prefix=PREFIX, max_bytes=4096).reply.json

    unnamed = infer_pb2.InferRequest()
    unnamed.inputs.add(name="x", dtype="float32", shape=[1], raw=b"abcd")
    assert is_json(b' \n{"data": [[1]]}')
    assert is_json("neither, but text: \u00e9".encode())
    assert not is_json(request_bytes())
    assert not is_json(unnamed.SerializeToString())


def test_the_earlier_of_expiry_and_time_out_is_the_deadline() -> None:
    body = b'{"data": [[1]], "timeout_ms": 5000}'
    near = wire.read(wire.Message(TOPIC, body, expiry_s=1), prefix=PREFIX, max_bytes=99)
    far = wire.read(wire.Message(TOPIC, body, expiry_s=60), prefix=PREFIX, max_bytes=99)

    def deadline(question: wire.Question) -> float:
        question = wire.Question(question.message, wire.Reply("me"), question.body)
        found = asyncio.run(wire.to_request(question, GATEWAY, prefix=PREFIX)).deadline
        assert found is not None
        return found

    assert 2 < deadline(far) - deadline(near) < 10


def test_an_overload_says_when_to_ask_again() -> None:
    error = OverloadedError("Full.", retry_after_s=2)

    assert json.loads(wire.refusal(error, wire.Reply("me", id="a"))) == {
        "result": None,
        "status_code": 429,
        "message": "Full.",
        "code": "overloaded",
        "id": "a",
        "retry_after_s": 2.0,
    }
    raw = wire.refusal(error, wire.Reply("me", json=False, id="a"))
    answer = infer_pb2.InferResponse.FromString(raw)
    assert (answer.id, answer.error.retry_after_s) == ("a", 2.0)


def test_a_packet_without_properties_is_read_as_311_sends_it() -> None:
    packet = SimpleNamespace(topic="t", payload=bytearray(b"x"), qos=1, properties=None)

    assert packets.message_of(packet) == wire.Message("t", b"x", 1)


def test_an_answers_properties_carry_correlation_trace_and_code() -> None:
    reply = wire.Reply("me", 1, b"\0\xff", json=True, traceparent="00-a-b-01")

    made = packets.properties_of(reply, DeadlineError("Late."))

    assert made.CorrelationData == b"\0\xff"
    assert made.UserProperty == [
        ("traceparent", "00-a-b-01"),
        ("code", "deadline"),
        ("status-code", "504"),
    ]


def test_a_worker_without_an_id_gets_one_and_keeps_no_session() -> None:
    first, second = parse_options("mqtt://h"), parse_options("mqtt://h")

    assert first.client_id != second.client_id
    assert str(os.getpid()) not in first.client_id
    assert first.session_expiry_s == 0
    assert parse_options("mqtt://h?client_id=w").session_expiry_s == 300


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("mqtt://h", "mqtt://h:1883"),
        ("mqtts://u:p%40@h", "mqtts://h:8883"),
        ("mqtt://[::1]:5", "mqtt://[::1]:5"),
    ],
)
def test_an_address_is_shown_without_its_password(address: str, shown: str) -> None:
    broker = parse_address(address)

    assert str(broker) == shown
    assert "p@" not in repr(broker)
