"""`autoglm compile`: plan, compile, prove, and for `auto` measure and choose."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoglm.cli.common import Debug, Html, Json, Source, limits, verb
from autoglm.cli.options import Adapt, configurable

Out = Annotated[
    Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the bundle goes.")
]
Force = Annotated[bool, typer.Option("--force", help="Compile anew; take nothing from the cache.")]


@configurable()
def compile(
    model: Source,
    adapt: Adapt,
    out: Out,
    force: Force = False,
    report: Html = None,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Adapt a model into a bundle.

    The bundle holds the plan, the artifacts, aligned weights, and certificates of accuracy.
    """
    from autoglm import api
    from autoglm.cli.output import emit_json, note, progress, write_text
    from autoglm.cli.result import result_dict
    from autoglm.messages import tr

    config = adapt.config()
    with limits(config, as_json=json), progress("reading the model") as step:
        result = api.compile(model, out, config, force=force, progress=step)
    if report is not None:
        from autoglm.cli.page import page

        write_text(report, page(result.report, result.certificates, result.measurements))
        note(tr("report: {path}", path=report))
    if json:
        emit_json(result_dict(result))
    else:
        from autoglm.cli.terminal import show_compiled

        show_compiled(result)
    return 0


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(verb(compile))
