"""`autoglm models`: list, load, unload, alias, label and canary on a running server."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from autoglm.cli.common import Debug, Json, verb
from autoglm.cli.remote import Server, connected

models = typer.Typer(
    help="List, load and unload the models of a running server.",
    rich_markup_mode=None,
    no_args_is_help=True,
)
Name = Annotated[str, typer.Argument(metavar="MODEL", show_default=False)]
Version = Annotated[str, typer.Option("--version", metavar="N", help="A number, alias or label.")]
Target = Annotated[str, typer.Argument(metavar="VERSION", show_default=False)]


@models.command("list")
@verb
@connected
def list_(
    server: Server,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Every version that the server knows: state, aliases, canary, memory, engines."""
    return _show(server.ask("GET", "/v1/pool"), json)


@models.command()
@verb
@connected
def load(
    server: Server,
    name: Name,
    path: Annotated[
        str,
        typer.Argument(metavar="[PATH]", help="A bundle, seen from the server's model folder."),
    ] = "",
    version: Annotated[str, typer.Option("--version", metavar="N")] = "",
    canary: Annotated[
        float | None,
        typer.Option("--canary", metavar="PERCENT", help="Share of the requests it gets at first."),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Load a version, or load it anew; what serves goes on until the new one is warm."""
    return _change(server, name, "load", json, path=path, version=version, canary=canary)


@models.command()
@verb
@connected
def unload(
    server: Server,
    name: Name,
    version: Version = "",
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Stop serving one version, or all, once what was accepted is answered."""
    return _change(server, name, "unload", json, version=version)


@models.command()
@verb
@connected
def alias(
    server: Server,
    name: Name,
    alias: Annotated[str, typer.Argument(metavar="ALIAS", help="`default`: what answers unasked.")],
    version: Annotated[str, typer.Argument(metavar="[VERSION]", help="None: remove it.")] = "",
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Point an alias at a version, in one step."""
    return _change(server, name, "alias", json, alias=alias, version=version)


@models.command()
@verb
@connected
def label(
    server: Server,
    name: Name,
    label: Annotated[str, typer.Argument(metavar="LABEL", show_default=False)],
    version: Target,
    remove: Annotated[bool, typer.Option("--remove", help="Take it away instead.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Give a version a label; the newest version that has it answers to it."""
    return _change(server, name, "label", json, label=label, version=version, on=not remove)


@models.command()
@verb
@connected
def canary(
    server: Server,
    name: Name,
    version: Target,
    percent: Annotated[float, typer.Argument(metavar="PERCENT", help="0 ends it.")],
    by: Annotated[
        str, typer.Option("--by", metavar="client|request", help="What decides who gets it.")
    ] = "client",
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Send a share of the requests that name no version to one version."""
    return _change(server, name, "canary", json, version=version, percent=percent, by=by)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(models, name="models")


def _change(asked: Server, name: str, what: str, json: bool, **body: Any) -> int:
    return _show(asked.ask("POST", f"/v1/pool/{name}/{what}", body=body), json)


def _show(answer: dict[str, Any], json: bool) -> int:
    from autoglm.cli.output import emit_json, printable, stdout

    if json:
        emit_json(answer)
        return 0
    for row in answer.get("models", ()):
        stdout().write(printable(_line(row)) + "\n")
    return 0


def _line(row: dict[str, Any]) -> str:
    words = [f"{row['name']}:{row['version']}", row["state"]]
    words += [f"alias {a}" for a in row["aliases"]] + [f"label {x}" for x in row["labels"]]
    if row["canary_percent"] is not None:
        words.append(f"canary {row['canary_percent']:g} %")
    words.append(f"{row['memory_bytes'] / (1 << 20):.1f} MiB")
    words += [_engine(e) for e in row["engines"]]
    return "  ".join([*words, *filter(None, [row["reason"]])])


def _engine(row: dict[str, Any]) -> str:
    state = f" (quarantine: {row['quarantine']})" if row["quarantine"] else ""
    alone = "" if row["joins"] else ", one request a run"
    return f"{row['name']} {row['row_us']:g} us/row{alone}{state}"
