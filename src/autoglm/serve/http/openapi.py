"""The OpenAPI document and the envelope's JSON Schema, for the models that are served now."""

from __future__ import annotations

from collections.abc import Iterable
from math import nextafter
from sys import float_info
from typing import Any

from autoglm import __version__
from autoglm.errors import TABLE
from autoglm.serve.core import ModelInfo
from autoglm.serve.gateway import LocalGateway
from autoglm.serve.http.wire import Call, Reply, reply_json
from autoglm.serve.proto.tensors import oip_name
from autoglm.spec import TensorInfo
from autoglm.tensor.dtype import dtype as dtype_row

# The largest JSON number that does not round to infinity.
_MAX = {
    "float16": nextafter(65520.0, 0.0),
    "float32": nextafter(2.0**128 - 2.0**103, 0.0),
    "float64": float_info.max,
}
_ENVELOPE_FIELDS: dict[str, Any] = {
    "id": {"type": "string"},
    "timeout_ms": {"type": "number", "minimum": 0, "maximum": 86_400_000},
    "priority": {"type": "integer", "minimum": -100, "maximum": 100},
}
RESPONSE = {
    "type": "object",
    "required": ["result", "status_code", "message"],
    "properties": {
        "result": {"description": "the one output, or an object by output name; null with a fault"},
        "status_code": {"type": "integer", "description": "as in the status line"},
        "message": {"type": "string"},
        "code": {"type": "string", "enum": sorted(TABLE), "description": "of a fault"},
        "model_name": {"type": "string"},
        "version": {"type": "string"},
        "id": {"type": "string"},
    },
}


async def schema(gateway: LocalGateway, call: Call) -> Reply:
    """The JSON Schema of the envelope."""
    return reply_json(
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "POST /v1/infer",
            "$defs": {"response": RESPONSE},
            **envelope_schema(),
        }
    )


async def document(gateway: LocalGateway, call: Call) -> Reply:
    """OpenAPI 3.1."""
    infos = [info for info in gateway.models(call.client) if info.state == "ready"]
    return reply_json(
        {
            "openapi": "3.1.0",
            "info": {"title": "Open-AutoGLM gateway", "version": __version__},
            "paths": {**_plain_paths(), **_envelope_path(infos), **_model_paths(infos)},
            "components": {
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
                "schemas": {"Envelope": envelope_schema(), "Answer": RESPONSE, "Fault": _FAULT},
            },
        }
    )


def envelope_schema(info: ModelInfo | None = None) -> dict[str, Any]:
    """What `POST /v1/infer` takes; of one model with its own names and shapes."""
    name: dict[str, Any] = {"type": "string", "minLength": 1}
    data: dict[str, Any] = {"description": "nested lists; an object by input name for several"}
    versions: dict[str, Any] = {"type": ["string", "integer"]}
    if info is not None:
        name = {"const": info.name}
        versions = {"enum": [info.version]}
        data = _data(info)
    else:
        data["type"] = ["array", "object"]
    fields = {"model_name": name, "version": versions, "data": data, **_ENVELOPE_FIELDS}
    fields["outputs"] = {"type": "array", "items": {"type": "string"}}
    if info is not None:
        fields["outputs"]["items"] = {"enum": [o.name for o in info.outputs]}
    return {"type": "object", "required": ["model_name", "data"], "properties": fields}


def _data(info: ModelInfo) -> dict[str, Any]:
    if len(info.inputs) == 1:
        return _lists(info.inputs[0], any_rows=True)
    return {
        "type": "object",
        "required": [i.name for i in info.inputs],
        "properties": {i.name: _lists(i) for i in info.inputs},
        "additionalProperties": False,
    }


def _lists(info: TensorInfo, *, any_rows: bool = False) -> dict[str, Any]:
    value = _number(info.dtype)
    shape = info.shape or ()
    for dim in reversed(shape):
        # One stands for any size: JSON Schema cannot say that sizes agree.
        size = dim if isinstance(dim, int) else 1
        value = {"type": "array", "items": value, "minItems": size, "maxItems": size}
    if any_rows and shape and not isinstance(shape[0], int):
        del value["maxItems"]
    return value


def _number(dtype: str) -> dict[str, Any]:
    row = dtype_row(dtype)
    if row.kind == "float":
        limit = _MAX.get(dtype, 240.0)
        return {"type": "number", "minimum": -limit, "maximum": limit}
    if row.kind == "int":
        high = (1 << (row.bits - 1)) - 1
        return {"type": "integer", "minimum": -high - 1, "maximum": high}
    if row.kind == "uint":
        return {"type": "integer", "minimum": 0, "maximum": (1 << row.bits) - 1}
    return {"type": {"bool": "boolean"}.get(row.kind, "string")}


_FAULT = {
    "type": "object",
    "required": ["error", "code"],
    "properties": {
        "error": {"type": "string"},
        "code": {"type": "string", "enum": sorted(TABLE)},
    },
}


def _responses(good: dict[str, Any], fault: str, **more: Any) -> dict[str, Any]:
    answer = {"description": "the answer", "content": {"application/json": {"schema": good}}}
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{fault}"}}}
    faults = {s: {"description": "a fault", "content": content} for s in ("4XX", "5XX")}
    return {"200": {**answer, **more}, **faults}


def _operation(summary: str, fault: str = "Answer", **more: Any) -> dict[str, Any]:
    return {
        "summary": summary,
        "security": [{}, {"key": []}],
        "responses": _responses({"type": ["object", "array"]}, fault),
        **more,
    }


def _text(summary: str) -> dict[str, Any]:
    operation = _operation(summary)
    operation["responses"]["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    return operation


def _body(schema: dict[str, Any], *, required: bool = True) -> dict[str, Any]:
    return {"required": required, "content": {"application/json": {"schema": schema}}}


def _plain_paths() -> dict[str, Any]:
    ready = {"type": "object", "properties": {"ready": {"type": "boolean"}}}
    return {
        "/healthz": {"get": _text("The process answers")},
        "/readyz": {"get": _operation("Whether requests should be sent here")},
        "/metrics": {"get": _text("Prometheus metrics")},
        "/v1/models": {"get": _operation("Every version of every model")},
        "/v1/schema": {"get": _operation("The JSON Schema of POST /v1/infer")},
        "/v1/route": {"get": _operation("Which protocol this client should use, and why")},
        "/v2": {"get": _operation("The server", "Fault")},
        "/v2/health/live": {"get": _operation("The process answers", "Fault")},
        "/v2/health/ready": {"get": _operation("Whether to send requests here", "Fault")},
        "/v2/models/stats": {"get": _operation("Statistics of every model", "Fault")},
        "/v2/repository/index": {
            "post": _operation(
                "The model repository", "Fault", requestBody=_body(ready, required=False)
            )
        },
    }


def _envelope_path(infos: Iterable[ModelInfo]) -> dict[str, Any]:
    schemas = [envelope_schema(info) for info in infos]
    operation = _operation("Infer")
    operation["responses"]["200"]["content"]["application/json"]["schema"] = RESPONSE
    operation["requestBody"] = _body({"anyOf": schemas} if len(schemas) > 1 else schemas[0])
    return {"/v1/infer": {"post": operation}} if schemas else {}


def _model_paths(infos: Iterable[ModelInfo]) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for info in infos:
        for base in (f"/v2/models/{info.name}", f"/v2/models/{info.name}/versions/{info.version}"):
            paths |= {
                base: {"get": _operation("Inputs and outputs", "Fault")},
                f"{base}/ready": {"get": _operation("Whether it answers", "Fault")},
                f"{base}/config": {"get": _operation("As Triton describes it", "Fault")},
                f"{base}/stats": {"get": _operation("Statistics", "Fault")},
                f"{base}/infer": {
                    "post": _operation("Infer", "Fault", requestBody=_body(_oip_request(info)))
                },
            }
    return paths


def _oip_request(info: ModelInfo) -> dict[str, Any]:
    outputs = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"enum": [o.name for o in info.outputs]}},
    }
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "inputs": {
                "type": "array",
                "prefixItems": [_oip_tensor(i) for i in info.inputs],
                "items": False,
                "minItems": len(info.inputs),
            },
            "outputs": {"type": "array", "items": outputs},
        },
    }


def _oip_tensor(info: TensorInfo) -> dict[str, Any]:
    shape = [d if isinstance(d, int) else 1 for d in info.shape or ()]
    return {
        "type": "object",
        "required": ["name", "datatype", "shape", "data"],
        "properties": {
            "name": {"const": info.name},
            "datatype": {"const": oip_name(info.dtype)},
            "shape": {"const": shape},
            "data": _lists(info),
        },
    }
