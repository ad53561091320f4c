"""Messages of autoglm.v1 and of serve.core say the same."""

from __future__ import annotations

import math
import time
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from autoglm.errors import AutoGLMError, InvalidRequestError, OverloadedError
from autoglm.serve.core import ModelInfo, Response
from autoglm.serve.proto import convert, tensors
from autoglm.serve.proto import infer_pb2 as pb
from autoglm.spec import TensorInfo
from autoglm.tensor.dtype import DTYPES

NUMERIC = [name for name in DTYPES if name != "string"]


def tensor(dtype: str, shape: list[int], raw: bytes = b"", **values: list[object]) -> pb.Tensor:
    """A Tensor named x."""
    filled = pb.Values(**values) if values else None
    return pb.Tensor(name="x", dtype=dtype, shape=shape, raw=raw, values=filled)


@pytest.mark.parametrize("dtype", NUMERIC)
def test_what_came_raw_has_the_very_dtype_that_quick_checks_look_for(dtype: str) -> None:
    raw = bytes(DTYPES[dtype].numpy.itemsize)

    assert tensors.decode("x", dtype, (1,), raw).dtype is DTYPES[dtype].numpy


@given(
    st.sampled_from([n for n in NUMERIC if DTYPES[n].bits >= 8]),
    npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    st.randoms(use_true_random=False),
)
def test_an_array_comes_back_bit_for_bit(dtype: str, shape: tuple[int, ...], random) -> None:
    size = DTYPES[dtype].numpy.itemsize * math.prod(shape)
    raw = bytes(random.randrange(2) for _ in range(size))
    sent = np.frombuffer(raw, DTYPES[dtype].numpy).reshape(shape)

    message = convert.from_response(Response("m", "1", {"x": sent}))
    again = convert.to_value(pb.InferResponse.FromString(message.SerializeToString()).outputs[0])

    assert (again.dtype, again.shape, again.tobytes()) == (sent.dtype, shape, raw)


@given(npst.arrays(object, npst.array_shapes(min_side=0, max_side=4), elements=st.text(max_size=5)))
def test_strings_come_back(sent: np.ndarray) -> None:
    dtype, shape, raw = tensors.encode(sent)

    again = tensors.decode("x", dtype, shape, raw)

    assert again.shape == sent.shape
    assert again.tolist() == sent.tolist()


def test_big_endian_and_strided_arrays_leave_as_little_endian_rows() -> None:
    sent = np.arange(12, dtype=">i4").reshape(3, 4).T[::2]

    again = tensors.decode("x", *tensors.encode(sent))

    assert again.tolist() == sent.tolist()


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        ("float32", {"floats": [1.5, 2]}, [1.5, 2]),
        ("float16", {"doubles": [1.5, 2]}, [1.5, 2]),
        ("int8", {"ints": [-1, 2]}, [-1, 2]),
        ("uint64", {"uints": [1, 2**64 - 1]}, [1, 2**64 - 1]),
        ("bool", {"bools": [True, False]}, [True, False]),
        ("string", {"strings": ["a", "é"]}, ["a", "é"]),
    ],
)
def test_typed_values_are_read(dtype: str, values: dict, expected: list[object]) -> None:
    array = convert.to_value(tensor(dtype, [2], **values))

    assert array.tolist() == expected
    assert array.dtype == DTYPES[dtype].numpy


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (tensor("float32", [2], b"123"), "does not have 3 bytes"),
        (tensor("float32", [-1], b"1234"), "does not have 4 bytes"),
        (tensor("float32", [2**62, 2**62], b""), "does not have 0 bytes"),
        (tensor("float32", [0, 2**62], b""), "do not fill shape"),
        (tensor("float32", [1] * 40, b"1234"), "do not fill shape"),
        (tensor("float31", [1], b"1234"), "known: float32"),
        (tensor("bool", [2], b"\x00\x02"), "0 or 1"),
        (tensor("string", [1], b"\x05\x00\x00\x00ab"), "runs past the end"),
        (tensor("string", [1], b"\x05\x00"), "runs past the end"),
        (tensor("string", [1], b"\x01\x00\x00\x00\xff"), "not UTF-8"),
        (tensor("string", [2], b"\x01\x00\x00\x00a"), "do not fill shape"),
        (tensor("int8", [1], ints=[300]), "cannot hold"),
        (tensor("float16", [1], doubles=[1e300]), "cannot hold"),
        (tensor("int8", [1], floats=[1.5]), "holds its elements in floats"),
        (tensor("float32", [3], floats=[1, 2]), "do not fill shape"),
        (tensor("float32", [1], b"1234", floats=[1]), "raw and floats"),
        (tensor("float32", [1], floats=[1], doubles=[1]), "floats and doubles"),
    ],
)
def test_a_tensor_that_is_none_is_refused(message: pb.Tensor, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        convert.to_value(message)


def test_a_request_keeps_every_field() -> None:
    message = pb.InferRequest(
        model="m",
        version="2",
        id="7",
        inputs=[tensor("float32", [1], floats=[1])],
        outputs=["y"],
        timeout_s=5,
        priority=-3,
        traceparent="00-0-0-01",
    )
    message.parameters["flag"].bool_value = True
    message.parameters["none"].SetInParent()
    before = time.monotonic()

    request = convert.to_request(message.SerializeToString())

    assert (request.model, request.version, request.id) == ("m", "2", "7")
    assert (request.outputs, request.priority) == (("y",), -3)
    assert request.parameters == {"flag": True}
    assert request.traceparent == "00-0-0-01"
    assert request.deadline is not None
    assert before < request.deadline <= time.monotonic() + 5


@pytest.mark.parametrize("timeout_s", [math.nan, math.inf, -1.0])
def test_a_time_out_is_a_positive_number(timeout_s: float) -> None:
    with pytest.raises(InvalidRequestError, match="positive number"):
        convert.to_request(pb.InferRequest(timeout_s=timeout_s))


def test_an_input_given_twice_is_refused() -> None:
    twice = pb.InferRequest(inputs=[tensor("float32", [0])] * 2)

    with pytest.raises(InvalidRequestError, match="given twice"):
        convert.to_request(twice)


@pytest.mark.parametrize("value", [True, -7, 2.5, "text"])
def test_a_parameter_of_the_answer_keeps_its_type(value: object) -> None:
    message = convert.from_response(Response("m", "1", {}, parameters={"p": value}))

    again = convert.to_parameters(message.parameters)["p"]

    assert (type(again), again) == (type(value), value)


def test_an_error_says_its_code_its_facts_and_when_to_come_back() -> None:
    error = OverloadedError("{rows} rows wait.", hint="Later.", rows=9, retry_after_s=0.25)

    message = convert.from_error(error, "7")

    assert message.id == "7"
    assert message.error.code == "overloaded"
    assert message.error.message == "9 rows wait."
    assert (message.error.http_status, message.error.grpc_status) == (429, "RESOURCE_EXHAUSTED")
    assert message.error.retry_after_s == 0.25
    assert message.error.facts["rows"] == "9"


@given(st.dictionaries(st.text(), st.text() | st.floats() | st.binary(), max_size=30), st.text())
def test_any_error_fits_the_trailing_metadata(facts: dict[str, object], text: str) -> None:
    error = AutoGLMError("", hint="")
    error.facts = {key * 50: value for key, value in facts.items()}
    error.args = (text * 2000,)

    message = convert.to_error(error)

    assert message.ByteSize() < 4096


def test_a_lone_surrogate_in_an_error_does_not_break_the_answer() -> None:
    message = convert.to_error(AutoGLMError("bad \udc80"))

    assert message.message == "bad ?"


def test_what_a_model_is_like_survives() -> None:
    x = TensorInfo("x", "float32", ("n", None, 4))
    any_rank = TensorInfo("y", "int64", None)

    model = convert.from_model(ModelInfo("m", "1", (x,), (any_rank,), "ready", labels=("int8",)))

    dims = model.inputs[0].shape
    assert [d.WhichOneof("dim") for d in dims] == ["name", None, "size"]
    assert (dims[0].name, dims[2].size) == ("n", 4)
    assert model.outputs[0].any_rank
    assert list(model.labels) == ["int8"]


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_random_bytes_are_a_request_or_a_clear_refusal(raw: bytes) -> None:
    with suppress(InvalidRequestError):
        convert.to_request(raw)
