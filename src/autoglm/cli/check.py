"""`autoglm check`: before compiling, what runs where, why not elsewhere, and what it costs."""

from __future__ import annotations

import typer

from autoglm.cli.common import Debug, Html, Json, Source, limits, verb
from autoglm.cli.options import Adapt, configurable
from autoglm.spec import EXIT


@configurable()
def check(
    model: Source, adapt: Adapt, report: Html = None, json: Json = False, debug: Debug = False
) -> int:
    """Say what would run where, and why; compiles nothing.

    Every operator: yes, no or unknown, the reason, and what a fallback costs.

    Exit status: 0 fits, 1 fits with fallbacks, 2 does not fit.
    """
    from autoglm import api
    from autoglm.cli.output import emit_json, note, progress, write_text
    from autoglm.messages import tr

    config = adapt.config()
    with limits(config, as_json=json), progress("planning"):
        result = api.check(model, config)
    if report is not None:
        from autoglm.cli.page import page

        write_text(report, page(result))
        note(tr("report: {path}", path=report))
    if json:
        emit_json(result.to_dict())
    else:
        from autoglm.cli.terminal import show_report

        show_report(result)
    return EXIT[result.fit]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(verb(check))
