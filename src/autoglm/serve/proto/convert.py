"""Between the messages of `autoglm.v1` and those of `serve.core`; gRPC and MQTT use it alike."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.message import DecodeError

from autoglm.errors import AutoGLMError, InvalidRequestError
from autoglm.serve.core import Client, ModelInfo, Parameter, Request, Response
from autoglm.serve.proto import infer_pb2 as pb
from autoglm.serve.proto import tensors
from autoglm.spec import Dim, TensorInfo, Value
from autoglm.tensor.dtype import DTYPES

# An error must fit into the trailing metadata, which clients take 8 KiB of.
MAX_TEXT = 600
MAX_FACTS = 10
_ANONYMOUS = Client()
# Which lists of Values may hold a dtype, by its kind.
_LISTS = {
    "float": ("floats", "doubles"),
    "int": ("ints",),
    "uint": ("uints", "ints"),
    "bool": ("bools",),
    "string": ("strings",),
}


def parse(raw: bytes, kind: Any = pb.InferRequest) -> Any:
    """The message of that generated class in `raw`; unknown fields stay in it."""
    try:
        return kind.FromString(raw)
    except (DecodeError, RecursionError) as error:
        raise InvalidRequestError(
            "The request is not an {kind}: {reason}.",
            hint="The schema is in autoglm/v1/infer.proto, and on gRPC there by reflection.",
            kind=kind.DESCRIPTOR.full_name,
            reason=str(error)[:200],
        ) from error


def to_request(source: Any, client: Client = _ANONYMOUS) -> Request:
    """The request in an InferRequest, or in its bytes; its time-out counts from now."""
    message = parse(source) if isinstance(source, bytes) else source
    return Request(
        message.model,
        unique((tensor.name, to_value(tensor)) for tensor in message.inputs),
        version=message.version,
        id=message.id,
        outputs=tuple(message.outputs),
        parameters=to_parameters(message.parameters) if message.parameters else {},
        deadline=deadline(message.timeout_s) if message.timeout_s else None,
        priority=message.priority,
        client=client,
        traceparent=message.traceparent,
    )


def from_response(response: Response) -> Any:
    """The answer as an InferResponse."""
    message = pb.InferResponse(model=response.model, version=response.version, id=response.id)
    for name, value in response.outputs.items():
        dtype, shape, raw = tensors.encode(value)
        message.outputs.add(name=name, dtype=dtype, shape=shape, raw=raw)
    for key, parameter in response.parameters.items():
        set_parameter(message.parameters[key], parameter)
    return message


def from_error(error: AutoGLMError, request_id: str = "") -> Any:
    """The InferResponse that says why there are no outputs."""
    return pb.InferResponse(id=request_id, error=to_error(error))


def to_error(error: AutoGLMError) -> Any:
    """The error alone, cut so that it fits every wire."""
    facts = {
        printable(str(key), 50): printable(str(value), 100)
        for key, value in list(error.facts.items())[:MAX_FACTS]
        if isinstance(value, str | int | float | bool)
    }
    return pb.Error(
        code=error.code,
        message=printable(str(error)),
        hint=printable(error.hint),
        facts=facts,
        http_status=error.row.http,
        grpc_status=error.row.grpc,
        retry_after_s=retry_after_s(error),
    )


def retry_after_s(error: AutoGLMError) -> float:
    """When to try again, as far as the error knows; 0 where it does not."""
    value = error.facts.get("retry_after_s", 0.0)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0


def printable(text: str, size: int = MAX_TEXT) -> str:
    """`text` as UTF-8 can hold it, in at most `size` bytes."""
    return text.encode("utf-8", "replace")[:size].decode("utf-8", "ignore")


def to_value(tensor: Any) -> Value:
    """The array in a Tensor: from `raw`, or from the one list of `values` that fits."""
    if not tensor.HasField("values"):
        return tensors.decode(tensor.name, tensor.dtype, tensor.shape, tensor.raw)
    filled = [field.name for field, _ in tensor.values.ListFields()]
    fitting = _LISTS.get(DTYPES[tensor.dtype].kind, ()) if tensor.dtype in DTYPES else filled
    if tensor.raw or len(filled) > 1 or not set(filled) <= set(fitting):
        raise InvalidRequestError(
            "Tensor {name!r} of dtype {dtype} holds its elements in {found}.",
            hint="Give `raw`, or the one list of `values` that fits the dtype.",
            name=tensor.name[:100],
            dtype=tensor.dtype[:100],
            found=" and ".join(["raw"] * bool(tensor.raw) + filled),
        )
    elements = getattr(tensor.values, filled[0]) if filled else ()
    return tensors.from_list(tensor.name, tensor.dtype, tensor.shape, elements)


def unique(pairs: Iterable[tuple[str, Value]]) -> dict[str, Value]:
    """A dict of the pairs; InvalidRequestError where a name comes twice."""
    found: dict[str, Value] = {}
    for name, value in pairs:
        if name in found:
            raise InvalidRequestError("Input {name!r} is given twice.", name=name[:100])
        found[name] = value
    return found


def deadline(timeout_s: float) -> float:
    """The moment, in time.monotonic() seconds, that is `timeout_s` from now."""
    if not (math.isfinite(timeout_s) and timeout_s > 0):
        raise InvalidRequestError(
            "timeout_s is a positive number of seconds; found {found}.", found=timeout_s
        )
    return time.monotonic() + timeout_s


def to_parameters(parameters: Mapping[str, Any]) -> dict[str, Parameter]:
    """Parameters as plain values; one without a value is left out."""
    chosen = ((key, value, value.WhichOneof("value")) for key, value in parameters.items())
    return {key: getattr(value, field) for key, value, field in chosen if field}


def set_parameter(message: Any, value: Parameter) -> None:
    """Write a plain value into a Parameter."""
    kinds = {bool: "bool_value", int: "int_value", float: "double_value"}
    field = kinds.get(type(value), "string_value")
    setattr(message, field, value if type(value) in kinds else str(value))


def from_model(info: ModelInfo) -> Any:
    """What a client may know of one served version, as a Model."""
    return pb.Model(
        name=info.name,
        version=info.version,
        inputs=map(_tensor_info, info.inputs),
        outputs=map(_tensor_info, info.outputs),
        state=info.state,
        digest=info.digest,
        engines=info.engines,
        aliases=info.aliases,
        reason=info.reason,
        labels=info.labels,
        memory_bytes=info.memory_bytes,
    )


def _tensor_info(info: TensorInfo) -> Any:
    return pb.TensorInfo(
        name=info.name,
        dtype=info.dtype,
        shape=map(_dim, info.shape or ()),
        any_rank=info.shape is None,
        kind=info.kind,
    )


def _dim(dim: Dim) -> Any:
    if isinstance(dim, int):
        return pb.Dim(size=dim)
    return pb.Dim(name=dim) if dim else pb.Dim()
