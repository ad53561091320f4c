"""`autoglm bench`: times that can be compared, in one interleaved run."""

from __future__ import annotations

from typing import Annotated

import typer

from autoglm.cli.common import Debug, Json, Source, backend_names, limits, verb
from autoglm.cli.options import Adapt, configurable

Against = Annotated[
    list[str] | None,
    typer.Option("--against", metavar="ENGINE,…", help="Engines to time beside it, at fp32."),
]
Passes = Annotated[
    bool, typer.Option("--passes", help="Also time it with each graph pass that changed it off.")
]
Budget = Annotated[float, typer.Option("--budget-s", help="Seconds to spend on timing.")]


@configurable(without=("--passes",))
def bench(
    model: Source,
    adapt: Adapt,
    against: Against = None,
    passes: Passes = False,
    budget_s: Budget = 5.0,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Time a bundle or model, beside other engines.

    All take turns in one run; an A/A control shows what the machine's noise is worth.
    """
    from autoglm import api
    from autoglm.cli.output import emit_json, progress

    config = adapt.config()
    with limits(config, as_json=json), progress("timing"):
        rows = api.bench(
            model,
            against=backend_names(against or []),
            passes=passes,
            budget_s=budget_s,
            config=config,
        )
    if json:
        emit_json({"rows": rows})
    else:
        from autoglm.cli.terminal import show_rows

        show_rows(rows)
    return 0


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(verb(bench))
