"""`autoglm inspect`: what a bundle says of itself, and whether its files are still those."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoglm.cli.common import Debug, Json, verb

Folder = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder that `compile` wrote.")]
Verify = Annotated[bool, typer.Option("--verify", help="Check the hash of every file as well.")]


def inspect(
    bundle: Folder, verify: Verify = False, json: Json = False, debug: Debug = False
) -> int:
    """Show a bundle's plan, artifacts and certificates."""
    from autoglm import api
    from autoglm.cli.output import emit_json
    from autoglm.errors import BundleError

    facts = api.inspect(bundle, verify=verify)
    if facts.get("problems"):
        raise BundleError(
            "{path} is damaged: {problems}.",
            hint="Compile it again; never run a damaged bundle.",
            path=bundle,
            problems="; ".join(str(p) for p in facts["problems"]),
        )
    if json:
        emit_json(facts)
    else:
        from autoglm.cli.terminal import show_bundle

        show_bundle(facts)
    return 0


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(verb(inspect))
