"""`autoglm ops`: a backend's capability table; `ops measure` writes it by running cases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoglm.cli.common import Debug, Json, verb

Backend = Annotated[str, typer.Option("--backend", "-b", metavar="NAME", help="Whose table.")]
ops = typer.Typer(help="Show or measure a backend's capability table.", rich_markup_mode=None)


@ops.callback(invoke_without_command=True)
@verb
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


@ops.command()
@verb
def measure(
    backend: Backend,
    out: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="For the pack.")],
    jobs: Annotated[int, typer.Option("--jobs", "-j", help="Cases at a time.")] = 1,
    timeout_s: Annotated[float, typer.Option("--timeout-s", help="For one case.")] = 20.0,
    limit_s: Annotated[
        float | None,
        typer.Option("--limit-s", help="For all; what is not reached stays unknown."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Run only what the folder's pack has no row for.")
    ] = False,
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            metavar="NAME",
            help="Run plain operators in it; a pack of its own says where it differs from fp32.",
        ),
    ] = "",
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Run every operator case on the installed version and write its pack.

    Where the folder already holds a pack of this version, says what changed and ends with 1.
    """
    from autoglm.catalog.packs import read_pack
    from autoglm.cli.app import UsageError
    from autoglm.cli.output import counter, emit_json, stdout
    from autoglm.messages import tr
    from autoglm.registry import backend as find
    from autoglm.testing import measure as kit
    from autoglm.testing.cases import all_cases

    if precision and precision not in kit.WITHIN:
        raise UsageError(
            "--precision is one of {allowed}; found {found!r}.",
            allowed=", ".join(kit.WITHIN),
            found=precision,
        )
    old = out / f"{kit.pack_name(backend, precision)}-{find(backend).version()}.json"
    before = read_pack(old) if old.is_file() else None
    if before is not None and resume:
        before = kit.redescribed(before, all_cases())
    with counter(tr("measuring {backend}", backend=backend)) as progress:
        pack = kit.measure(
            backend,
            progress=progress,
            jobs=jobs,
            timeout_s=timeout_s,
            limit_s=limit_s,
            resume=before if resume else None,
            precision=precision,
        )
    path = kit.write_pack(pack, out)
    diff = kit.diff_packs(before, pack) if before is not None else None
    if json:
        emit_json({"pack": str(path), "toolkit": pack.toolkit, "diff": diff})
    else:
        for sign, lines in (
            (("+", diff.added), ("-", diff.removed), ("~", diff.changed)) if diff else ()
        ):
            stdout().writelines(f"{sign} {line}\n" for line in lines)
        stdout().write(tr("written: {path}", path=path) + "\n")
    return int(diff is not None and not diff.same)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(ops, name="ops")
