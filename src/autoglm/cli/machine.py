"""`autoglm devices` and `autoglm backends`: what is here, and what is known."""

from __future__ import annotations

from typing import Annotated

import typer

from autoglm.cli.common import Debug, Json, verb

Catalog = Annotated[
    bool, typer.Option("--catalog", help="Every chip that can be planned for, here or not.")
]


def devices(catalog: Catalog = False, json: Json = False, debug: Debug = False) -> int:
    """List the accelerators here, with the evidence for and against each."""
    from autoglm import api
    from autoglm.cli.output import emit_json
    from autoglm.registry import broken

    if catalog:
        return _catalog(json)
    found = api.hardware()
    problems = [{"plug-in": b.name, "reason": b.reason} for b in broken()]
    if json:
        emit_json({**found.to_dict(), "broken": problems})
    else:
        from autoglm.cli.inventory import show_hardware

        show_hardware(found, problems)
    return 0


def backends(json: Json = False, debug: Debug = False) -> int:
    """List the backends: what each takes, its toolchain, and how well that is known."""
    from autoglm import api
    from autoglm.cli.output import emit_json

    rows = api.backends()
    if json:
        emit_json(rows)
    else:
        from autoglm.cli.inventory import show_backends

        show_backends(rows)
    return 0


def _catalog(json: bool) -> int:
    from dataclasses import asdict

    from autoglm import api
    from autoglm.cli.output import emit_json

    chips = api.chips()
    if json:
        emit_json([asdict(chip) for chip in chips])
    else:
        from autoglm.cli.inventory import show_chips

        show_chips(chips)
    return 0


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(verb(devices))
    app.command()(verb(backends))
