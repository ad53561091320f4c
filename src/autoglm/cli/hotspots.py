"""`autoglm hotspots`: where slow requests lose their time, and which switch would help."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoglm.cli.common import Debug, Json, verb

if TYPE_CHECKING:
    from autoglm.diagnose.hotspots import Hotspots

_SHOWN = 12


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("hotspots")(verb(hotspots))


def hotspots(
    traces: Annotated[
        Path, typer.Argument(metavar="TRACES.json", help="OTLP/JSON, as a server writes it.")
    ],
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="Only this one.")] = "",
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Rank stages and operators by what they add to slow (p99) requests over ordinary ones."""
    from autoglm.cli.output import emit_json, note
    from autoglm.diagnose.hotspots import hotspots as rank
    from autoglm.diagnose.hotspots import read_traces
    from autoglm.errors import InputError
    from autoglm.messages import tr

    found, skipped = read_traces(traces)
    reports = [r for r in rank(found) if model in ("", r.model)]
    if not reports:
        raise InputError(
            "{path} holds no trace of {model}; there are: {known}.",
            hint="autoglm serve … --traces FILE writes some.",
            path=str(traces),
            model=model or "*",
            known=", ".join(sorted({t.model for t in found})) or "none",
        )
    if skipped:
        note(tr("{count} lines or spans were no traces and were passed over.", count=skipped))
    if json:
        emit_json(reports)
        return 0
    for report in reports:
        _show(report)
    return 0


def _show(report: Hotspots) -> None:
    from autoglm.cli.output import console, printable
    from autoglm.cli.terminal import table
    from autoglm.cli.words import seconds
    from autoglm.messages import tr

    line = tr(
        "{model}: {traces} traces of about {requests:.0f} requests; p50 {p50}, p99 {p99}",
        model=printable(report.model or "?"),
        traces=report.traces,
        requests=report.requests,
        p50=seconds(report.p50_s),
        p99=seconds(report.p99_s),
    )
    console().print(line)
    rows = [
        (
            s.name,
            seconds(s.tail_s),
            seconds(s.body_s),
            seconds(max(s.excess_s, 0.0)),
            f"{s.share:.0%}",
            s.switch if s.share >= 0.05 else "",
            s.figure if s.share >= 0.05 else "",
        )
        for s in report.spots[:_SHOWN]
    ]
    columns = (tr("stage"), tr("slow") + ">", tr("ordinary") + ">", tr("excess") + ">")
    table("", (*columns, tr("share") + ">", tr("switch"), tr("judged on")), rows, most=_SHOWN)
