"""`autoglm check`: before compiling, what runs where, why not elsewhere, and what it costs; with
`--to`, the migration report from one chip to others. A language model is planned from its
config.json.
"""

from __future__ import annotations

from collections.abc import Mapping
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
Context = Annotated[
    int | None,
    typer.Option(
        metavar="TOKENS",
        help="language models: prompt and answer together; without it 8192, or all it takes",
        show_default=False,
    ),
]
Concurrency = Annotated[
    int | None,
    typer.Option(metavar="COUNT", help="language models: sequences at a time", show_default=False),
]
Devices = Annotated[
    int | None,
    typer.Option(
        metavar="COUNT", help="language models: devices that share it", show_default=False
    ),
]


@configurable()
def check(
    model: Source,
    adapt: Adapt,
    from_: From = "",
    to: To = None,
    context: Context = None,
    concurrency: Concurrency = None,
    devices: Devices = None,
    report: Html = None,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Say what would run where, and why; compiles nothing.

    Every operator: yes, no or unknown, the reason, and what a fallback costs. With `--from cuda
    --to ascend,sophon`: a migration report, GO, GO WITH FALLBACKS or NO-GO for each chip.

    A folder or config.json of a language model: whether it fits, the longest context, the most
    sequences, time to first token and tokens/s, by precision; with `--to` chips side by side.

    Exit status: 0 fits, 1 fits with fallbacks or limits, 2 does not fit; of several chips the
    worst.
    """
    from autoglm.llm.read import is_language_model

    asked = {"context": context, "concurrency": concurrency, "devices": devices}
    if any(v is not None for v in asked.values()) or is_language_model(model):
        targets = backend_names([from_, *(to or [])])
        return _language(model, adapt, targets, asked, report, json)
    from autoglm import api
    from autoglm.cli.output import emit_json, progress

    config = adapt.config()
    if from_ or to:
        return _migrate(model, from_, backend_names(to or []), config, report, json)
    with limits(config, as_json=json), progress("planning"):
        result = api.check(model, config)
    assert isinstance(result, api.Report)  # a language model went its own way above
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


def _language(
    model: str,
    adapt: Adapt,
    targets: tuple[str, ...],
    asked: Mapping[str, int | None],
    report: Path | None,
    json: bool,
) -> int:
    from autoglm import api
    from autoglm.cli.app import UsageError
    from autoglm.cli.output import emit_json, progress

    if report is not None:
        raise UsageError("--report writes no page for language models; --json has everything.")
    # Precisions of language models (int4) are not those of a graph: they go by themselves.
    values = dict(adapt.values)
    precision = values.pop("adapt_precision", None)
    config = Adapt(adapt.file, values).config()
    with limits(config, as_json=json), progress("planning"):
        result = api.check_language_model(model, config, precision=precision, to=targets, **asked)
    if json:
        emit_json(result.to_dict())
    else:
        from autoglm.cli.language import show_language

        show_language(result)
    return EXIT[result.fit]


def _write(path: Path, text: str) -> None:
    from autoglm.cli.output import note, write_text
    from autoglm.messages import tr

    write_text(path, text)
    note(tr("report: {path}", path=path))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(verb(check))
