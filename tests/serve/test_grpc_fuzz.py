"""Whatever is sent, there is an answer or a clear status, and the server goes on."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serve.grpc_kit import SmallGateway, run

from autoglm.errors import AutoGLMError
from autoglm.serve.grpc import oip
from autoglm.serve.proto import convert, oip_pb2
from autoglm.serve.proto import infer_pb2 as pb

INFER = "/autoglm.v1.Inference/Infer"
OIP = "/inference.GRPCInferenceService/ModelInfer"
# What a sender may be told; INTERNAL and UNKNOWN would be a fault of ours.
CLEAR = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
INTERESTING = (0, 1, 2, 7, 127, 128, 255, 2**31 - 1, 2**31, 2**62, 2**63 - 1, -1, -(2**63))


def seeds() -> list[tuple[str, bytes]]:
    """Method and a sound message, to be spoilt."""
    x = np.arange(8, dtype=np.float32)
    raw = pb.Tensor(name="x", dtype="float32", shape=[2, 4], raw=x.tobytes())
    typed = pb.Tensor(name="x", dtype="float32", shape=[2, 4], values=pb.Values(floats=x))
    text = pb.Tensor(name="s", dtype="string", shape=[2], raw=b"\x01\0\0\0a\x02\0\0\0bc")
    ours = [
        pb.InferRequest(model="mlp", id="1", inputs=[raw], outputs=["y"], timeout_s=5, priority=1),
        pb.InferRequest(model="mlp", inputs=[typed], parameters={"p": pb.Parameter(int_value=3)}),
        pb.InferRequest(model="echo", inputs=[text]),
    ]
    made = oip_pb2.ModelInferRequest.InferInputTensor
    held = oip_pb2.InferTensorContents(fp32_contents=x)
    bare = made(name="x", datatype="FP32", shape=[2, 4])
    full = made(name="x", datatype="FP32", shape=[2, 4], contents=held)
    theirs = [
        oip_pb2.ModelInferRequest(
            model_name="mlp", inputs=[bare], raw_input_contents=[x.tobytes()]
        ),
        oip_pb2.ModelInferRequest(model_name="mlp", inputs=[full]),
    ]
    theirs[0].parameters["timeout"].int64_param = 5_000_000
    return [(INFER, m.SerializeToString()) for m in ours] + [
        (OIP, m.SerializeToString()) for m in theirs
    ]


def spoilt(message: bytes, chance: random.Random) -> bytes:
    """`message` with a few bytes changed, cut, doubled or put in."""
    data = bytearray(message)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(5):
            case 0 if data:
                data[at % len(data)] ^= 1 << chance.randrange(8)
            case 1:
                del data[at : at + chance.randrange(6)]
            case 2:
                data[at:at] = chance.randbytes(chance.randrange(6))
            case 3:
                data[at:at] = data[at : at + chance.randrange(20)]
            case _:
                number = chance.choice(INTERESTING)
                data[at : at + 8] = number.to_bytes(8, "little", signed=number < 2**63)
    return bytes(data)


def messages(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Methods with random and spoilt messages."""
    chance = random.Random(seed)
    known = seeds()
    for i in range(count):
        path, message = chance.choice(known)
        yield (
            path,
            chance.randbytes(chance.randrange(64)) if i % 8 == 0 else spoilt(message, chance),
        )


def read(path: str, raw: bytes) -> None:
    """Read a message as its service does; raises AutoGLMError, and nothing else."""
    if path == INFER:
        convert.to_request(raw)
    else:
        message = convert.parse(raw, oip_pb2.ModelInferRequest)
        oip.to_inputs(message)
        oip.to_parameters(message.parameters)


def ended(asked: list[tuple[str, bytes]]) -> set[str]:
    """The statuses that a live server gives, and OK for a sound request behind them all."""

    async def scenario(channel, gateway: SmallGateway, _) -> set[str]:
        slots = asyncio.Semaphore(64)

        async def one(path: str, raw: bytes) -> str:
            async with slots:
                try:
                    await channel.unary_unary(path)(raw)
                except grpc.aio.AioRpcError as error:
                    return error.code().name
            return "OK"

        found: set[str] = set()
        for start in range(0, len(asked), 4096):
            found |= set(await asyncio.gather(*(one(*a) for a in asked[start : start + 4096])))
            gateway.seen.clear()
        assert await one(*seeds()[0]) == "OK"
        return found

    return run(scenario, timeout_s=1000)


def test_every_spoilt_message_gets_a_clear_status() -> None:
    found = ended(list(messages(2000, seed=1)))

    assert found <= CLEAR
    assert {"OK", "INVALID_ARGUMENT", "NOT_FOUND"} <= found


def test_a_stream_survives_every_spoilt_message() -> None:
    sent = [raw for path, raw in messages(1000, seed=2) if path == INFER]

    async def scenario(channel, *_):
        stream = channel.stream_stream("/autoglm.v1.Inference/InferStream")(iter(sent))
        return [pb.InferResponse.FromString(raw) async for raw in stream]

    answers = run(scenario)

    assert len(answers) == len(sent)
    assert {a.error.code for a in answers} <= {"", "invalid-request", "model-not-served"}


TENSOR = st.builds(
    dict,
    name=st.text(max_size=3),
    dtype=st.sampled_from(["float32", "int4", "bool", "string", "bfloat16", "", "complex64", "x"]),
    shape=st.lists(st.sampled_from(INTERESTING), max_size=5),
    raw=st.binary(max_size=16),
)
VALUES = st.builds(
    pb.Values,
    bools=st.lists(st.booleans(), max_size=2),
    ints=st.lists(st.sampled_from([n for n in INTERESTING if n < 2**63]), max_size=2),
    doubles=st.lists(st.floats(), max_size=2),
    strings=st.lists(st.text(max_size=2), max_size=2),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(TENSOR, max_size=3), VALUES, st.booleans(), st.floats())
def test_any_message_of_the_schema_is_read_or_refused(tensors, values, typed, timeout_s) -> None:
    message = pb.InferRequest(model="m", timeout_s=timeout_s)
    for tensor in tensors:
        message.inputs.add(**tensor)
    if typed and tensors:
        message.inputs[0].values.CopyFrom(values)

    with suppress(AutoGLMError):
        convert.to_request(message.SerializeToString())


def test_deep_nesting_is_refused() -> None:
    deep = b""
    for _ in range(200):  # of groups, which every parser must bound
        deep = b"\x0b" + deep + b"\x0c"

    with pytest.raises(AutoGLMError, match=r"not an autoglm\.v1\.InferRequest"):
        convert.to_request(deep)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_million_messages() -> None:
    """900,000 through the reading code, 100,000 through a live server."""
    statuses: Counter[str] = Counter()
    for path, raw in messages(900_000, seed=3):
        try:
            read(path, raw)
        except AutoGLMError as error:
            statuses[error.row.grpc] += 1

    found = ended(list(messages(100_000, seed=4)))

    assert 0 < statuses["INVALID_ARGUMENT"] < 900_000
    assert set(statuses) | found <= CLEAR
