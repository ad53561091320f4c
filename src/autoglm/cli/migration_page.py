"""The migration report as one HTML page: the chips side by side, then each chip's reasons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from autoglm.cli import migration_rows as rows
from autoglm.cli import words
from autoglm.cli.html import Html, bar, code, section, table, text
from autoglm.cli.page import VERDICT_CLASS, document, tiles
from autoglm.messages import tr
from autoglm.plan.migrate import GO

if TYPE_CHECKING:
    from autoglm.runtime.migrate import ChipReport, Migration


def page(found: Migration) -> str:
    """The whole page; it needs no other file and no network."""
    parts = [_header(found), _tiles(found), _side_by_side(found), _times(found)]
    parts += map(_chip, found.targets)
    return document(found.model, [*parts, _toolkits(found), _notes(found)])


def _badge(chip: ChipReport) -> Html:
    return Html(f'<span class="verdict {VERDICT_CLASS[chip.fit]}">{text(tr(chip.verdict))}</span>')


def _header(found: Migration) -> str:
    verdict = f'<span class="verdict {VERDICT_CLASS[found.fit]}">{text(tr(GO[found.fit]))}</span>'
    targets = ", ".join(t.target for t in found.targets)
    return (
        f"<header>{verdict}<h1>{text(found.model)}: {text(found.source.target)} → {text(targets)}"
        f'</h1><p class="sub">{text(found.precision)} · <code>{text(found.digest[:16])}</code></p>'
        "</header>"
    )


def _tiles(found: Migration) -> str:
    work = tr("nodes, {work}", work=words.flops(found.flops))
    figures: list[tuple[object, str]] = [(found.nodes, work)]
    figures += [(tr(t.verdict), t.target) for t in found.targets]
    return tiles(figures)


def _side_by_side(found: Migration) -> str:
    first, *others = rows.side_by_side(found)
    chips = (found.source, *found.targets)
    body = [[first[0], *map(_badge, chips)], *([name, *cells] for name, cells in others)]
    grid = table(["", *(c.target for c in chips)], body)
    return section(tr("Side by side"), f'<div class="whole">{grid}</div>')


def _times(found: Migration) -> str:
    chips = (found.source, *found.targets)
    most = max(c.plan.seconds for c in chips)
    body = [
        (
            c.target,
            words.seconds(c.plan.seconds),
            " – ".join(map(words.seconds, c.latency)),
            bar(words.share(c.plan.seconds, most), 0 if i == 0 else 1),
        )
        for i, c in enumerate(chips)
    ]
    columns = (tr("chip"), tr("predicted") + ">", tr("range") + ">", "")
    return section(tr("Time of one inference"), table(columns, body), tr("estimates, not measured"))


def _chip(chip: ChipReport) -> str:
    work = [(*w[:4], code(w[4]) if w[4] else "") for w in rows.work(chip)]
    done = (tr("what to do"), tr("gain") + ">", tr("then") + ">", tr("verdict then"))
    lost = (tr("operator"), tr("nodes") + ">", tr("limit"), tr("why"), tr("known by"))
    falls = (tr("operator"), tr("placed on"), tr("price") + ">", tr("known by"))
    clash = (tr("kind"), tr("nodes") + ">", tr("why"))
    unknown = [(text,) for text in chip.unknown]
    parts = [
        f"{_badge(chip)}<p>{text(chip.why)}</p>",
        _part(tr("Work, by gain"), (*done, tr("command")), work),
        _part(tr("Operators lost (−) and gained (+)"), lost, rows.changed(chip)),
        _part(tr("Fallbacks"), (*falls, tr("why not there")), rows.fallbacks(chip)),
        _part(tr("Conflicts"), clash, rows.conflicts(chip)),
        _part(tr("Unknown, not counted as yes"), (tr("what"),), unknown),
    ]
    return section(chip.target, "".join(parts))


def _part(title: str, columns: Sequence[str], body: Sequence[Sequence[object]]) -> str:
    return f"<h3>{text(title)}</h3>{table(columns, body)}" if body else ""


def _toolkits(found: Migration) -> str:
    columns = (tr("chip"), tr("table of"), tr("formats"), tr("how to get its compiler"))
    return section(tr("Toolkits"), table(columns, rows.tools(found)))


def _notes(found: Migration) -> str:
    chips = (found.source, *found.targets)
    notes = dict.fromkeys((*found.notes, *(n for c in chips for n in c.notes)))
    return section(tr("Notes"), table(("",), [(n,) for n in notes]) if notes else "")
