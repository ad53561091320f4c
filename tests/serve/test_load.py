"""The load generator against servers that misbehave: everything is counted, nothing hangs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from autoglm.errors import ConfigError, ModelNotServedError, OverloadedError, ServeError
from autoglm.serve.load.answers import Judge, Signature
from autoglm.serve.load.mqtt import Mqtt, _Run
from autoglm.serve.load.refusal import NoServerError
from autoglm.serve.load.run import Asking, Report, measure
from autoglm.serve.load.tally import Tally
from autoglm.serve.load.target import Target
from autoglm.spec import TensorInfo

METADATA = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
}
Answer = Callable[[BaseHTTPRequestHandler, int], None]


def outputs(*values: float) -> bytes:
    row = {"name": "y", "datatype": "FP32", "shape": [1, len(values)], "data": values}
    return json.dumps({"model_name": "m", "outputs": [row]}).encode()


def reply(call: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    call.send_response(status)
    call.send_header("content-length", str(len(body)))
    for name, value in headers.items():
        call.send_header(name, value)
    call.end_headers()
    call.wfile.write(body)


@contextmanager
def server(answer: Answer, metadata: Any = METADATA) -> Iterator[str]:
    """Answers the n-th inference request as `answer` says, n from 0."""
    count = iter(range(1 << 30))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            reply(self, json.dumps(metadata).encode())

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            answer(self, next(count))

        def log_message(self, *_: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        made.daemon_threads = True
        made.block_on_close = False
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{made.server_port}"
        finally:
            made.shutdown()
            thread.join(10)


def pressed(url: str, *, timeout_s: float = 20.0, seconds: float = 0.2, **said: Any) -> Report:
    asking = Asking(concurrency=(2,), seconds=seconds, **said)
    return measure(Target(url, "m", timeout_s=timeout_s), asking)


def test_right_answers_are_timed_and_counted() -> None:
    with server(lambda call, _: reply(call, outputs(1, 2))) as url:
        report = pressed(url)

    (load,) = report.loads
    assert report.right
    assert load.requests > 0
    assert 0 < load.p50_ms <= load.p90_ms <= load.p99_ms <= load.max_ms
    assert load.received_bytes > load.requests * len(outputs(1, 2))
    assert report.inputs == {"x": "float32 1x2"}


def test_an_answer_that_differs_is_an_error_and_rounding_is_none() -> None:
    def answer(call: BaseHTTPRequestHandler, n: int) -> None:
        reply(call, outputs(1, 2 + 1e-6 * (n % 2) + (n % 5 == 4)))

    with server(answer) as url:
        report = pressed(url)

    (load,) = report.loads
    assert not report.right
    assert load.requests > 0
    assert list(load.faults) == ["different"]
    assert "expected 2, found 3" in load.faults["different"].message


def test_refusals_are_counted_by_code_with_the_first_message() -> None:
    def answer(call: BaseHTTPRequestHandler, n: int) -> None:
        if n % 3:
            told = {"error": f"full at {n}", "code": "overloaded"}
            reply(call, json.dumps(told).encode(), 429)
        else:
            reply(call, outputs(1, 2))

    with server(answer) as url:
        (load,) = pressed(url).loads

    assert list(load.faults) == ["429 overloaded"]
    assert load.faults["429 overloaded"].message.startswith("full at ")
    assert load.errors == load.faults["429 overloaded"].count > 1
    assert load.requests > 0


def test_a_server_that_closes_after_each_answer_is_asked_on_new_connections() -> None:
    def answer(call: BaseHTTPRequestHandler, n: int) -> None:
        reply(call, outputs(1, 2), connection="close")

    with server(answer) as url:
        report = pressed(url)

    assert report.right
    assert report.loads[0].requests > 2


def test_a_connection_lost_before_its_answer_is_an_error_and_the_client_comes_back() -> None:
    def answer(call: BaseHTTPRequestHandler, n: int) -> None:
        if n % 2:
            call.close_connection = True
        else:
            reply(call, outputs(1, 2))

    with server(answer) as url:
        (load,) = pressed(url).loads

    assert load.requests > 0
    assert list(load.faults) == ["connection"]


def test_an_answer_that_does_not_come_is_given_up() -> None:
    held = threading.Event()

    def answer(call: BaseHTTPRequestHandler, n: int) -> None:
        if n:
            held.wait(30)
            call.close_connection = True
        else:
            reply(call, outputs(1, 2))

    with server(answer) as url:
        (load,) = pressed(url, timeout_s=0.3).loads
        held.set()

    assert load.requests == 0
    assert load.faults["timeout"].count >= 2
    assert "0.3 s" in load.faults["timeout"].message


def test_chunked_answers_are_read() -> None:
    def answer(call: BaseHTTPRequestHandler, n: int) -> None:
        call.send_response(200)
        call.send_header("transfer-encoding", "chunked")
        call.end_headers()
        body = outputs(1, 2)
        for part in (body[:10], body[10:], b""):
            call.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))

    with server(answer) as url:
        report = pressed(url)

    assert report.right
    assert report.loads[0].requests > 0


def test_an_answer_that_is_not_as_the_metadata_says_is_told() -> None:
    with server(lambda call, _: reply(call, outputs(1, 2, 3))) as url:
        report = pressed(url)

    assert not report.right
    assert report.unfit == ["output y is float32 1x3; the metadata says float32 ?x2"]


def test_a_refusal_of_the_first_question_is_the_error() -> None:
    def answer(call: BaseHTTPRequestHandler, n: int) -> None:
        reply(call, b'{"error": "no room", "code": "overloaded"}', 429)

    with server(answer) as url, pytest.raises(OverloadedError, match="429: no room"):
        pressed(url)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"outputs": [{"name": "y"}]}'])
def test_an_answer_that_is_no_inference_is_said(body: bytes) -> None:
    with (
        server(lambda call, _: reply(call, body)) as url,
        pytest.raises(ServeError, match="cannot be read"),
    ):
        pressed(url)


def test_metadata_that_are_none_are_said() -> None:
    with (
        server(lambda call, _: reply(call, b""), metadata=["x"]) as url,
        pytest.raises(NoServerError, match="does not tell the model's inputs"),
    ):
        pressed(url)


@pytest.mark.parametrize("body", [b"<html>", b'{"models": []}', b"[1]", b"7"])
def test_an_index_that_is_none_is_said(body: bytes) -> None:
    with (
        server(lambda call, _: reply(call, body)) as url,
        pytest.raises(NoServerError, match="does not list its models") as refused,
    ):
        measure(Target(url, ""), Asking())
    assert "--model" in refused.value.hint


@pytest.mark.parametrize("model", ["", "m"])
def test_a_grpc_server_of_other_messages_is_said(model: str) -> None:
    import grpc

    class Other(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, _: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(lambda _question, _context: b"\xff")

    made = grpc.server(ThreadPoolExecutor(1), handlers=[Other()])
    port = made.add_insecure_port("127.0.0.1:0")
    made.start()
    try:
        with pytest.raises(NoServerError, match=r"does not (list|tell)"):
            measure(Target(f"grpc://127.0.0.1:{port}", model), Asking())
    finally:
        made.stop(None)


@pytest.mark.parametrize(
    ("given", "first"), [(SimpleNamespace(ReceiveMaximum=2), 2), (SimpleNamespace(), 3)]
)
def test_the_broker_gets_no_more_questions_at_once_than_it_takes(given: Any, first: int) -> None:
    sent: list[bytes] = []

    def publish(_topic: str, _payload: bytes, _qos: int, _retain: bool, said: Any) -> Any:
        sent.append(said.CorrelationData)
        return SimpleNamespace(mid=len(sent))

    client: Any = SimpleNamespace(publish=publish, subscribe=lambda *_: None)
    taken = SimpleNamespace(is_failure=False, value=0)
    run = _Run(Mqtt(Target("mqtt://127.0.0.1", "m")), Tally(1.0), b"question")
    run.attach(client)
    client.on_connect(client, None, None, taken, given)

    for _ in range(3):
        run.ask()
    assert len(sent) == first
    client.on_publish(client, None, 1, taken, None)
    assert sent == [b"1", b"2", b"3"]


@pytest.mark.parametrize(
    "url",
    [
        "http://me:secret@host:8000",
        "ftp://me:secret@host",
        "grpc://me:secret@host:nine",
        "http://me:sec/secret@host",
        "me:secret@host",
        "http://me:secret@[::1",
    ],
)
def test_no_refusal_of_an_address_shows_its_password(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Target(url, "m", protocol="mqtt").resolved()

    assert "secret" not in str(refused.value)
    assert url.rpartition("@")[2] in str(refused.value)


def test_empty_metadata_need_a_shape_or_a_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((3, 2), np.float32))
    empty = {"inputs": [], "outputs": []}

    with server(lambda call, _: reply(call, outputs(1, 2)), metadata=empty) as url:
        with pytest.raises(Exception, match="does not tell") as refused:
            pressed(url)
        shaped = pressed(url, shapes={"x": (4, 2)})
        filed = pressed(url, inputs=str(tmp_path / "x.npz"))

    assert "--shape" in refused.value.hint  # type: ignore[attr-defined]
    assert shaped.inputs == {"x": "float32 4x2"}
    assert filed.inputs == {"x": "float32 3x2"}


def test_an_unknown_model_is_the_servers_own_error() -> None:
    class Nothing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            reply(self, b'{"error": "Model m does not exist."}', 404)

        def log_message(self, *_: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Nothing) as made:
        threading.Thread(target=made.handle_request).start()
        with pytest.raises(ModelNotServedError, match="404: Model m does not exist"):
            pressed(f"http://127.0.0.1:{made.server_port}")


def test_what_speaks_no_http_is_said() -> None:
    import socketserver

    class Other(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.request.recv(4096)
            self.wfile.write(b"220 mail ready\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Other) as made:
        threading.Thread(target=made.handle_request).start()
        with pytest.raises(NoServerError, match="no HTTP"):
            pressed(f"http://127.0.0.1:{made.server_address[1]}")


def test_the_generator_knows_when_it_was_the_limit() -> None:
    busy, idle = Tally(0.2), Tally(0.2)
    busy.start()
    while time.perf_counter() < busy.end:
        pass
    spinning = busy.load(1)
    idle.start()
    time.sleep(0.2)
    sleeping = idle.load(1)

    assert spinning.limited
    assert not sleeping.limited


def test_half_precision_may_differ_further() -> None:
    def decode(body: bytes, _: Any) -> dict[str, Any]:
        return {"y": np.frombuffer(body, np.float16)}

    judge = Judge(decode, np.float16([1, 2]).tobytes())

    assert judge.difference(np.float16([1, 2.01]).tobytes()) == ""
    assert "expected 2, found 3" in judge.difference(np.float16([1, 3]).tobytes())


def test_a_missing_output_is_told() -> None:
    told = Signature((), (TensorInfo("y", "float32", (None,)),))

    assert told.unfit({"z": np.zeros(1, np.float32)}) == [
        "output y is missing",
        "output z is not in the model's metadata",
    ]


def test_whole_numbers_must_be_equal() -> None:
    def decode(body: bytes, _: Any) -> dict[str, Any]:
        return {"y": np.frombuffer(body, np.int8)}

    judge = Judge(decode, np.zeros(1000, np.int8).tobytes())

    assert "1 of 1000" in judge.difference(np.eye(1, 1000, dtype=np.int8).tobytes())
