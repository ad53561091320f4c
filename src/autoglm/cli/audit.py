"""`autoglm audit`: what in Python code works on CUDA only, and what to write instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from autoglm.cli.common import Debug, Json, verb

if TYPE_CHECKING:
    from autoglm.diagnose.audit import Audit, Finding

Code = Annotated[str, typer.Argument(metavar="PATH", help="a Python file, or a folder of them")]
Target = Annotated[
    str, typer.Option("--target", "-t", metavar="BACKEND", help="ascend, cambricon or kunlun")
]
_STATUS = {"": 0, "low": 1, "medium": 1, "high": 2}


def audit(path: Code, target: Target = "", json: Json = False, debug: Debug = False) -> int:
    """Find CUDA-only code and say what to write instead; runs none of it.

    Exit status: 0 nothing found, 1 found, 2 some of it has no equal on other chips.
    """
    from autoglm.cli.output import emit_json
    from autoglm.diagnose.audit import audit as read
    from autoglm.diagnose.audit import targets
    from autoglm.errors import ConfigError

    if target and target not in targets():
        raise ConfigError(
            "No replacements are known for {target!r}; known: {known}.",
            hint="Without --target it says what works on every device.",
            target=target,
            known=", ".join(targets()),
        )
    found = read(path)
    if json:
        emit_json(found.to_dict())
    else:
        _show(found, target)
    return _STATUS[found.risk]


def _show(found: Audit, target: str) -> None:
    from autoglm.cli.output import console
    from autoglm.cli.terminal import cell, table
    from autoglm.diagnose.audit import targets
    from autoglm.messages import tr

    out = console()
    line = tr(
        "{count} CUDA-only places of {kinds} kinds in {files} files",
        count=len(found.findings),
        kinds=len(found.counts()),
        files=found.files,
    )
    out.print(cell(line, "bold"))
    if target:
        facts = targets()[target]
        out.print(cell(tr("{target}: first {adapter}", target=target, adapter=facts["adapter"])))
    columns = (tr("kind"), tr("places") + ">", tr("risk"), tr("for example"), tr("write instead"))
    rows = [
        (kind, len(places), tr(places[0].risk), _where(places), _instead(places[0], target))
        for kind, places in found.counts().items()
    ]
    table(tr("By kind"), columns, rows, most=100)
    listed = [(f"{f.path}:{f.line}", f.code, _instead(f, target)) for f in found.findings]
    table(tr("Places"), (tr("place"), tr("code"), tr("write instead")), listed, most=40)
    unread = [(path, reason) for path, reason in found.unread.items()]
    table(tr("Not read"), (tr("file"), tr("why")), unread)


def _where(places: list[Finding]) -> str:
    more = f" +{len(places) - 1}" if len(places) > 1 else ""
    return f"{places[0].path}:{places[0].line}{more}"


def _instead(finding: Finding, target: str) -> str:
    return finding.instead.get(target) or finding.portable


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(verb(audit))
