"""`inference.GRPCInferenceService`, judged by the real tritonclient."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pytest
from serve.grpc_kit import WEIGHT, SmallGateway, run, serving

from autoglm.serve.proto import oip_pb2 as pb

triton = pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
X = np.arange(8, dtype=np.float32).reshape(2, 4)


def with_client(scenario: Callable[[Any], Any], gateway: SmallGateway | None = None) -> Any:
    """Run `scenario(client)` in a thread, with the blocking client of tritonclient."""

    def blocking(address: str) -> Any:
        with triton.InferenceServerClient(address) as client:
            return scenario(client)

    async def main() -> Any:
        async with asyncio.timeout(60), serving(gateway or SmallGateway()) as (address, _):
            return await asyncio.to_thread(blocking, address)

    return asyncio.run(main())


def tensor(name: str, array: np.ndarray, datatype: str) -> Any:
    """One input as the client makes it."""
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def code(error: Any) -> str:
    """The status of a client's exception."""
    return error.value.status().removeprefix("StatusCode.")


def test_health_and_metadata() -> None:
    def scenario(client):
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("mlp")
        assert client.is_model_ready("mlp", "1")
        assert not client.is_model_ready("mlp", "9")
        assert client.get_server_metadata().name == "autoglm"
        return client.get_model_metadata("mlp", as_json=True)

    told = with_client(scenario)

    assert told["versions"] == ["1"]
    assert told["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "4"]}]


def test_inference_with_named_outputs_id_and_parameters() -> None:
    gateway = SmallGateway()

    def scenario(client):
        outputs = [triton.InferRequestedOutput("y")]
        return client.infer(
            "mlp",
            [tensor("x", X, "FP32")],
            model_version="1",
            request_id="7",
            outputs=outputs,
            priority=2,
            timeout=50_000_000,
            parameters={"text": "t", "flag": True, "number": 3, "real": 0.5},
            headers={"traceparent": "00-1-2-01"},
        )

    result = with_client(scenario, gateway)

    np.testing.assert_array_equal(result.as_numpy("y"), X @ WEIGHT)
    assert result.get_response().id == "7"
    request = gateway.seen[0]
    assert (request.outputs, request.priority, request.traceparent) == (("y",), 2, "00-1-2-01")
    assert request.deadline is not None
    sent = {k: request.parameters[k] for k in ("text", "flag", "number", "real")}
    assert sent == {"text": "t", "flag": True, "number": 3, "real": 0.5}


@pytest.mark.parametrize(
    ("datatype", "array"),
    [
        ("BOOL", np.array([[True, False]])),
        ("UINT8", np.array([0, 255], np.uint8)),
        ("INT64", np.array([-(2**63)], np.int64)),
        ("UINT64", np.array([2**64 - 1], np.uint64)),
        ("FP16", np.array([1.5, -2], np.float16)),
        ("FP64", np.array([[1e300]], np.float64)),
        ("BF16", np.array([1.5, -2], ml_dtypes.bfloat16)),
        ("BYTES", np.array([["a", "é"], ["", "long" * 100]], object)),
        ("FP32", np.zeros((0, 3), np.float32)),
        ("INT32", np.array(7, np.int32)),
    ],
)
def test_every_datatype_comes_back(datatype: str, array: np.ndarray) -> None:
    def scenario(client):
        return client.infer("echo", [tensor("a", array, datatype)]).as_numpy("a")

    answer = with_client(scenario)

    text = np.vectorize(lambda b: b.decode(), otypes=[object])
    assert (text(answer) if datatype == "BYTES" else answer).tolist() == array.tolist()


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests_are_read(algorithm: str) -> None:
    def scenario(client):
        inputs = [tensor("x", np.zeros((4096, 4), np.float32), "FP32")]
        return client.infer("mlp", inputs, compression_algorithm=algorithm).as_numpy("y")

    assert with_client(scenario).shape == (4096, 10)


def test_faults_have_their_status_and_their_reason() -> None:
    def scenario(client):
        with pytest.raises(triton.InferenceServerException) as unknown:
            client.infer("no", [tensor("x", X, "FP32")])
        with pytest.raises(triton.InferenceServerException) as shape:
            client.infer("mlp", [tensor("x", X[:, :2], "FP32")])
        with pytest.raises(triton.InferenceServerException) as late:
            client.infer("slow", [tensor("x", X, "FP32")], client_timeout=0.3)
        return code(unknown), code(shape), code(late), unknown.value.message()

    *codes, message = with_client(scenario)

    assert codes == ["NOT_FOUND", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED"]
    assert "there are mlp, echo, slow" in message


def test_the_repository() -> None:
    gateway = SmallGateway()
    admin = {"role": "admin"}

    def scenario(client):
        client.unload_model("echo", headers=admin)
        gone = client.is_model_ready("echo")
        client.load_model("echo", headers=admin)
        gateway.states["slow"] = "failed"
        with pytest.raises(triton.InferenceServerException) as stranger:
            client.unload_model("echo")
        with pytest.raises(triton.InferenceServerException) as config:
            client.load_model("echo", headers=admin, config="{}")
        index = client.get_model_repository_index(as_json=True)["models"]
        return gone, code(stranger), code(config), {m["name"]: m["state"] for m in index}

    gone, stranger, config, states = with_client(scenario, gateway)

    assert not gone
    assert (stranger, config) == ("PERMISSION_DENIED", "UNIMPLEMENTED")
    assert states == {"mlp": "READY", "slow": "UNAVAILABLE", "echo": "READY"}


def test_config_and_statistics() -> None:
    def scenario(client):
        client.infer("mlp", [tensor("x", X, "FP32")])
        config = client.get_model_config("mlp").config
        one = client.get_inference_statistics("mlp").model_stats
        every = client.get_inference_statistics().model_stats
        return config, one, every

    config, one, every = with_client(scenario)

    assert (config.input[0].name, list(config.input[0].dims)) == ("x", [-1, 4])
    assert config.input[0].data_type == 11  # TYPE_FP32
    assert [(s.inference_count, s.inference_stats.success.ns) for s in one] == [(1, 1000)]
    assert {s.name for s in every} == {"mlp", "echo", "slow"}


def test_a_stream_answers_in_order_and_survives_a_fault() -> None:
    def scenario(client):
        answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        client.start_stream(lambda result, error: answers.put((result, error)))
        for i in range(20):
            model = "no" if i == 7 else "mlp"
            client.async_stream_infer(model, [tensor("x", X * i, "FP32")], request_id=str(i))
        found = [answers.get(timeout=30) for _ in range(20)]
        client.stop_stream()
        return found

    found = with_client(scenario)

    assert "No model 'no'" in found[7][1].message()
    ids = [result.get_response().id for result, error in found if error is None]
    assert ids == [str(i) for i in range(20) if i != 7]


def request(**fields: object) -> pb.ModelInferRequest:
    """A question to `echo` with one input `a`."""
    return pb.ModelInferRequest(model_name="echo", **fields)


def contents(datatype: str, shape: list[int], **lists: object) -> dict[str, object]:
    """The fields of one input with typed contents."""
    held = pb.InferTensorContents(**lists) if lists else None
    one = pb.ModelInferRequest.InferInputTensor(
        name="a", datatype=datatype, shape=shape, contents=held
    )
    return {"inputs": [one]}


def ask(message: pb.ModelInferRequest) -> pb.ModelInferResponse:
    """Ask with a message made by hand."""

    async def scenario(channel, *_):
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        return pb.ModelInferResponse.FromString(await call(message.SerializeToString()))

    return run(scenario)


@pytest.mark.parametrize(
    ("datatype", "lists", "raw"),
    [
        ("FP32", {"fp32_contents": [1, 2]}, np.array([1, 2], "f4").tobytes()),
        ("INT8", {"int_contents": [-1, 2]}, b"\xff\x02"),
        ("UINT64", {"uint64_contents": [1, 2]}, np.array([1, 2], "u8").tobytes()),
        ("BOOL", {"bool_contents": [True, False]}, b"\x01\x00"),
        ("BYTES", {"bytes_contents": [b"a", b"bc"]}, b"\x01\0\0\0a\x02\0\0\0bc"),
    ],
)
def test_typed_contents_are_read(datatype: str, lists: dict, raw: bytes) -> None:
    answer = ask(request(**contents(datatype, [2], **lists)))

    assert (answer.outputs[0].datatype, answer.raw_output_contents[0]) == (datatype, raw)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (request(**contents("FP32", [2], int_contents=[1, 2])), "found int_contents"),
        (request(**contents("FP16", [2], fp32_contents=[1, 2])), "found fp32_contents"),
        (request(**contents("INT8", [1], int_contents=[300])), "cannot hold"),
        (request(**contents("FP99", [1])), "known: BOOL"),
        (request(raw_input_contents=[b""]), "0 inputs and 1"),
        (
            request(**contents("FP32", [1], fp32_contents=[1]), raw_input_contents=[b"1"]),
            "1 inputs",
        ),
        (request(**contents("FP32", [-1]), raw_input_contents=[b"1234"]), "does not have 4 bytes"),
        (request(parameters={"priority": pb.InferParameter(string_param="x")}), "an integer"),
    ],
)
def test_a_message_that_makes_no_sense_is_refused(message, said: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        ask(message)

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert said in caught.value.details()
