"""The pool's part of the REST surface, for whoever mounts it: values in, values out.

GET  /v1/pool                  every version, with its engines
POST /v1/pool/NAME/load        {"path": "", "version": "", "canary": null}
POST /v1/pool/NAME/unload      {"version": ""}
POST /v1/pool/NAME/alias       {"alias": "stable", "version": "2"}; version "" removes it
POST /v1/pool/NAME/label       {"label": "int8", "version": "2", "on": true}
POST /v1/pool/NAME/canary      {"version": "3", "percent": 10, "by": "client"}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from autoglm.errors import InvalidRequestError, NotOfferedError
from autoglm.serve.pool.pool import Pool

PREFIX = "/v1/pool"


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Load(_Body):
    path: str = ""
    version: str = ""
    canary: float | None = None


class _Unload(_Body):
    version: str = ""


class _Alias(_Body):
    alias: str
    version: str


class _Label(_Body):
    label: str
    version: str
    on: bool = True


class _Canary(_Body):
    version: str
    percent: float
    by: Literal["client", "request"] = "client"


_BODIES: dict[str, type[_Body]] = {
    "load": _Load,
    "unload": _Unload,
    "alias": _Alias,
    "label": _Label,
    "canary": _Canary,
}


async def handle(pool: Pool, method: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to one call below `/v1/pool`; NotOfferedError where there is no such call.

    Whoever mounts it lets only those call it who may change the server.
    """
    name, _, verb = path.removeprefix(PREFIX).strip("/").partition("/")
    if method == "GET" and not name:
        return told(pool)
    if method != "POST" or verb not in _BODIES:
        raise NotOfferedError(
            "There is no {method} {path}.", method=method[:10], path=f"{PREFIX}/{name}/{verb}"[:200]
        )
    match _parsed(verb, body):
        case _Load() as asked:
            await pool.load(name, asked.path, asked.version, canary=asked.canary)
        case _Unload() as asked:
            await pool.unload(name, asked.version)
        case _Alias() as asked:
            pool.alias(name, asked.alias, asked.version)
        case _Label() as asked:
            pool.label(name, asked.label, asked.version, on=asked.on)
        case _Canary() as asked:
            pool.canary(name, asked.version, asked.percent, asked.by)
    await pool.state.save()
    return {"models": [row for row in pool.details() if row["name"] == name]}


def told(pool: Pool) -> dict[str, Any]:
    """Everything of every version, and of the memory they share."""
    memory = {"used_bytes": pool.used_bytes, "budget_bytes": pool.memory_bytes}
    return {"models": pool.details(), "memory": {**memory, "evictions": pool.evictions}}


def _parsed(verb: str, body: Mapping[str, Any]) -> _Body:
    try:
        return _BODIES[verb].model_validate(dict(body))
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False)
        )
        raise InvalidRequestError("{verb}: {faults}", verb=verb, faults=faults[:1000]) from error
