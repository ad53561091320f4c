"""The generated modules are what protoc makes of the .proto files, and live apart."""

from __future__ import annotations

import re

import pytest


def unversioned(text: str) -> str:
    """A generated module without the protobuf version that made it."""
    return re.sub(r"Protobuf Python Version: \S+|^    \d+,$", "", text, flags=re.MULTILINE)


def test_the_generated_modules_are_current() -> None:
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")
    from autoglm.serve.proto.generate import generate

    stale = [p.name for p, text in generate() if unversioned(p.read_text()) != unversioned(text)]

    assert not stale, "run: make proto"


def test_triton_s_own_messages_load_in_the_same_process() -> None:
    client = pytest.importorskip("tritonclient.grpc.service_pb2", reason="no tritonclient")
    from autoglm.serve.proto import oip_pb2

    theirs = client.ModelInferRequest(model_name="m", raw_input_contents=[b"12"])
    ours = oip_pb2.ModelInferRequest.FromString(theirs.SerializeToString())

    assert (ours.model_name, list(ours.raw_input_contents)) == ("m", [b"12"])


def fields(descriptor) -> dict[str, tuple[int, int, bool]]:
    """Name -> number, type, repeated."""
    return {f.name: (f.number, f.type, f.is_repeated) for f in descriptor.fields}


def test_every_field_is_the_one_that_triton_s_client_has() -> None:
    service = pytest.importorskip("tritonclient.grpc.service_pb2", reason="no tritonclient")
    config = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    from autoglm.serve.proto import oip_pb2

    theirs = dict(service.DESCRIPTOR.message_types_by_name)
    theirs |= config.DESCRIPTOR.message_types_by_name

    for name, ours in oip_pb2.DESCRIPTOR.message_types_by_name.items():
        known = fields(theirs[name])
        # The protocol's newer drafts have it, Triton's client not yet.
        known.setdefault("properties", fields(ours).get("properties", (0, 0, False)))
        assert fields(ours).items() <= known.items(), name
