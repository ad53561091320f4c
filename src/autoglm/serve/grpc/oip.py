"""`inference.GRPCInferenceService`: the Open Inference Protocol, one function a method."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from google.protobuf.json_format import ParseDict

from autoglm import __version__
from autoglm.errors import (
    AutoGLMError,
    InvalidRequestError,
    ModelNotServedError,
    NotOfferedError,
)
from autoglm.serve.core import ModelInfo, Parameter, Request
from autoglm.serve.grpc.calls import Call
from autoglm.serve.proto import convert, tensors
from autoglm.serve.proto import oip_pb2 as pb
from autoglm.spec import Dim, TensorInfo, Value

SERVICE = "inference.GRPCInferenceService"
EXTENSIONS = ("model_configuration", "model_repository", "statistics")
_STATES = {"ready": "READY", "loading": "LOADING", "unloading": "UNLOADING"}
# The one list of InferTensorContents that holds a dtype; 16-bit floats travel raw only.
_CONTENTS = {
    "bool": "bool_contents",
    "int8": "int_contents",
    "int16": "int_contents",
    "int32": "int_contents",
    "int64": "int64_contents",
    "uint8": "uint_contents",
    "uint16": "uint_contents",
    "uint32": "uint_contents",
    "uint64": "uint64_contents",
    "float32": "fp32_contents",
    "float64": "fp64_contents",
    "string": "bytes_contents",
}


async def infer(raw: bytes, call: Call) -> Any:
    """Answer one ModelInferRequest; the outputs are raw."""
    message = convert.parse(raw, pb.ModelInferRequest)
    parameters = to_parameters(message.parameters) if message.parameters else {}
    response = await call.gateway.infer(
        Request(
            message.model_name,
            to_inputs(message),
            version=message.model_version,
            id=message.id,
            outputs=tuple(output.name for output in message.outputs),
            parameters=parameters,
            deadline=call.deadline(_own_deadline(parameters)),
            priority=_integer(parameters, "priority"),
            client=call.client,
            traceparent=call.headers.get("traceparent", ""),
        )
    )
    reply = pb.ModelInferResponse(
        model_name=response.model, model_version=response.version, id=response.id
    )
    contents = []
    for name, value in response.outputs.items():
        dtype, shape, data = tensors.encode(value)
        reply.outputs.add(name=name, datatype=tensors.oip_name(dtype), shape=shape)
        contents.append(data)
    reply.raw_output_contents.extend(contents)
    return reply


async def stream_infer(raw: bytes, call: Call) -> Any:
    """Answer one message of ModelStreamInfer."""
    return pb.ModelStreamInferResponse(infer_response=await infer(raw, call))


def refuse(raw: bytes, error: AutoGLMError) -> Any:
    """The fault of one request of a stream, with its id where that can be read."""
    reply = pb.ModelStreamInferResponse(error_message=convert.printable(str(error)) or error.code)
    with suppress(AutoGLMError):  # the fault may be that it does not parse
        reply.infer_response.id = convert.parse(raw, pb.ModelInferRequest).id
    return reply


def to_inputs(message: Any) -> dict[str, Value]:
    """The arrays of a ModelInferRequest, from its raw data or its typed contents."""
    inputs, blobs = message.inputs, message.raw_input_contents
    if not blobs:
        return convert.unique((tensor.name, _typed(tensor)) for tensor in inputs)
    if len(blobs) != len(inputs) or any(tensor.HasField("contents") for tensor in inputs):
        raise InvalidRequestError(
            "There are {inputs} inputs and {blobs} raw_input_contents.",
            hint="Give raw data for each input and no contents, or contents for each.",
            inputs=len(inputs),
            blobs=len(blobs),
        )
    return convert.unique(
        (t.name, tensors.decode(t.name, tensors.from_oip(t.name, t.datatype), t.shape, blob))
        for t, blob in zip(inputs, blobs, strict=True)
    )


def _typed(tensor: Any) -> Value:
    dtype = tensors.from_oip(tensor.name, tensor.datatype)
    filled = [field.name for field, _ in tensor.contents.ListFields()]
    if set(filled) - {_CONTENTS.get(dtype)}:
        raise InvalidRequestError(
            "Tensor {name!r} is {datatype}; found {found}.",
            hint="Send raw_input_contents, or the one list of contents that fits the datatype.",
            name=tensor.name[:100],
            datatype=tensor.datatype[:100],
            found=", ".join(filled),
        )
    values: Iterable[object] = getattr(tensor.contents, filled[0]) if filled else ()
    if dtype == "string":
        values = [tensors.text(tensor.name, value) for value in tensor.contents.bytes_contents]
    return tensors.from_list(tensor.name, dtype, tensor.shape, values)


def to_parameters(parameters: Mapping[str, Any]) -> dict[str, Parameter]:
    """Parameters as plain values; one without a value is left out."""
    chosen = ((k, v, v.WhichOneof("parameter_choice")) for k, v in parameters.items())
    return {key: getattr(value, field) for key, value, field in chosen if field}


def _own_deadline(parameters: Mapping[str, Parameter]) -> float | None:
    # Triton's request parameter, in microseconds.
    timeout = _integer(parameters, "timeout")
    return convert.deadline(timeout / 1e6) if timeout else None


def _integer(parameters: Mapping[str, Parameter], key: str) -> int:
    value = parameters.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidRequestError(
            "Parameter {key} is an integer; found {found!r}.", key=key, found=str(value)[:100]
        )
    return value


async def server_live(raw: bytes, call: Call) -> Any:
    """It answers, so it lives."""
    return pb.ServerLiveResponse(live=True)


async def server_ready(raw: bytes, call: Call) -> Any:
    """Whether work is accepted."""
    return pb.ServerReadyResponse(ready=call.gateway.ready())


async def model_ready(raw: bytes, call: Call) -> Any:
    """Whether this version answers; a model that is not here is not ready, as Triton has it."""
    asked = convert.parse(raw, pb.ModelReadyRequest)
    try:
        state = call.gateway.model(asked.name, asked.version, call.client).state
    except ModelNotServedError:
        state = ""
    return pb.ModelReadyResponse(ready=state == "ready" and call.gateway.ready())


async def server_metadata(raw: bytes, call: Call) -> Any:
    """Name, version, extensions."""
    return pb.ServerMetadataResponse(name="autoglm", version=__version__, extensions=EXTENSIONS)


async def model_metadata(raw: bytes, call: Call) -> Any:
    """Inputs and outputs of one version; open dimensions are -1."""
    asked = convert.parse(raw, pb.ModelMetadataRequest)
    info = call.gateway.model(asked.name, asked.version, call.client)
    reply = pb.ModelMetadataResponse(name=info.name, platform="autoglm")
    reply.versions.extend(
        i.version for i in call.gateway.models(call.client) if i.name == info.name
    )
    for field, infos in ((reply.inputs, info.inputs), (reply.outputs, info.outputs)):
        for tensor in infos:
            datatype = tensors.oip_name(tensor.dtype)
            field.add(name=tensor.name, datatype=datatype, shape=_dims(tensor.shape))
    return reply


async def model_config(raw: bytes, call: Call) -> Any:
    """The part of Triton's ModelConfig that a client reads. Shapes are whole: max_batch_size 0."""
    asked = convert.parse(raw, pb.ModelConfigRequest)
    info = call.gateway.model(asked.name, asked.version, call.client)
    config = pb.ModelConfig(name=info.name, platform="autoglm", backend="autoglm")
    config.input.extend(_config_tensor(pb.ModelInput, tensor) for tensor in info.inputs)
    config.output.extend(_config_tensor(pb.ModelOutput, tensor) for tensor in info.outputs)
    return pb.ModelConfigResponse(config=config)


async def model_statistics(raw: bytes, call: Call) -> Any:
    """Counts of one version, of every version of a model, or of all."""
    asked = convert.parse(raw, pb.ModelStatisticsRequest)
    infos: Sequence[ModelInfo] = call.gateway.models(call.client)
    if asked.version:
        infos = (call.gateway.model(asked.name, asked.version, call.client),)
    elif asked.name:
        infos = [info for info in infos if info.name == asked.name]
        infos = infos or (call.gateway.model(asked.name, client=call.client),)
    reply = pb.ModelStatisticsResponse()
    for info in infos:
        ParseDict(
            call.gateway.statistics(info), reply.model_stats.add(), ignore_unknown_fields=True
        )
    return reply


async def repository_index(raw: bytes, call: Call) -> Any:
    """Every version known, or the ready ones."""
    asked = convert.parse(raw, pb.RepositoryIndexRequest)
    reply = pb.RepositoryIndexResponse()
    for info in call.gateway.models(call.client):
        if info.state == "ready" or not asked.ready:
            state = _STATES.get(info.state, "UNAVAILABLE")
            reply.models.add(name=info.name, version=info.version, state=state, reason=info.reason)
    return reply


async def repository_load(raw: bytes, call: Call) -> Any:
    """Load from the model repository; a path or a configuration from the wire is not taken."""
    asked = convert.parse(raw, pb.RepositoryModelLoadRequest)
    call.gateway.permit(call.client, admin=True)
    if unknown := sorted(set(asked.parameters) - {"version"}):
        raise NotOfferedError(
            "Loading takes no parameter {name!r}; a model's files come from the repository only.",
            name=unknown[0][:100],
        )
    version = asked.parameters["version"].string_param if asked.parameters else ""
    await call.gateway.load(asked.model_name, version=version)
    return pb.RepositoryModelLoadResponse()


async def repository_unload(raw: bytes, call: Call) -> Any:
    """Stop serving every version of the model."""
    asked = convert.parse(raw, pb.RepositoryModelUnloadRequest)
    call.gateway.permit(call.client, admin=True)
    await call.gateway.unload(asked.model_name)
    return pb.RepositoryModelUnloadResponse()


def _dims(shape: Sequence[Dim] | None) -> list[int]:
    return [dim if isinstance(dim, int) else -1 for dim in ((-1,) if shape is None else shape)]


def _config_tensor(kind: Any, info: TensorInfo) -> Any:
    oip = tensors.oip_name(info.dtype)
    name = "TYPE_STRING" if info.dtype == "string" else f"TYPE_{oip}"
    known = info.dtype in tensors.OIP_NAMES
    data_type = pb.DataType.Value(name if known else "TYPE_INVALID")
    return kind(name=info.name, data_type=data_type, dims=_dims(info.shape))


UNARY = {
    "ServerLive": server_live,
    "ServerReady": server_ready,
    "ModelReady": model_ready,
    "ServerMetadata": server_metadata,
    "ModelMetadata": model_metadata,
    "ModelInfer": infer,
    "ModelConfig": model_config,
    "ModelStatistics": model_statistics,
    "RepositoryIndex": repository_index,
    "RepositoryModelLoad": repository_load,
    "RepositoryModelUnload": repository_unload,
}
