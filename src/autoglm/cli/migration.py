"""The migration report in a terminal: the chips side by side, then each chip's own list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from autoglm.cli import migration_rows as rows
from autoglm.cli import words
from autoglm.cli.output import console
from autoglm.cli.terminal import VERDICT_STYLE, cell, table
from autoglm.messages import tr
from autoglm.plan.migrate import GO

if TYPE_CHECKING:
    from autoglm.runtime.migrate import ChipReport, Migration

_MOST = 6


def show_migration(found: Migration) -> None:
    """Verdicts first, then what each rests on."""
    out = console()
    line = Text(tr(GO[found.fit]), style=VERDICT_STYLE[found.fit])
    chips = ", ".join(t.target for t in found.targets)
    line.append_text(cell(f"  {found.model}: {found.source.target} → {chips}"))
    out.print(line)
    asked = tr("{precision} asked for", precision=found.precision)
    size = tr("{nodes} nodes, {work}", nodes=found.nodes, work=words.flops(found.flops))
    out.print(cell(f"{size}; {asked}", "dim"))
    out.print()
    _side_by_side(found)
    for chip in found.targets:
        _show_chip(chip)
    columns = (tr("chip"), tr("table of"), tr("formats"), tr("how to get its compiler"))
    table(tr("Toolkits"), columns, rows.tools(found))
    notes = dict.fromkeys(n for c in (found.source, *found.targets) for n in c.notes)
    if found.notes or notes:
        out.print()
    for remark in (*found.notes, *notes):
        out.print(cell(tr("note: {text}", text=remark), "dim"))


def _side_by_side(found: Migration) -> None:
    grid = Table(box=None, pad_edge=False, show_header=True)
    grid.add_column("", style="dim")
    for chip in (found.source, *found.targets):
        grid.add_column(cell(chip.target), header_style="bold", overflow="fold")
    for i, (name, cells) in enumerate(rows.side_by_side(found)):
        styles = [VERDICT_STYLE[c.fit] if i == 0 else "" for c in (found.source, *found.targets)]
        grid.add_row(cell(name), *(cell(c, s) for c, s in zip(cells, styles, strict=True)))
    console().print(grid)


def _show_chip(chip: ChipReport) -> None:
    out = console()
    out.print()
    line = Text(tr(chip.verdict), style=VERDICT_STYLE[chip.fit])
    out.print(line.append_text(cell(f"  {chip.target}: {chip.why}")))
    lost = (tr("operator"), tr("nodes") + ">", tr("limit"), tr("why"), tr("known by"))
    table(tr("Operators lost (−) and gained (+)"), lost, rows.changed(chip), _MOST)
    falls = (tr("operator"), tr("placed on"), tr("price") + ">", tr("known by"))
    table(tr("Fallbacks"), (*falls, tr("why not there")), rows.fallbacks(chip), _MOST)
    table(tr("Conflicts"), (tr("kind"), tr("nodes") + ">", tr("why")), rows.conflicts(chip), _MOST)
    done = (tr("what to do"), tr("gain") + ">", tr("then") + ">", tr("verdict then"))
    table(tr("Work, by gain"), (*done, tr("command")), rows.work(chip), _MOST)
    unknown = [(text,) for text in chip.unknown]
    table(tr("Unknown, not counted as yes"), (tr("what"),), unknown, _MOST)
