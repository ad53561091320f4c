"""`autoglm check`: before compiling, what runs where, why not elsewhere, and what it costs; with
`--to`, the migration report from one chip to others.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoglm.cli.common import Debug, Html, Json, Source, backend_names, limits, verb
from autoglm.cli.options import Adapt, configurable
from autoglm.spec import EXIT

if TYPE_CHECKING:
    from autoglm.config import AdaptConfig

From = Annotated[
    str,
    typer.Option(
        "--from", metavar="CHIP", help="with --to: the chip it runs on; BACKEND[:CHIP] or a chip"
    ),
]
To = Annotated[
    list[str] | None,
    typer.Option("--to", metavar="CHIP,…", help="the chips that it may move to, compared"),
]


@configurable()
def check(
    model: Source,
    adapt: Adapt,
    from_: From = "",
    to: To = None,
    report: Html = None,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Say what would run where, and why; compiles nothing.

    Every operator: yes, no or unknown, the reason, and what a fallback costs. With `--from cuda
    --to ascend,sophon`: a migration report, GO, GO WITH FALLBACKS or NO-GO for each chip.

    Exit status: 0 fits, 1 fits with fallbacks, 2 does not fit; of several chips the worst.
    """
    from autoglm import api
    from autoglm.cli.output import emit_json, progress

    config = adapt.config()
    if from_ or to:
        return _migrate(model, from_, backend_names(to or []), config, report, json)
    with limits(config, as_json=json), progress("planning"):
        result = api.check(model, config)
    if report is not None:
        from autoglm.cli.page import page

        _write(report, page(result))
    if json:
        emit_json(result.to_dict())
    else:
        from autoglm.cli.terminal import show_report

        show_report(result)
    return EXIT[result.fit]


def _migrate(
    model: str,
    source: str,
    targets: tuple[str, ...],
    config: AdaptConfig,
    report: Path | None,
    json: bool,
) -> int:
    from autoglm import api
    from autoglm.cli.app import UsageError
    from autoglm.cli.output import emit_json, progress

    if not source or not targets:
        raise UsageError(
            "A migration report needs both --from and --to.",
            hint="autoglm check model.onnx --from cuda:H100 --to ascend,sophon:BM1684X",
        )
    with limits(config, as_json=json), progress("planning"):
        result = api.migrate(model, source, targets, config)
    if report is not None:
        from autoglm.cli.migration_page import page

        _write(report, page(result))
    if json:
        emit_json(result.to_dict())
    else:
        from autoglm.cli.migration import show_migration

        show_migration(result)
    return EXIT[result.fit]


def _write(path: Path, text: str) -> None:
    from autoglm.cli.output import note, write_text
    from autoglm.messages import tr

    write_text(path, text)
    note(tr("report: {path}", path=path))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(verb(check))
