"""The routing table's part of the REST surface, for whoever mounts it: values in, values out.

GET  /v1/route     ?client=NAME or ADDRESS &address= &mqtt= &certificate= &model= &header=NAME:VALUE
                   without any of them: of the client that asks; of another only to who may change
                   the server
GET  /v1/routes    the table in force, and the fault of the one that is not
PUT  /v1/routes    put a table in force
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from autoglm.errors import InvalidRequestError, NotOfferedError
from autoglm.serve.core import Client, Credentials
from autoglm.serve.routes.routes import Routes

ROUTE, ROUTES = "/v1/route", "/v1/routes"
Permit = Callable[..., None]  # Gateway.permit
_KNOWN = ("client", "address", "mqtt", "certificate", "model", "header", "transport")


def handle(
    routes: Routes,
    method: str,
    path: str,
    query: Mapping[str, Sequence[str]],
    body: Mapping[str, Any],
    client: Client,
    permit: Permit,
) -> dict[str, Any]:
    """The answer to one call; ForbiddenError where `permit` raises it, NotOfferedError where there
    is no such call.
    """
    if path.rstrip("/") == ROUTE:
        permit(client, *query.get("model", ())[-1:], admin=_of_another(query, client))
    else:
        permit(client, admin=True)
    match method, path.rstrip("/"):
        case "GET", "/v1/route":
            return answer(routes, query, client)
        case "GET", "/v1/routes":
            return routes.to_dict()
        case "PUT", "/v1/routes":
            routes.set(body)
            return routes.to_dict()
    raise NotOfferedError("There is no {method} {path}.", method=method[:10], path=path[:200])


def answer(routes: Routes, query: Mapping[str, Sequence[str]], client: Client) -> dict[str, Any]:
    """Which protocol, version, priority and limits a client gets, and why."""
    if unknown := sorted(set(query) - set(_KNOWN)):
        raise InvalidRequestError(
            "Unknown parameter {name!r}; known: {known}.",
            name=unknown[0][:100],
            known=", ".join(_KNOWN),
        )
    one = {name: values[-1] for name, values in query.items() if values}
    model = one.pop("model", "")
    asked = _client(one, query.get("header", ())) if _of_another(query, client) else client
    return {"client": asked.name, **routes.route(asked, model).to_dict()}


def _of_another(query: Mapping[str, Sequence[str]], client: Client) -> bool:
    """Whether what is asked is not what the client could find out by asking for itself."""
    about = {name: values for name, values in query.items() if name != "model"}
    return bool(about) and (set(about) != {"client"} or set(about["client"]) != {client.name})


def _client(one: Mapping[str, str], headers: Sequence[str]) -> Client:
    name = one.get("client", "anonymous")
    address = one.get("address", name if _is_address(name) else "")
    pairs = (text.partition(":") for text in headers)
    credentials = Credentials(
        one.get("transport", ""),
        address=address,
        certificate=one.get("certificate", ""),
        client_id=one.get("mqtt", ""),
        headers={name.strip().lower(): value.strip() for name, _, value in pairs},
    )
    return Client(name, credentials)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
