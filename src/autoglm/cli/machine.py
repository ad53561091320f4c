"""`autoglm devices` and `autoglm backends`: what is here."""

from __future__ import annotations

import typer

from autoglm.cli.common import Debug, Json, verb


def devices(json: Json = False, debug: Debug = False) -> int:
    """List the devices that some backend finds here."""
    from autoglm import api
    from autoglm.cli.output import emit_json
    from autoglm.registry import broken

    rows = api.devices()
    problems = [{"plug-in": b.name, "reason": b.reason} for b in broken()]
    if json:
        emit_json({"devices": rows, "broken": problems})
    else:
        from autoglm.cli.terminal import show_devices

        show_devices(rows, problems)
    return 0


def backends(json: Json = False, debug: Debug = False) -> int:
    """List the backends, with version and table."""
    from autoglm import api
    from autoglm.cli.output import emit_json

    rows = api.backends()
    if json:
        emit_json(rows)
    else:
        from autoglm.cli.terminal import show_backends

        show_backends(rows)
    return 0


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(verb(devices))
    app.command()(verb(backends))
