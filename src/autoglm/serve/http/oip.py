"""Open Inference Protocol v2 inference: JSON tensors, and the binary tensor extension both ways."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from autoglm.errors import InvalidRequestError
from autoglm.serve.core import Gateway, Request, Response
from autoglm.serve.http.numbers import array_of, parse
from autoglm.serve.http.wire import BINARY, Call, Reply, dumps, field_of
from autoglm.serve.proto.tensors import decode, encode, from_oip, oip_name
from autoglm.spec import Value
from autoglm.tensor.dtype import from_numpy

LENGTH = "inference-header-content-length"
_RANK = 32


async def infer(gateway: Gateway, call: Call, model: str, version: str) -> Reply:
    """Answer one v2 inference request."""
    began = time.perf_counter_ns()
    header, tail = _parts(call)
    message = parse(header)
    request = _request(message, tail, model, version)
    request.client = call.client
    request.marks = [("entry", began)]
    request.traceparent = call.headers.get("traceparent", "")
    response = await gateway.infer(request)
    return _reply(response, _wanted(message, response))


def _parts(call: Call) -> tuple[bytes, memoryview]:
    """The JSON part of the body, and the tensors' bytes behind it."""
    text = call.headers.get(LENGTH)
    if text is None:
        return call.body, memoryview(b"")
    if not text.isascii() or not text.isdigit() or len(text) > 20 or int(text) > len(call.body):
        raise InvalidRequestError(
            "Inference-Header-Content-Length must be at most the body's {size} bytes; "
            "found {found!r}.",
            size=len(call.body),
            found=text[:40],
        )
    size = int(text)
    return call.body[:size], memoryview(call.body)[size:]


def _request(message: Mapping[str, Any], tail: memoryview, model: str, version: str) -> Request:
    inputs: dict[str, Value] = {}
    at = 0
    for tensor in _tensors(message, "inputs"):
        name = tensor["name"]
        if name in inputs:
            raise InvalidRequestError("Input {name!r} comes twice.", name=name[:100])
        inputs[name], at = _input(name, tensor, tail, at)
    if at != len(tail):
        raise InvalidRequestError(
            "The inputs say {expected} bytes of binary data; found {found}.",
            expected=at,
            found=len(tail),
        )
    parameters = _parameters(message)
    return Request(
        model,
        inputs,
        version,
        id=field_of(message, "id", (str,), ""),
        outputs=[o["name"] for o in _tensors(message, "outputs")],
        parameters=parameters,
        deadline=_deadline(parameters),
        priority=field_of(parameters, "priority", (int,), 0),
    )


def _deadline(parameters: Mapping[str, Any]) -> float | None:
    # Triton's request parameter, in microseconds.
    timeout = field_of(parameters, "timeout", (int,), 0)
    if timeout < 0:
        raise InvalidRequestError("timeout: at least 0 microseconds; found {found}.", found=timeout)
    return time.monotonic() + timeout / 1e6 if timeout else None


def _tensors(message: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    tensors: list[dict[str, Any]] = field_of(message, key, (list,), [])
    if key == "inputs" and "inputs" not in message:
        raise InvalidRequestError("inputs is missing.")
    for tensor in tensors:
        if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
            raise InvalidRequestError("{key}: each must be an object with a name.", key=key)
    return tensors


def _parameters(message: Mapping[str, Any]) -> dict[str, Any]:
    return field_of(message, "parameters", (dict,), {})  # type: ignore[no-any-return]


def _input(name: str, tensor: dict[str, Any], tail: memoryview, at: int) -> tuple[Value, int]:
    datatype = field_of(tensor, "datatype", (str,))
    dims = field_of(tensor, "shape", (list,))
    if datatype is None or dims is None:
        raise InvalidRequestError("Input {name!r} needs datatype and shape.", name=name[:100])
    if len(dims) > _RANK or not all(type(d) is int and 0 <= d < 1 << 40 for d in dims):
        raise InvalidRequestError(
            "Input {name!r}: shape takes at most {rank} sizes from 0.", name=name[:100], rank=_RANK
        )
    shape = tuple(dims)
    dtype = from_oip(name, datatype)
    size = field_of(_parameters(tensor), "binary_data_size", (int,))
    if size is None:
        if "data" not in tensor:
            raise InvalidRequestError("Input {name!r} has no data.", name=name[:100])
        return array_of(name, tensor["data"], dtype, shape), at
    if not 0 <= size <= len(tail) - at:
        raise InvalidRequestError(
            "Input {name!r}: binary_data_size is {size}; {left} bytes are left in the body.",
            name=name[:100],
            size=size,
            left=len(tail) - at,
        )
    return decode(name, dtype, shape, tail[at : at + size]), at + size


def _wanted(message: Mapping[str, Any], response: Response) -> dict[str, bool]:
    """Output name -> whether it goes out as bytes."""
    every = field_of(_parameters(message), "binary_data_output", (bool,), False)
    asked = {
        o["name"]: field_of(_parameters(o), "binary_data", (bool,), every)
        for o in _tensors(message, "outputs")
    }
    return {name: asked.get(name, every) for name in response.outputs}


def _reply(response: Response, wanted: Mapping[str, bool]) -> Reply:
    outputs: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for name, value in response.outputs.items():
        array = np.asarray(value)
        row: dict[str, Any] = {"name": name, "shape": list(array.shape)}
        if wanted[name]:
            dtype, _, raw = encode(array)
            row["parameters"] = {"binary_data_size": len(raw)}
            blobs.append(raw)
        else:
            dtype = from_numpy(array.dtype)
            row["data"] = array.reshape(-1)
        row["datatype"] = oip_name(dtype)
        outputs.append(row)
    body: dict[str, Any] = {
        "model_name": response.model,
        "model_version": response.version,
        "outputs": outputs,
    }
    if response.id:
        body["id"] = response.id
    header = dumps(body)
    if not blobs:
        return Reply(header)
    length = (LENGTH.encode(), b"%d" % len(header))
    return Reply(b"".join([header, *blobs]), content_type=BINARY, headers=[length])
