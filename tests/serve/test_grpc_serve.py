"""gRPC before the real gateway: a compiled bundle, the guard, the pool, `autoglm serve`."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import numpy as np
import pytest
from serve.tiny import WEIGHTS, dense_bundle, running

from autoglm.serve.guard import GuardOptions
from autoglm.serve.guard.keys import add_key
from autoglm.serve.proto import infer_pb2 as pb
from autoglm.serve.server import ServeOptions

triton = pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
X = np.float32([[1, 2, 3, 4], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dense_bundle(tmp_path_factory.mktemp("grpc"))


def ask(client, x: np.ndarray = X, **options: object) -> np.ndarray:
    """The answer of `dense`, by the real client."""
    made = triton.InferInput("x", list(x.shape), "FP32")
    made.set_data_from_numpy(x)
    return client.infer("dense", [made], **options).as_numpy("y")


def test_a_bundle_answers_the_real_client(bundle: Path) -> None:
    options = ServeOptions([f"dense={bundle}"], {"grpc": "127.0.0.1:0"})

    with running(options) as server:
        address = server.urls["grpc"].removeprefix("grpc://")
        with triton.InferenceServerClient(address) as client:
            y = ask(client)
            ready = client.is_model_ready("dense")
            stats = client.get_inference_statistics("dense").model_stats
            index = client.get_model_repository_index().models
            metadata = client.get_model_metadata("dense")
            with pytest.raises(triton.InferenceServerException) as shape:
                ask(client, X[:, :2])

    np.testing.assert_allclose(y, X @ WEIGHTS, rtol=1e-5)
    assert ready
    assert stats[0].inference_count == 2
    assert [(m.name, m.state) for m in index] == [("dense", "READY")]
    assert list(metadata.inputs[0].shape) == [-1, 4]
    assert shape.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_only_who_has_a_key_is_answered(bundle: Path, tmp_path: Path) -> None:
    _, key = add_key(tmp_path / "keys.json", "alice")
    guard = GuardOptions(tmp_path / "keys.json")

    with running(ServeOptions([f"dense={bundle}"], {"grpc": "127.0.0.1:0"}, guard=guard)) as server:
        address = server.urls["grpc"].removeprefix("grpc://")
        with triton.InferenceServerClient(address) as client:
            with pytest.raises(triton.InferenceServerException) as stranger:
                ask(client)
            y = ask(client, headers={"authorization": f"Bearer {key}"})
            with pytest.raises(triton.InferenceServerException) as change:
                client.unload_model("dense", headers={"authorization": f"Bearer {key}"})

    np.testing.assert_allclose(y, X @ WEIGHTS, rtol=1e-5)
    assert stranger.value.status() == "StatusCode.UNAUTHENTICATED"
    assert change.value.status() == "StatusCode.PERMISSION_DENIED"


def test_a_signal_drains_and_loses_no_accepted_call(bundle: Path) -> None:
    argv = [
        "-c",
        "from autoglm.cli import main; main()",
        "serve",
        f"dense={bundle}",
        "--grpc",
        ":0",
    ]
    server = subprocess.Popen([sys.executable, *argv], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        name, url = server.stdout.readline().split()[:2]
        assert name == "grpc"
        answered, ended = [0] * 4, [""] * 4
        warm = threading.Barrier(5)

        def client(index: int) -> None:
            with grpc.insecure_channel(url.removeprefix("grpc://")) as channel:
                infer = channel.unary_unary("/autoglm.v1.Inference/Infer")
                x = pb.Tensor(name="x", dtype="float32", shape=X.shape, raw=X.tobytes())
                question = pb.InferRequest(model="dense", inputs=[x]).SerializeToString()
                try:
                    while True:
                        infer(question, timeout=60)
                        answered[index] += 1
                        if answered[index] == 10:
                            warm.wait(60)
                except grpc.RpcError as error:
                    ended[index] = error.code().name

        threads = [threading.Thread(target=client, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        warm.wait(60)
        server.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(60)
        assert server.wait(60) == 0
    finally:
        server.kill()
        server.wait(60)

    # What the server had not accepted may be sent elsewhere: UNAVAILABLE says so.
    assert ended == ["UNAVAILABLE"] * 4
    assert min(answered) >= 10
