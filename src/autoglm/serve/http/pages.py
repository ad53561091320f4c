"""What is not inference: the server's and its models' state, repository, health, schema."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from autoglm import __version__
from autoglm.errors import DrainingError, ForbiddenError, InvalidRequestError, NotOfferedError
from autoglm.serve.core import ModelInfo
from autoglm.serve.gateway import LocalGateway
from autoglm.serve.http.numbers import parse
from autoglm.serve.http.wire import TEXT, Call, Reply, field_of, reply_json
from autoglm.serve.proto.tensors import oip_name
from autoglm.spec import Dim, TensorInfo

EXTENSIONS = [
    "binary_tensor_data",
    "model_repository",
    "model_configuration",
    "statistics",
    "parameters",
]
Handler = Callable[..., Awaitable[Reply]]
_MOST_FIELDS = 64


async def healthy(gateway: LocalGateway, call: Call) -> Reply:
    """The process answers."""
    return Reply(b"ok\n", content_type=TEXT)


async def live(gateway: LocalGateway, call: Call) -> Reply:
    """The same, as v2 says it."""
    return reply_json({"live": True})


async def ready(gateway: LocalGateway, call: Call) -> Reply:
    """Whether requests should be sent here."""
    if not gateway.ready():
        raise DrainingError("The server is {state}.", state=gateway.state, retry_after_s=1)
    return reply_json({"ready": True})


async def server(gateway: LocalGateway, call: Call) -> Reply:
    """Who answers, and what of v2 is there."""
    return reply_json({"name": "autoglm", "version": __version__, "extensions": EXTENSIONS})


async def models(gateway: LocalGateway, call: Call) -> Reply:
    """Every version of every model."""
    return reply_json({"models": [_told(info) for info in gateway.models(call.client)]})


async def metadata(gateway: LocalGateway, call: Call, name: str, version: str) -> Reply:
    """Names, datatypes and shapes of one model."""
    info = gateway.model(name, version, call.client)
    versions = [i.version for i in gateway.models(call.client) if i.name == name]
    return reply_json(
        {
            "name": info.name,
            "versions": versions,
            "platform": "autoglm",
            "inputs": [_tensor(t) for t in info.inputs],
            "outputs": [_tensor(t) for t in info.outputs],
        }
    )


async def model_ready(gateway: LocalGateway, call: Call, name: str, version: str) -> Reply:
    """Whether this model answers."""
    info = gateway.model(name, version, call.client)
    if info.state != "ready" or not gateway.ready():
        raise DrainingError(
            "Model {model} version {version} is {state}.",
            model=info.name,
            version=info.version,
            state=info.state if info.state != "ready" else gateway.state,
            retry_after_s=1,
        )
    return reply_json({"name": info.name, "ready": True})


async def config(gateway: LocalGateway, call: Call, name: str, version: str) -> Reply:
    """The model as Triton's clients want it described."""
    info = gateway.model(name, version, call.client)
    return reply_json(
        {
            "name": info.name,
            "platform": "autoglm",
            "backend": "autoglm",
            "version_policy": {"latest": {"num_versions": 1}},
            "max_batch_size": 0,  # the first axis is written in dims
            "input": [_config_tensor(t) for t in info.inputs],
            "output": [_config_tensor(t) for t in info.outputs],
            "parameters": {"engines": {"string_value": ",".join(info.engines)}},
        }
    )


async def statistics(gateway: LocalGateway, call: Call, name: str = "", version: str = "") -> Reply:
    """How often each version answered, and how long that took."""
    infos = [gateway.model(name, version, call.client)] if name else gateway.models(call.client)
    return reply_json({"model_stats": [gateway.statistics(info) for info in infos]})


async def index(gateway: LocalGateway, call: Call) -> Reply:
    """The repository as Triton's clients want it listed."""
    only_ready = field_of(_body(call), "ready", (bool,), False)
    rows = [
        {"name": i.name, "version": i.version, "state": _state(i), "reason": i.reason}
        for i in gateway.models(call.client)
        if not only_ready or i.state == "ready"
    ]
    return reply_json(rows)


async def load(gateway: LocalGateway, call: Call, name: str) -> Reply:
    """Load a model of the repository."""
    gateway.permit(call.client, admin=True)
    parameters = field_of(_body(call), "parameters", (dict,), {})
    if unknown := sorted(set(parameters) - {"version"}):
        raise NotOfferedError(
            "Loading takes no parameter {name!r}; a model's files come from the repository only.",
            name=unknown[0][:100],
        )
    await gateway.load(name, version=field_of(parameters, "version", (str,), ""))
    return reply_json({})


async def unload(gateway: LocalGateway, call: Call, name: str) -> Reply:
    """Stop serving a model."""
    gateway.permit(call.client, admin=True)
    _body(call)
    await gateway.unload(name)
    return reply_json({})


def _body(call: Call) -> Mapping[str, Any]:
    return parse(call.body) if call.body.strip() else {}


def _told(info: ModelInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "version": info.version,
        "state": info.state,
        "reason": info.reason,
        "aliases": info.aliases,
        "labels": info.labels,
        "engines": info.engines,
        "digest": info.digest,
        "memory_bytes": info.memory_bytes,
        "inputs": [_tensor(t) for t in info.inputs],
        "outputs": [_tensor(t) for t in info.outputs],
    }


def _tensor(info: TensorInfo) -> dict[str, Any]:
    return {"name": info.name, "datatype": oip_name(info.dtype), "shape": _dims(info.shape)}


def _config_tensor(info: TensorInfo) -> dict[str, Any]:
    kind = oip_name(info.dtype)
    kind = {"BYTES": "STRING"}.get(kind, kind)
    return {"name": info.name, "data_type": f"TYPE_{kind}", "dims": _dims(info.shape)}


def _dims(shape: tuple[Dim, ...] | None) -> list[int]:
    return [d if isinstance(d, int) else -1 for d in shape or ()]


def _state(info: ModelInfo) -> str:
    return {"ready": "READY", "loading": "LOADING", "unloading": "UNLOADING"}.get(
        info.state, "UNAVAILABLE"
    )


async def metrics(gateway: LocalGateway, call: Call) -> Reply:
    """Prometheus' text, or OpenMetrics where the scraper takes it."""
    if gateway.telemetry is None:
        raise NotOfferedError("This server keeps no metrics.")
    if call.client.models:  # they name every model
        raise ForbiddenError(
            "{client} may not read the metrics.",
            hint="They name every model: use a key that is not limited to some.",
            client=call.client.name,
        )
    from autoglm.serve.telemetry import exposition

    status, headers, body = exposition(gateway.telemetry, call.headers.get("accept", ""))
    return Reply(body, status, headers["content-type"].encode())


async def ui(gateway: LocalGateway, call: Call) -> Reply:
    """A file of the live page."""
    from autoglm.serve.ui import asset

    status, headers, body = asset(call.path.removeprefix("/ui").strip("/"))
    kind = headers["content-type"].encode()
    told = [(k.encode(), v.encode()) for k, v in headers.items() if k != "content-type"]
    return Reply(body, status, kind, told)


async def ui_state(gateway: LocalGateway, call: Call) -> Reply:
    """What the live page shows."""
    from autoglm.serve.ui import state

    return reply_json(state(gateway, call.client))


async def pool(gateway: LocalGateway, call: Call) -> Reply:
    """The model pool; see autoglm.serve.pool.handlers."""
    from autoglm.serve.pool.handlers import handle

    gateway.permit(call.client, admin=True)
    return reply_json(await handle(gateway.pool, call.method, call.path, _body(call)))


async def routes(gateway: LocalGateway, call: Call) -> Reply:
    """The routing table; see autoglm.serve.routes.handlers."""
    from urllib.parse import parse_qs

    from autoglm.serve.routes.handlers import handle

    if gateway.routes is None:
        raise NotOfferedError("This server has no routing table.")
    try:
        query = parse_qs(
            call.query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_FIELDS
        )
    except ValueError as error:
        raise InvalidRequestError(
            "The query has more than {limit} fields.", limit=_MOST_FIELDS
        ) from error
    asked = (call.method, call.path, query, _body(call), call.client)
    answer = handle(gateway.routes, *asked, gateway.permit)
    return reply_json(answer)
