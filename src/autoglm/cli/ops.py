"""`autoglm ops`: a backend's capability table; `ops measure` writes it by running cases."""

from __future__ import annotations

from typing import Annotated

import typer

from autoglm.cli.common import Debug, Json

Backend = Annotated[str, typer.Option("--backend", "-b", metavar="NAME", help="Whose table.")]
ops = typer.Typer(help="Show or measure a backend's capability table.", rich_markup_mode=None)


@ops.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    backend: Annotated[str, typer.Option("--backend", "-b", metavar="NAME")] = "",
    op: Annotated[str, typer.Option("--op", metavar="NAME", help="One operator only.")] = "",
    arch: Annotated[str, typer.Option("--arch", metavar="NAME", help="Of which chip.")] = "",
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Show a backend's operators: dtypes, opsets, limits, and how each is known."""
    if context.invoked_subcommand is not None:
        return 0
    from autoglm import api
    from autoglm.cli.app import UsageError
    from autoglm.cli.output import emit_json

    if not backend:
        raise UsageError("Name the backend: autoglm ops --backend NAME.")
    facts = api.ops(backend, op or None, arch=arch)
    if json:
        emit_json(facts)
    else:
        from autoglm.cli.terminal import show_ops

        show_ops(facts)
    return 0


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(ops, name="ops")
