"""`autoglm toolchain`: vendors' compilers, each in an environment of its own."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from autoglm.cli.common import Debug, Json, verb

Name = Annotated[str, typer.Argument(metavar="NAME", help="See `autoglm toolchain list`.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Agree to the licence; ask nothing.")]
toolchain = typer.Typer(
    help="Install, list or remove vendors' compilers.", rich_markup_mode=None, no_args_is_help=True
)


@toolchain.command("list")
@verb
def show(json: Json = False, debug: Debug = False) -> int:
    """List every toolchain: installed or not, version, Python, size, licence, how to get it."""
    from autoglm.cli.output import console, emit_json

    rows = _rows()
    if json:
        emit_json(rows)
        return 0
    from rich.table import Table

    from autoglm.messages import tr

    table = Table(box=None, pad_edge=False)
    for title in ("toolchain", "version", "python", "size", "licence", "state"):
        table.add_column(tr(title))
    for row in rows:
        state = tr("installed") if row["installed"] else row["install"]
        cells = (row["name"], row["version"], row["python"], row["size"], row["licence"], state)
        table.add_row(*cells)
    console().print(table)
    return 0


def _rows() -> list[dict[str, Any]]:
    from autoglm.toolchain.environment import find, recipes

    rows = []
    for name, recipe in recipes().items():
        found = find(name)
        rows.append(
            {
                "name": name,
                "title": recipe.title,
                "version": recipe.version,
                "installed": found is not None,
                "folder": str(found.folder) if found else "",
                "python": found.python_version if found else " ".join(recipe.python) or "3",
                "size": _gigabytes(found.size_bytes / 1e9 if found else recipe.disk_gb),
                "licence": recipe.licence,
                "licence_url": recipe.licence_url,
                "install": f"autoglm toolchain install {name}",
            }
        )
    return rows


def _gigabytes(size: float) -> str:
    return f"{size:.1f} GB"


@toolchain.command()
@verb
def install(
    name: Name,
    yes: Yes = False,
    force: Annotated[bool, typer.Option("--force", help="Make it anew.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Show what it is, its licence and size; then install it into an environment of its own."""
    from autoglm.cli.output import emit_json, note, progress, stdout
    from autoglm.messages import tr
    from autoglm.toolchain import environment

    asked = environment.recipe(name)
    if environment.find(name) is None or force:
        note(f"{asked.name} {asked.version}: {asked.title}")
        note(tr("licence: {licence}", licence=f"{asked.licence} ({asked.licence_url})"))
        note(
            tr(
                "needs about {size} in {folder}",
                size=_gigabytes(asked.disk_gb),
                folder=environment.home(name),
            )
        )
        if not yes:
            typer.confirm(tr("Install it and accept this licence?"), abort=True, err=True)
    with progress(tr("installing {name}", name=name)) as step:
        found = environment.install(name, progress=step, force=force)
    if json:
        emit_json({"name": name, "version": found.version, "folder": str(found.folder)})
    else:
        stdout().write(tr("installed: {folder}", folder=found.folder) + "\n")
    return 0


@toolchain.command()
@verb
def remove(name: Name, json: Json = False, debug: Debug = False) -> int:
    """Delete an installed toolchain."""
    from autoglm.cli.output import emit_json, stdout
    from autoglm.messages import tr
    from autoglm.toolchain import environment

    there = environment.remove(name)
    if json:
        emit_json({"name": name, "removed": there})
    else:
        text = (
            tr("removed: {name}", name=name) if there else tr("{name} was not installed", name=name)
        )
        stdout().write(text + "\n")
    return 0


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(toolchain, name="toolchain")
