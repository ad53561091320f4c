"""`autoglm config`: the schema, the config in force, and whether a file is right."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoglm.cli.common import Debug, Json, verb
from autoglm.cli.options import Adapt, configurable

config = typer.Typer(help="The adaptation config.", rich_markup_mode=None)


@config.command()
@verb
def schema(json: Json = False, debug: Debug = False) -> int:
    """Print the JSON Schema of the config file."""
    from autoglm.cli.output import emit_json
    from autoglm.config import json_schema

    emit_json(json_schema())
    return 0


@config.command()
@verb
@configurable()
def show(adapt: Adapt, json: Json = False, debug: Debug = False) -> int:
    """Print the config in force: the file's keys, the options over them, the defaults."""
    from autoglm.cli.output import emit_json

    emit_json(adapt.config().model_dump(mode="json"))
    return 0


@config.command()
@verb
def validate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help=".json, .yaml or .toml")],
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Say everything that is wrong with a config file; nothing when it is right."""
    from autoglm.cli.output import emit_json, stdout
    from autoglm.config import load_config
    from autoglm.messages import tr

    values = load_config(file).model_dump(mode="json", exclude_unset=True)
    if json:
        emit_json({"valid": True, "config": values})
    else:
        stdout().write(tr("{path} is valid.", path=file) + "\n")
    return 0


@config.command()
@verb
def passes(json: Json = False, debug: Debug = False) -> int:
    """List the graph passes that `passes` switches, with what each does."""
    from autoglm.cli.output import emit_json
    from autoglm.rewrite.prepare import PASSES

    rows = [{"pass": p.name, "default": p.default, "purpose": p.purpose} for p in PASSES.values()]
    if json:
        emit_json(rows)
    else:
        from autoglm.cli.terminal import show_rows

        show_rows(rows)
    return 0


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(config, name="config")
