"""`autoglm.v1.Inference`: our own service, one function a method."""

from __future__ import annotations

from typing import Any

from autoglm.errors import AutoGLMError
from autoglm.serve.grpc.calls import Call
from autoglm.serve.proto import convert
from autoglm.serve.proto import infer_pb2 as pb

SERVICE = "autoglm.v1.Inference"


async def infer(raw: bytes, call: Call) -> Any:
    """Answer one InferRequest."""
    request = convert.to_request(raw, call.client)
    request.deadline = call.deadline(request.deadline)
    request.traceparent = request.traceparent or call.headers.get("traceparent", "")
    return convert.from_response(await call.gateway.infer(request))


def refuse(raw: bytes, error: AutoGLMError) -> Any:
    """The fault of one request of a stream, with its id where that can be read."""
    try:
        return convert.from_error(error, convert.parse(raw).id)
    except AutoGLMError:
        return convert.from_error(error)


async def list_models(raw: bytes, call: Call) -> Any:
    """Every version known."""
    convert.parse(raw, pb.ListModelsRequest)
    return pb.ListModelsResponse(models=map(convert.from_model, call.gateway.models(call.client)))


async def get_model(raw: bytes, call: Call) -> Any:
    """One version."""
    asked = convert.parse(raw, pb.GetModelRequest)
    return convert.from_model(call.gateway.model(asked.name, asked.version, call.client))


UNARY = {"Infer": infer, "ListModels": list_models, "GetModel": get_model}
