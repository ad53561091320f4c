"""Version 1 of the schema only grows: buf says so, and clients and servers of two ages agree."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from serve.grpc_kit import WEIGHT, run

from autoglm.serve.proto import infer_pb2 as pb

HERE = Path(__file__).parent
FILE = "autoglm/v1/infer.proto"
PRESENT = Path(pb.__file__).with_name("autoglm") / "v1" / "infer.proto"
FIRST = HERE / "schemas" / "v1_first" / FILE
X = np.arange(8, dtype=np.float32).reshape(2, 4)

# What a next generation may add.
ADDED = {
    "message InferRequest {": "message InferRequest {\n  string tenant = 100;\n  Hint hint = 101;",
    "message InferResponse {": "message InferResponse {\n  double seconds = 100;",
    "    string string_value = 4;": "    string string_value = 4;\n    bytes bytes_value = 5;",
    "message ListModelsRequest {}": "message ListModelsRequest { string prefix = 1; }"
    "\nmessage Hint { repeated int32 shard = 1; }",
    "  rpc GetModel": "  rpc Forget(GetModelRequest) returns (Model);\n  rpc GetModel",
}
# What none may do: one edit each.
BREAKING = {
    "a number changes": ("string id = 3;", "string id = 33;"),
    "a type changes": ("int32 priority = 8;", "string priority = 8;"),
    "a field goes": ("  string traceparent = 9;", ""),
    "a field is renamed": ("bytes raw = 4;", "bytes data = 4;"),
    "a list becomes one": ("repeated Tensor inputs = 4;", "Tensor inputs = 4;"),
    "a field leaves its oneof": (
        "    string string_value = 4;\n  }",
        "  }\n  string string_value = 4;",
    ),
    "a method goes": ("  rpc GetModel(GetModelRequest) returns (Model);", ""),
    "a stream ends": ("returns (stream InferResponse)", "returns (InferResponse)"),
    "the package changes": ("package autoglm.v1;", "package autoglm.v2;"),
}


def edited(text: str, *edits: tuple[str, str]) -> str:
    """`text` with each edit made, all of which must be there to make."""
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new)
    return text


@functools.cache
def _found() -> tuple[str, str]:
    """The program as npm brings it, or why it cannot."""
    if not (npm := shutil.which("npm")):
        return "", "npm is not installed, which brings buf"
    asked = [npm, "exec", "--yes", "--package=@bufbuild/buf@^1.50", "-c", "command -v buf"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=200, check=False)
    except subprocess.TimeoutExpired:
        return "", "npm did not bring @bufbuild/buf within 200 s"
    if done.returncode:
        return "", f"npm does not get @bufbuild/buf: {done.stderr[-300:]}"
    return done.stdout.strip().splitlines()[-1], ""


def buf() -> str:
    """The program; skips where there is none."""
    path, reason = _found()
    if reason:
        pytest.skip(reason)
    return path


def breaking(folder: Path, new: str, old: str) -> subprocess.CompletedProcess[str]:
    """`buf breaking` of one schema against another."""
    for name, text in (("new", new), ("old", old)):
        path = folder / name / FILE
        path.parent.mkdir(parents=True)
        path.write_text(text)
        (folder / name / "buf.yaml").write_text("version: v2\nbreaking:\n  use: [FILE]\n")
    return subprocess.run(
        [buf(), "breaking", "new", "--against", "old"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "BUF_CACHE_DIR": str(folder)},
    )


def test_the_present_schema_breaks_no_client_of_the_first(tmp_path: Path) -> None:
    done = breaking(tmp_path, PRESENT.read_text(), FIRST.read_text())

    assert done.returncode == 0, done.stdout + done.stderr


def test_an_addition_passes_the_gate(tmp_path: Path) -> None:
    done = breaking(tmp_path, edited(PRESENT.read_text(), *ADDED.items()), PRESENT.read_text())

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("what", BREAKING)
def test_a_break_does_not_pass_the_gate(tmp_path: Path, what: str) -> None:
    done = breaking(tmp_path, edited(PRESENT.read_text(), BREAKING[what]), PRESENT.read_text())

    assert done.returncode == 100, done.stdout + done.stderr  # buf's status for "breaks"
    assert "infer.proto" in done.stdout


@functools.cache
def generation(text: str) -> SimpleNamespace:
    """The message classes of a schema, in a pool of their own."""
    protoc = pytest.importorskip("grpc_tools.protoc", reason="grpcio-tools is not installed")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, FILE)
        path.parent.mkdir(parents=True)
        path.write_text(text)
        made = Path(folder, "set")
        assert protoc.main(["", f"-I{folder}", f"--descriptor_set_out={made}", str(path)]) == 0
        files = descriptor_pb2.FileDescriptorSet.FromString(made.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(files.file[0])
    found = pool.FindFileByName(FILE).message_types_by_name
    return SimpleNamespace(**{n: message_factory.GetMessageClass(d) for n, d in found.items()})


def first() -> SimpleNamespace:
    """The oldest generation kept."""
    return generation(FIRST.read_text())


def following() -> SimpleNamespace:
    """A generation that is yet to come."""
    return generation(edited(PRESENT.read_text(), *ADDED.items()))


def asked_by(messages: SimpleNamespace, **fields: object):
    """A client of that generation asks the present server; its answer, and the server's request."""

    async def scenario(channel, gateway, _):
        x = messages.Tensor(name="x", dtype="float32", shape=X.shape, raw=X.tobytes())
        question = messages.InferRequest(model="mlp", id="7", inputs=[x], **fields)
        question.parameters["n"].int_value = 3
        if "bytes_value" in messages.Parameter.DESCRIPTOR.fields_by_name:
            question.parameters["new"].bytes_value = b"1"
        call = channel.unary_unary("/autoglm.v1.Inference/Infer")
        answer = messages.InferResponse.FromString(await call(question.SerializeToString()))
        call = channel.unary_unary("/autoglm.v1.Inference/GetModel")
        asked = messages.GetModelRequest(name="mlp").SerializeToString()
        return answer, messages.Model.FromString(await call(asked)), gateway.seen[0]

    return run(scenario)


@pytest.mark.parametrize("messages", [first, following], ids=["older client", "newer client"])
def test_a_client_of_another_age_is_served(messages) -> None:
    kind = messages()
    newer = {"tenant": "t", "hint": kind.Hint(shard=[1])} if messages is following else {}

    answer, model, request = asked_by(kind, **newer)

    y = answer.outputs[0]
    np.testing.assert_array_equal(np.frombuffer(y.raw, "f4").reshape(y.shape), X @ WEIGHT)
    assert (answer.id, model.state, request.parameters) == ("7", "ready", {"n": 3})


@pytest.mark.parametrize("through", [first, lambda: pb], ids=["first", "present"])
def test_fields_that_a_reader_does_not_know_survive_it(through) -> None:
    new = following()
    sent = new.InferRequest(model="m", tenant="t", hint=new.Hint(shard=[1, 2]))
    sent.parameters["new"].bytes_value = b"1"

    relayed = through().InferRequest.FromString(sent.SerializeToString())
    relayed.priority = 9
    again = new.InferRequest.FromString(relayed.SerializeToString())

    assert (again.tenant, list(again.hint.shard), again.priority) == ("t", [1, 2], 9)
    assert again.parameters["new"].bytes_value == b"1"
