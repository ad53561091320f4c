"""`autoglm doctor`: versions that do not fit each other, and what a vendor's message means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoglm.cli.common import Debug, Json, verb

if TYPE_CHECKING:
    from rich.console import Console

    from autoglm.diagnose.doctor import Diagnosis
    from autoglm.vendor_errors import Explanation

Log = Annotated[
    str, typer.Option("--text", metavar="FILE", help="Explain a log instead; - reads stdin.")
]
Vendor = Annotated[
    str, typer.Option("--vendor", metavar="NAME", help="Whose log it is: ascend, cuda, sophon, …")
]
Facts = Annotated[
    Path | None,
    typer.Option("--facts", metavar="FILE", help="Another machine's facts instead of this one's."),
]
Save = Annotated[
    Path | None, typer.Option("--save-facts", metavar="FILE.json", help="Write the facts found.")
]


def doctor(
    text: Log = "",
    vendor: Vendor = "",
    facts: Facts = None,
    save_facts: Save = None,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Check driver, firmware, toolkit, wheels and Python against each other; or explain a log.

    Ends with 0 where everything fits (or some message is known), with 1 otherwise.
    """
    return _explain(text, vendor, json) if text else _examine(facts, save_facts, json)


def _examine(path: Path | None, save: Path | None, as_json: bool) -> int:
    from autoglm.cli.output import emit_json
    from autoglm.diagnose.doctor import examine
    from autoglm.diagnose.facts import gather, read_facts

    diagnosis = examine(read_facts(path) if path else gather())
    if save:
        import json

        from autoglm.cli.output import write_text

        write_text(save, json.dumps({"facts": dict(diagnosis.facts)}, indent=2) + "\n")
    if as_json:
        emit_json(diagnosis.to_dict())
    else:
        _show_diagnosis(diagnosis)
    return int(not diagnosis.consistent)


def _explain(text: str, vendor: str, as_json: bool) -> int:
    from autoglm.cli.app import UsageError
    from autoglm.cli.output import emit_json
    from autoglm.vendor_errors import entries, explain

    vendors = sorted({entry.vendor for entry in entries()})
    if vendor and vendor not in vendors:
        raise UsageError(
            "No messages of {vendor!r} are known; known: {vendors}.",
            vendor=vendor,
            vendors=", ".join(vendors),
        )
    found = explain(_read(text), vendor)
    if as_json:
        emit_json({"explanations": found})
    else:
        _show_explanations(found)
    return int(not found)


def _read(name: str) -> str:
    from autoglm.errors import FileMissingError
    from autoglm.toolchain import read_ends

    if name == "-":
        import sys

        return sys.stdin.buffer.read().decode("utf-8", "replace")
    if not Path(name).is_file():
        raise FileMissingError("There is no file {path}.", path=name)
    return read_ends(Path(name))


def _show_explanations(found: Sequence[Explanation]) -> None:
    from autoglm.cli.output import console
    from autoglm.cli.terminal import cell
    from autoglm.messages import tr

    out = console()
    for number, item in enumerate(found):
        if number:
            out.print()
        out.print(cell(f"{item.code}  " + tr("line {line}", line=item.line), "bold"))
        out.print(cell(f"  {item.text}", "dim"))
        out.print(cell(f"  {item.cause}"))
        if item.nodes:
            out.print(cell("  " + tr("node: {nodes}", nodes=", ".join(item.nodes[:20]))))
        out.print(cell("  → " + item.next, "green"))
        out.print(cell("  " + tr("source: {source}", source=item.source), "dim"))
    if not found:
        out.print(cell(tr("No message in it is known."), "dim"))


def _show_diagnosis(diagnosis: Diagnosis) -> None:
    from autoglm.cli.output import console
    from autoglm.cli.terminal import cell
    from autoglm.diagnose.doctor import title
    from autoglm.messages import tr

    out = console()
    verdict = tr("everything fits") if diagnosis.consistent else tr("versions do not fit")
    out.print(cell(verdict, "bold green" if diagnosis.consistent else "bold red"))
    out.print(
        cell(
            tr(
                "{facts} components found, {rules} rules speak of them",
                facts=len(diagnosis.facts),
                rules=diagnosis.checked,
            ),
            "dim",
        )
    )
    for name, version in diagnosis.facts.items():
        out.print(cell(f"  {title(name)}: {version}"))
    for chain, rules in zip(diagnosis.sentences(), diagnosis.broken, strict=True):
        out.print()
        for sentence, rule in zip(chain, rules, strict=True):
            out.print(cell(f"✗ {sentence}", "red"))
            out.print(cell("  " + tr("source: {source}", source=rule.source), "dim"))
    if not diagnosis.consistent:
        _show_changes(diagnosis, out)


def _show_changes(diagnosis: Diagnosis, out: Console) -> None:
    from autoglm.cli.terminal import cell
    from autoglm.diagnose.doctor import title
    from autoglm.messages import tr

    out.print()
    if diagnosis.solution is None:
        none = tr("No set of known versions was found that fits; two may need an environment each.")
        out.print(cell(none, "red"))
        return
    changes = diagnosis.solution.changes
    out.print(
        cell(tr("The nearest set that fits ({count} change(s)):", count=len(changes)), "bold")
    )
    for change in changes:
        after = change.after or tr("not here")
        before = change.before or tr("not here")
        out.print(cell(f"  {title(change.component)}: {before} → {after}"))
        out.print(cell(f"    {change.command}", "green"))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(verb(doctor))
