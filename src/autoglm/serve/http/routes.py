"""Which handler answers which method and path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from autoglm.serve.http import envelope, oip, openapi, pages
from autoglm.serve.http.pages import Handler
from autoglm.serve.http.wire import HttpError

_LONGEST = 1024


@dataclass(frozen=True, slots=True)
class Route:
    """A handler and what the path says."""

    handler: Handler
    arguments: tuple[str, ...] = ()
    open: bool = False  # answers anybody: health
    json: bool = False  # its body is JSON (or binary tensors)


@dataclass(frozen=True, slots=True)
class _Spot:
    handler: Any
    open: bool = False
    json: bool = False


# {m} a model's name, {v} a version; "/versions/{v}" may be left out.
_TABLE: dict[str, dict[str, _Spot]] = {
    "/v1/infer": {"POST": _Spot(envelope.infer, json=True)},
    "/v1/schema": {"GET": _Spot(openapi.schema)},
    "/openapi.json": {"GET": _Spot(openapi.document)},
    "/v1/models": {"GET": _Spot(pages.models)},
    "/healthz": {"GET": _Spot(pages.healthy, open=True)},
    "/readyz": {"GET": _Spot(pages.ready, open=True)},
    "/v2": {"GET": _Spot(pages.server)},
    "/v2/health/live": {"GET": _Spot(pages.live, open=True)},
    "/v2/health/ready": {"GET": _Spot(pages.ready, open=True)},
    "/metrics": {"GET": _Spot(pages.metrics)},
    **{f"/ui{file}": {"GET": _Spot(pages.ui, open=True)} for file in ("", "/page.js", "/page.css")},
    "/v1/ui/state": {"GET": _Spot(pages.ui_state)},
    "/v1/pool": {"GET": _Spot(pages.pool)},
    "/v1/route": {"GET": _Spot(pages.routes)},
    "/v1/routes": {"GET": _Spot(pages.routes), "PUT": _Spot(pages.routes, json=True)},
    "/v2/models/stats": {"GET": _Spot(pages.statistics)},
    "/v2/repository/index": {"POST": _Spot(pages.index, json=True)},
}
_REPOSITORY: dict[str, dict[str, _Spot]] = {
    "load": {"POST": _Spot(pages.load, json=True)},
    "unload": {"POST": _Spot(pages.unload, json=True)},
}
_POOL = {"POST": _Spot(pages.pool, json=True)}
_POOL_VERBS = ("load", "unload", "alias", "label", "canary")
_MODEL: dict[str, dict[str, _Spot]] = {
    "": {"GET": _Spot(pages.metadata)},
    "ready": {"GET": _Spot(pages.model_ready)},
    "config": {"GET": _Spot(pages.config)},
    "stats": {"GET": _Spot(pages.statistics)},
    "infer": {"POST": _Spot(oip.infer, json=True)},
}


def find(method: str, path: str) -> Route:
    """The route; HttpError 404 or 405 where there is none."""
    methods, arguments = _spots(path if len(path) <= _LONGEST else "")
    if methods is None:
        raise HttpError(
            404,
            "There is no {path}.",
            hint="GET /openapi.json lists what there is.",
            path=path[:200],
        )
    spot = methods.get("GET" if method == "HEAD" else method)
    if spot is None:
        allowed = ", ".join([*methods, *(["HEAD"] if "GET" in methods else [])])
        raise HttpError(
            405,
            "{path} takes {allowed_methods}; found {method}.",
            path=path[:200],
            allowed_methods=allowed,
            method=method[:20],
        )
    return Route(spot.handler, arguments, spot.open, spot.json)


def _spots(path: str) -> tuple[dict[str, _Spot] | None, tuple[str, ...]]:
    plain = _TABLE.get(path) or _TABLE.get(path.rstrip("/"))
    if plain is not None:
        return plain, ()
    match path.split("/"):
        case ["", "v1", "pool", name, verb] if name and verb in _POOL_VERBS:
            return _POOL, ()
        case ["", "v2", "repository", "models", name, verb] if name:
            return _REPOSITORY.get(verb), (name,)
        case ["", "v2", "models", name, "versions", version, *rest] if name and len(rest) < 2:
            return _MODEL.get("".join(rest)), (name, version)
        case ["", "v2", "models", name, *rest] if name and len(rest) < 2:
            return _MODEL.get("".join(rest)), (name, "")
    return None, ()
