"""`autoglm.v1.Inference` over a real connection: answers, faults, deadlines, streams."""

from __future__ import annotations

import asyncio
import time

import grpc
import numpy as np
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc_status import rpc_status
from serve.grpc_kit import WEIGHT, SmallGateway, run

from autoglm import errors
from autoglm.serve.grpc.calls import CODE_KEY
from autoglm.serve.grpc.server import GrpcOptions
from autoglm.serve.proto import infer_pb2 as pb

X = np.arange(8, dtype=np.float32).reshape(2, 4)


def question(model: str = "mlp", x: np.ndarray = X, **fields: object) -> pb.InferRequest:
    """A request with one raw input."""
    tensor = pb.Tensor(name="x", dtype="float32", shape=x.shape, raw=x.tobytes())
    return pb.InferRequest(model=model, inputs=[tensor], **fields)


def method(channel, name: str, reply=pb.InferResponse):
    """A method of the service, typed as a client's stub has it."""
    kind = channel.stream_stream if name == "InferStream" else channel.unary_unary
    return kind(
        f"/autoglm.v1.Inference/{name}",
        request_serializer=lambda m: m if isinstance(m, bytes) else m.SerializeToString(),
        response_deserializer=reply.FromString,
    )


async def refused(call) -> grpc.aio.AioRpcError:
    """The error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def test_a_model_answers() -> None:
    async def scenario(channel, gateway, _):
        return await method(channel, "Infer")(question(id="7", outputs=["y"]))

    answer = run(scenario)

    y = answer.outputs[0]
    assert (answer.model, answer.version, answer.id, y.name) == ("mlp", "1", "7", "y")
    np.testing.assert_array_equal(np.frombuffer(y.raw, "f4").reshape(y.shape), X @ WEIGHT)
    assert answer.parameters["engine"].string_value == "numpy"


def test_metadata_tells_who_asks_and_where_the_trace_is() -> None:
    async def scenario(channel, gateway, _):
        metadata = (
            ("authorization", "Bearer k"),
            ("traceparent", "00-1-2-01"),
            ("x-b-bin", b"\xff"),
        )
        await method(channel, "Infer")(question(), metadata=metadata)
        return gateway.seen[0]

    request = run(scenario, SmallGateway(key="k"))

    assert request.traceparent == "00-1-2-01"
    assert request.client.credentials.transport == "grpc"
    assert request.client.credentials.address.startswith("127.0.0.1:")
    assert request.client.credentials.headers["traceparent"] == "00-1-2-01"
    assert all(isinstance(v, str) for v in request.client.credentials.headers.values())


@pytest.mark.parametrize("name", ["Infer", "ListModels", "GetModel"])
def test_a_stranger_is_refused_everywhere(name: str) -> None:
    async def scenario(channel, *_):
        return await refused(method(channel, name)(b""))

    assert run(scenario, SmallGateway(key="k")).code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_stranger_s_stream_is_refused() -> None:
    async def scenario(channel, *_):
        return await refused(method(channel, "InferStream")(iter([question()])).read())

    assert run(scenario, SmallGateway(key="k")).code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_key_that_is_revoked_is_refused_on_a_stream_that_was_open_before() -> None:
    async def scenario(channel, gateway, _):
        stream = method(channel, "InferStream")(metadata=(("authorization", "Bearer k"),))
        await stream.write(question(id="a"))
        before = await stream.read()
        gateway.key = "another"
        await stream.write(question(id="b"))
        after = await stream.read()
        stream.cancel()
        return before, after

    before, after = run(scenario, SmallGateway(key="k"))

    assert (before.id, before.error.code) == ("a", "")
    assert (after.id, after.error.code) == ("b", "unauthenticated")


KINDS = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, Exception)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_leaves_by_the_one_table(kind: type[errors.AutoGLMError]) -> None:
    async def scenario(channel, gateway, _):
        gateway.error = kind("It broke at {place}.", hint="Mend it.", place="é")
        return await refused(method(channel, "Infer")(question()))

    error = run(scenario)

    assert error.code().name == errors.TABLE[kind.code].grpc
    assert error.details() == "It broke at é. Mend it."
    assert error.trailing_metadata()[CODE_KEY] == kind.code
    info = ErrorInfo()
    assert rpc_status.from_call(error).details[0].Unpack(info)
    assert info.reason.lower().replace("_", "-") == kind.code
    assert info.metadata["place"] == "é"


def test_an_overloaded_server_says_when_to_come_back() -> None:
    async def scenario(channel, gateway, _):
        gateway.error = errors.OverloadedError("Full.", retry_after_s=1.5)
        return await refused(method(channel, "Infer")(question()))

    error = run(scenario)

    retry = RetryInfo()
    assert rpc_status.from_call(error).details[1].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 1500
    assert error.trailing_metadata()["grpc-retry-pushback-ms"] == "1500"


def test_a_bug_is_internal_and_keeps_its_secrets(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(channel, gateway, _):
        gateway.error = KeyError("the-secret")
        return await refused(method(channel, "Infer")(question()))

    error = run(scenario)

    assert error.code() is grpc.StatusCode.INTERNAL
    assert "the-secret" not in error.details()
    assert "the-secret" in caplog.text


def test_an_error_longer_than_trailers_still_arrives() -> None:
    async def scenario(channel, gateway, _):
        facts = {f"k{i}": "言" * 5000 for i in range(50)}
        gateway.error = errors.InvalidRequestError("言" * 5000 + "{k0}", hint="長" * 5000, **facts)
        return await refused(method(channel, "Infer")(question()))

    error = run(scenario)

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details().startswith("言言")


def test_a_client_that_leaves_drops_its_queued_work() -> None:
    async def scenario(channel, gateway, _):
        call = method(channel, "Infer")(question("slow", id="7"))
        assert await gateway.started.get() == "7"
        call.cancel()
        return await gateway.dropped.get()

    assert run(scenario) == "7"


def test_a_deadline_reaches_the_gateway_and_drops_the_work() -> None:
    async def scenario(channel, gateway, _):
        error = await refused(method(channel, "Infer")(question("slow", id="7"), timeout=0.3))
        return error, gateway.seen[0].deadline, await gateway.dropped.get()

    error, deadline, dropped = run(scenario)

    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert deadline <= time.monotonic()
    assert dropped == "7"


def test_of_two_deadlines_the_earlier_counts() -> None:
    async def scenario(channel, gateway, _):
        await method(channel, "Infer")(question(timeout_s=1000), timeout=50)
        await method(channel, "Infer")(question(timeout_s=50), timeout=1000)
        await method(channel, "Infer")(question())
        return [request.deadline for request in gateway.seen]

    first, second, none = run(scenario)

    # gRPC rounds a deadline up on its way.
    assert max(first, second) <= time.monotonic() + 60
    assert none is None


def test_a_stream_answers_each_as_it_is_ready_and_survives_faults() -> None:
    async def scenario(channel, gateway, _):
        stream = method(channel, "InferStream")()
        for message in (
            question("slow", id="a"),
            b"\xff",
            question("no", id="c"),
            question(id="d"),
        ):
            await stream.write(message)
        early = [await stream.read() for _ in range(3)]
        gateway.release.set()
        late = await stream.read()
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
        return early, late, await stream.code()

    early, late, code = run(scenario)

    by_id = {answer.id: answer for answer in early}
    assert by_id[""].error.code == "invalid-request"
    assert by_id["c"].error.code == "model-not-served"
    assert by_id["d"].outputs[0].shape == [2, 10]
    assert (late.id, late.error.code, code) == ("a", "", grpc.StatusCode.OK)


def test_a_stream_reads_no_more_than_it_may_answer_at_a_time() -> None:
    async def scenario(channel, gateway, _):
        stream = method(channel, "InferStream")()
        for i in range(5):
            await stream.write(question("slow", id=str(i)))
        await method(channel, "Infer")(question())  # what the stream could read, it has read
        started = gateway.started.qsize()
        gateway.release.set()
        ids = {(await stream.read()).id for _ in range(5)}
        stream.cancel()
        return started, ids

    started, ids = run(scenario, grpc=GrpcOptions(stream_in_flight=2))

    assert started <= 2
    assert ids == set("01234")


def test_a_cancelled_stream_drops_all_its_work() -> None:
    async def scenario(channel, gateway, _):
        stream = method(channel, "InferStream")()
        for i in range(3):
            await stream.write(question("slow", id=str(i)))
        for _ in range(3):
            await gateway.started.get()
        stream.cancel()
        return {await gateway.dropped.get() for _ in range(3)}

    assert run(scenario) == set("012")


def test_a_thousand_answers_go_to_those_who_asked() -> None:
    async def scenario(channel, *_):
        infer = method(channel, "Infer")

        async def ask(i: int) -> bool:
            x = np.full((1, 4), i, np.float32)
            answer = await infer(question("mlp", x, id=str(i)))
            y = np.frombuffer(answer.outputs[0].raw, "f4")
            return answer.id == str(i) and bool(np.array_equal(y, (x @ WEIGHT)[0]))

        return await asyncio.gather(*map(ask, range(1000)))

    assert all(run(scenario))


def test_models_are_listed_and_told() -> None:
    async def scenario(channel, gateway, _):
        gateway.states["echo"] = "failed"
        listed = await method(channel, "ListModels", pb.ListModelsResponse)(b"")
        told = await method(channel, "GetModel", pb.Model)(pb.GetModelRequest(name="mlp"))
        error = await refused(method(channel, "GetModel", pb.Model)(pb.GetModelRequest(name="no")))
        return listed, told, error

    listed, told, error = run(scenario)

    assert {m.name: m.state for m in listed.models}["echo"] == "failed"
    assert [d.WhichOneof("dim") for d in told.inputs[0].shape] == ["name", "size"]
    assert error.code() is grpc.StatusCode.NOT_FOUND
