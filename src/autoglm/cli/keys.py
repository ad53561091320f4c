"""`autoglm keys`: make, list and revoke the API keys of a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoglm.cli.common import Debug, Json, verb

Keys = Annotated[Path, typer.Option("--keys", metavar="FILE", help="The key file.")]
_DEFAULT = Path("keys.json")


def register(app: typer.Typer) -> None:
    """Add the command."""
    keys = typer.Typer(help="API keys of a server: make, list, revoke.", no_args_is_help=True)
    keys.command("add")(verb(add))
    keys.command("list")(verb(show))
    keys.command("revoke")(verb(revoke))
    app.add_typer(keys, name="keys")


def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the client.")],
    keys: Keys = _DEFAULT,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="PATTERN", help="Only models of this pattern; repeat."),
    ] = None,
    admin: Annotated[
        bool, typer.Option("--admin", help="May load, unload, and change routes.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Make a key and print it, this once: the file keeps only its hash."""
    from autoglm.cli.output import emit_json, note, stdout
    from autoglm.messages import tr
    from autoglm.serve.guard.keys import add_key

    key, text = add_key(keys, name, models=tuple(models or ()), admin=admin)
    if json:
        emit_json({"key": text, "id": key.id, "name": key.name})
        return 0
    stdout().write(text + "\n")
    note(tr("This is the only time that the key is shown; {file} keeps its hash.", file=keys))
    return 0


def show(keys: Keys = _DEFAULT, json: Json = False, debug: Debug = False) -> int:
    """Names, ids and rights; the keys themselves are nowhere."""
    from autoglm.cli.output import emit_json
    from autoglm.cli.terminal import table
    from autoglm.messages import tr
    from autoglm.serve.guard.keys import read_keys

    found = sorted(read_keys(keys).values(), key=lambda k: (k.name, k.created))
    rights = ("id", "name", "created", "models", "admin")
    if json:
        emit_json([{field: getattr(k, field) for field in rights} for k in found])
        return 0
    rows = [
        (k.name, k.id, k.created, ", ".join(k.models) or "*", "✓" if k.admin else "") for k in found
    ]
    table("", [tr(c) for c in ("name", "id", "created", "models", "admin")], rows, most=999)
    return 0


def revoke(
    which: Annotated[str, typer.Argument(metavar="NAME|ID", help="All of a name, or one id.")],
    keys: Keys = _DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Remove keys; a running server refuses them within a second."""
    from autoglm.cli.output import emit_json, note
    from autoglm.messages import tr
    from autoglm.serve.guard.keys import revoke_keys

    gone = revoke_keys(keys, which)
    if json:
        emit_json({"revoked": [k.id for k in gone]})
    else:
        note(tr("Revoked: {ids}.", ids=", ".join(f"{k.name} ({k.id})" for k in gone)))
    return 0
