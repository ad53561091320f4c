"""`POST /v1/infer`: model_name, version, data in; result, status_code, message out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from autoglm.errors import InvalidRequestError
from autoglm.serve.core import Client, ModelInfo, Request, Response
from autoglm.serve.gateway import LocalGateway
from autoglm.serve.http.numbers import array_of, parse
from autoglm.serve.http.wire import Call, Reply, dumps, field_of
from autoglm.spec import TensorInfo, Value

_LONGEST_MS = 86_400_000


async def infer(gateway: LocalGateway, call: Call) -> Reply:
    """Answer one envelope."""
    began = time.perf_counter_ns()
    message = parse(call.body)
    request = await read_request(gateway, call.client, message)
    request.marks = [("entry", began)]
    request.traceparent = call.headers.get("traceparent", "")
    response = await gateway.infer(request)
    return Reply(write_response(response))


async def read_request(
    gateway: LocalGateway, client: Client, message: Mapping[str, Any]
) -> Request:
    """The envelope as the one message; fields that are not known are passed over."""
    name = field_of(message, "model_name", (str,))
    if not name:
        raise InvalidRequestError("model_name is missing.", hint="GET /v1/models lists the names.")
    version = str(field_of(message, "version", (str, int), ""))
    if "data" not in message:
        raise InvalidRequestError("data is missing.", hint="GET /v1/schema shows what is taken.")
    timeout = field_of(message, "timeout_ms", (int, float), 0)
    if not 0 <= timeout <= _LONGEST_MS:
        raise InvalidRequestError(
            "timeout_ms: allowed 0 to {limit}; found {found}.", limit=_LONGEST_MS, found=timeout
        )
    priority = field_of(message, "priority", (int,), 0)
    outputs = field_of(message, "outputs", (list,), ())
    if outputs and not all(isinstance(item, str) for item in outputs):
        raise InvalidRequestError("outputs: expected a list of names.")
    request_id = field_of(message, "id", (str,), "")
    deadline = time.monotonic() + timeout / 1000 if timeout else None
    info = await gateway.signature(client, name, version, request_id, deadline=deadline)
    return Request(
        name,
        inputs_of(info, message["data"]),
        version,
        id=request_id,
        outputs=outputs,
        deadline=deadline,
        priority=priority,
        client=client,
    )


def inputs_of(info: ModelInfo, data: Any) -> dict[str, Value]:
    """`data` as arrays by name; a bare list is the one input's."""
    known = info.inputs
    if isinstance(data, dict):
        return {n: array_of(n, v, _named(info, n).dtype) for n, v in data.items()}
    if len(known) != 1:
        raise InvalidRequestError(
            "Model {model} takes {names}: data must be an object with one list for each.",
            model=info.name,
            names=", ".join(i.name for i in known) or "nothing",
        )
    return {known[0].name: array_of("data", data, known[0].dtype)}


def _named(info: ModelInfo, name: str) -> TensorInfo:
    for tensor in info.inputs:
        if tensor.name == name:
            return tensor
    raise InvalidRequestError(
        "No input {name!r}; the model takes {known}.",
        name=name[:100],
        known=", ".join(i.name for i in info.inputs) or "nothing",
    )


def write_response(response: Response) -> bytes:
    """One output's values as `result`; several as an object by name."""
    outputs = response.outputs
    result: Any = outputs
    if len(outputs) == 1:
        (result,) = outputs.values()
    body: dict[str, Any] = {
        "result": result,
        "status_code": 200,
        "message": "ok",
        "model_name": response.model,
        "version": response.version,
    }
    if response.id:
        body["id"] = response.id
    return dumps(body)
