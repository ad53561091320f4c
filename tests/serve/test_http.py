"""REST, judged by real clients: httpx over HTTP/1.1 and HTTP/2, and tritonclient."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import numpy as np
import pytest
import tritonclient.http as triton
from serve.tiny import WEIGHTS, WIDTH, dense_bundle, running
from tritonclient.utils import InferenceServerException

from autoglm.serve.server import ServeOptions, Server

X = np.random.default_rng(1).standard_normal((3, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    bundle = dense_bundle(tmp_path_factory.mktemp("http"))
    with running(ServeOptions([str(bundle)], {"http": "127.0.0.1:0"})) as server:
        yield server


@pytest.fixture(scope="module", params=["HTTP/1.1", "HTTP/2"])
def client(server: Server, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    two = request.param == "HTTP/2"
    url = server.urls["http"]
    with httpx.Client(base_url=url, http1=not two, http2=two, timeout=60) as client:
        assert client.get("/healthz").http_version == request.param
        yield client


def ask(client: httpx.Client, **message: Any) -> httpx.Response:
    return client.post("/v1/infer", json={"model_name": "dense", **message})


def test_the_envelope_answers_with_the_models_numbers(client: httpx.Client) -> None:
    answer = ask(client, version="1", data=X.tolist(), id="q1")

    assert answer.status_code == 200
    body = answer.json()
    np.testing.assert_allclose(body.pop("result"), X @ WEIGHTS, rtol=1e-5)
    assert body == {
        "status_code": 200,
        "message": "ok",
        "model_name": "dense",
        "version": "1",
        "id": "q1",
    }


def test_the_envelope_takes_inputs_by_name(client: httpx.Client) -> None:
    answer = ask(client, data={"x": X.tolist()}, outputs=["y"])

    np.testing.assert_allclose(answer.json()["result"], X @ WEIGHTS, rtol=1e-5)


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ({"model_name": "nope", "data": [[0] * WIDTH]}, 404),
        ({"version": "7", "data": [[0] * WIDTH]}, 404),
        ({"model_name": 5, "data": []}, 400),
        ({"model_name": "dense"}, 400),
        ({"data": None}, 400),
        ({"data": 3.0}, 400),
        ({"data": []}, 400),
        ({"data": [[]]}, 400),
        ({"data": [[1, 2]]}, 400),
        ({"data": [[1, 2, 3, 4], [1]]}, 400),
        ({"data": [["1", "2", "3", "4"]]}, 400),
        ({"data": [[1, None, 3, 4]]}, 400),
        ({"data": [[True, False, True, True]]}, 400),
        ({"data": [[1e39, 0, 0, 0]]}, 400),
        ({"data": {"z": [[1, 2, 3, 4]]}}, 400),
        ({"data": {"x": {"a": 1}}}, 400),
        ({"data": [[1, 2, 3, 4]], "outputs": ["z"]}, 400),
        ({"data": [[1, 2, 3, 4]], "outputs": [1]}, 400),
        ({"data": [[1, 2, 3, 4]], "timeout_ms": -1}, 400),
        ({"data": [[1, 2, 3, 4]], "priority": "high"}, 400),
        ({"data": [[1, 2, 3, 4]], "timeout_ms": 1e-6}, 504),
    ],
)
def test_each_fault_is_one_status_in_body_and_status_line(
    client: httpx.Client, message: dict[str, Any], status: int
) -> None:
    answer = ask(client, **message)

    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body["result"] is None
    assert body["status_code"] == status
    assert body["message"]
    assert body["code"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"model_name": "dense", "data": [[NaN, 1, 1, 1]]}',
        b'{"model_name": "dense", "data": [[Infinity, 1, 1, 1]]}',
        b'{"model_name": "dense", "data": [[1e999, 1, 1, 1]]}',
        b'{"model_name": "dense", "data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"model_name": "dense", "data": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"model_name": "\xff\xfe"}',
    ],
)
def test_what_is_not_json_is_a_400(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/v1/infer", content=body)

    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid-request"


def test_paths_methods_and_types_that_are_not_there(client: httpx.Client) -> None:
    assert client.get("/nothing").status_code == 404
    wrong = client.get("/v1/infer")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    form = client.post("/v1/infer", content=b"{}", headers={"content-type": "text/xml"})
    assert form.status_code == 415
    assert client.get("/v2/models/../../etc").status_code == 404
    assert client.head("/v1/models").status_code == 200


def test_the_published_schemas_hold(client: httpx.Client) -> None:
    schema = client.get("/v1/schema").json()
    jsonschema.Draft202012Validator.check_schema(schema)
    message = {"model_name": "dense", "version": 1, "data": X.tolist(), "timeout_ms": 60_000}

    jsonschema.validate(message, schema)
    answer = client.post("/v1/infer", json=message).json()
    jsonschema.validate(answer, schema["$defs"]["response"])
    fault = ask(client).json()
    jsonschema.validate(fault, schema["$defs"]["response"])


def test_health_models_metrics_and_route(client: httpx.Client) -> None:
    ask(client, data=X.tolist())
    assert client.get("/readyz").json() == {"ready": True}
    (model,) = client.get("/v1/models").json()["models"]
    assert (model["name"], model["state"]) == ("dense", "ready")
    assert model["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, WIDTH]}]
    assert "autoglm_requests_total" in client.get("/metrics").text
    assert client.get("/v1/route").json()["transport"]
    assert client.get("/v1/pool").json()["models"][0]["name"] == "dense"


def test_a_query_of_too_many_fields_is_a_400(client: httpx.Client) -> None:
    assert (
        client.get("/v1/route", params=dict.fromkeys(map(str, range(65)), "1")).status_code == 400
    )


def test_a_content_length_of_thousands_of_zeros_is_no_mistake_of_ours(server: Server) -> None:
    host, port = server.urls["http"].removeprefix("http://").split(":")
    head = b"POST /v1/infer HTTP/1.1\r\nhost: a\r\ncontent-length: %s\r\n\r\n" % (b"0" * 5000)
    with socket.create_connection((host, int(port)), 20) as peer:
        peer.sendall(head)

        assert peer.recv(12) == b"HTTP/1.1 400"


def test_large_bodies_in_json_and_in_binary_agree(client: httpx.Client) -> None:
    big = np.random.default_rng(2).standard_normal((6000, WIDTH)).astype(np.float32)

    by_json = ask(client, data=big.tolist()).json()["result"]
    ragged = big.tolist()
    ragged[5000] = [1.0]
    short = ask(client, data=ragged)

    np.testing.assert_allclose(by_json, big @ WEIGHTS, rtol=1e-4, atol=1e-5)
    assert short.status_code == 400


# -- Open Inference Protocol, by tritonclient


@pytest.fixture
def oip(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.urls["http"].removeprefix("http://")) as client:
        yield client


def tensor(array: np.ndarray, *, binary: bool) -> triton.InferInput:
    value = triton.InferInput("x", list(array.shape), "FP32")
    value.set_data_from_numpy(array, binary_data=binary)
    return value


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_triton_infers(
    oip: triton.InferenceServerClient, binary_in: bool, binary_out: bool | None
) -> None:
    outputs = None
    if binary_out is not None:
        outputs = [triton.InferRequestedOutput("y", binary_data=binary_out)]

    answer = oip.infer("dense", [tensor(X, binary=binary_in)], outputs=outputs, request_id="a7")

    np.testing.assert_allclose(answer.as_numpy("y"), X @ WEIGHTS, rtol=1e-5)
    assert answer.get_response()["model_version"] == "1"
    assert answer.get_response()["id"] == "a7"


def test_binary_carries_nan_both_ways(oip: triton.InferenceServerClient) -> None:
    odd = np.full((1, WIDTH), np.nan, np.float32)

    answer = oip.infer("dense", [tensor(odd, binary=True)]).as_numpy("y")

    assert np.isnan(answer).all()


def test_triton_sees_server_model_and_repository(oip: triton.InferenceServerClient) -> None:
    assert oip.is_server_live()
    assert oip.is_server_ready()
    assert oip.is_model_ready("dense")
    assert oip.is_model_ready("dense", "1")
    assert not oip.is_model_ready("nope")
    assert "binary_tensor_data" in oip.get_server_metadata()["extensions"]
    assert oip.get_model_metadata("dense")["outputs"][0]["shape"] == [-1, 3]
    assert oip.get_model_config("dense")["input"][0]["data_type"] == "TYPE_FP32"
    assert oip.get_model_repository_index() == [
        {"name": "dense", "version": "1", "state": "READY", "reason": ""}
    ]
    oip.infer("dense", [tensor(X, binary=True)])
    (stats,) = oip.get_inference_statistics("dense")["model_stats"]
    assert stats["inference_stats"]["success"]["count"] >= 1
    assert stats["inference_count"] >= 3
    assert oip.get_inference_statistics()["model_stats"]


def test_triton_unloads_and_loads(oip: triton.InferenceServerClient) -> None:
    oip.unload_model("dense")
    assert not oip.is_model_ready("dense")
    with pytest.raises(InferenceServerException):
        oip.infer("dense", [tensor(X, binary=True)])

    oip.load_model("dense")

    assert oip.is_model_ready("dense")
    np.testing.assert_allclose(
        oip.infer("dense", [tensor(X, binary=True)]).as_numpy("y"), X @ WEIGHTS, rtol=1e-5
    )


def test_loading_takes_no_files_from_a_client(oip: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException) as caught:
        oip.load_model("dense", files={"file:1/model.onnx": b"x"})

    assert "501" in str(caught.value.status())


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [2, WIDTH]},
        {"shape": [-1, -WIDTH]},
        {"shape": [1.5]},
        {"shape": "big"},
        {"datatype": "FP99"},
        {"datatype": "INT64"},
        {"name": "z"},
        {"name": None},
        {"data": None},
        {"data": [1, 2, 3, "4"]},
        {"parameters": {"binary_data_size": 16}},
        {"parameters": {"binary_data_size": -1}},
    ],
)
def test_a_wrong_v2_tensor_is_a_400_with_triton_s_error(
    server: Server, change: dict[str, Any]
) -> None:
    row = {"name": "x", "datatype": "FP32", "shape": [1, WIDTH], "data": [1, 2, 3, 4], **change}

    answer = httpx.post(f"{server.urls['http']}/v2/models/dense/infer", json={"inputs": [row]})

    assert answer.status_code == 400
    assert answer.json()["error"]


@pytest.mark.parametrize("length", ["-1", "x", "99999999999999999999", "1", "0" * 5000])
def test_a_wrong_header_length_is_a_400(server: Server, length: str) -> None:
    answer = httpx.post(
        f"{server.urls['http']}/v2/models/dense/infer",
        content=b'{"inputs": []}',
        headers={"Inference-Header-Content-Length": length},
    )

    assert answer.status_code == 400
