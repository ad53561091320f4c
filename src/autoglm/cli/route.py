"""`autoglm route`: see, change and try the routing table of a running server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from autoglm.cli.common import Debug, Json, verb
from autoglm.cli.remote import Server, connected

route = typer.Typer(
    help="See, change and try the routing table of a running server.",
    rich_markup_mode=None,
    no_args_is_help=True,
)


@route.command()
@verb
@connected
def show(
    server: Server,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """The table in force, and what is wrong with the one that is not."""
    return _show_table(server.ask("GET", "/v1/routes"), json)


@route.command("set")
@verb
@connected
def set_(
    server: Server,
    table: Annotated[Path, typer.Argument(metavar="FILE", help=".toml, .json or .yaml")],
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Put a table in force, whole; where anything is wrong with it, the old one stays."""
    from autoglm.documents import read_document
    from autoglm.serve.routes.table import validate

    values = read_document(table)
    validate(values, str(table))  # its faults with the file's name, before anybody is asked
    return _show_table(server.ask("PUT", "/v1/routes", body=values), json)


@route.command()
@verb
def check(
    table: Annotated[Path, typer.Argument(metavar="FILE", help=".toml, .json or .yaml")],
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Say everything that is wrong with a table; asks no server."""
    from autoglm.cli.output import emit_json, stdout
    from autoglm.documents import read_document
    from autoglm.messages import tr
    from autoglm.serve.routes.table import validate

    rules = len(validate(read_document(table), str(table)).rules)
    if json:
        emit_json({"rules": rules})
    else:
        stdout().write(tr("{path}: {count} rules, nothing wrong", path=table, count=rules) + "\n")
    return 0


@route.command("test")
@verb
@connected
def ask(
    server: Server,
    client: Annotated[
        str, typer.Argument(metavar="[CLIENT]", help="A client's name, or an address.")
    ] = "",
    model: Annotated[str, typer.Option("--model", metavar="NAME")] = "",
    address: Annotated[str, typer.Option("--address", metavar="IP")] = "",
    mqtt: Annotated[str, typer.Option("--mqtt", metavar="ID", help="MQTT client id.")] = "",
    certificate: Annotated[str, typer.Option("--certificate", metavar="SUBJECT")] = "",
    header: Annotated[list[str] | None, typer.Option("--header", metavar="NAME:VALUE")] = None,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Which protocol, version, priority and limits a client gets, and why; without one: this
    client.
    """
    from autoglm.cli.output import emit_json, printable, stdout

    asked = {
        "client": client,
        "model": model,
        "address": address,
        "mqtt": mqtt,
        "certificate": certificate,
        "header": header,
    }
    query = {name: value for name, value in asked.items() if value}
    answer = server.ask("GET", "/v1/route", query=query)
    if json:
        emit_json(answer)
    else:
        lines = [
            f"{name}: {_word(value)}" for name, value in answer.items() if value not in ("", 0)
        ]
        stdout().write(printable("\n".join(lines)) + "\n")
    return 0


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(route, name="route")


def _show_table(answer: dict[str, Any], json: bool) -> int:
    from autoglm.cli.output import emit_json, printable, stdout

    if json:
        emit_json(answer)
        return 0
    import yaml

    text = yaml.safe_dump(answer.get("table", {}), sort_keys=False, allow_unicode=True)
    fault = answer.get("fault", "")
    stdout().write(printable(text + (f"fault: {fault}\n" if fault else "")))
    return 0


def _word(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v:g}" for k, v in value.items() if v) or "none"
    return str(value)
