"""The report as one HTML page that needs nothing else: no network and no other file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm.cli import sections, words
from autoglm.cli.html import section, text
from autoglm.cli.svg import colours, svg
from autoglm.messages import language, tr
from autoglm.spec import Certificate, Fit, Verdict

if TYPE_CHECKING:
    from autoglm.api import Report
    from autoglm.runtime.candidate import Measurement

_HERE = Path(__file__).parent
VERDICT_CLASS = {Fit.FITS: "fits", Fit.FALLBACKS: "falls", Fit.NO: "no"}


def page(
    report: Report,
    certificates: Sequence[Certificate] = (),
    measurements: Sequence[Measurement] = (),
) -> str:
    """The whole page."""
    parts = [
        _header(report),
        _tiles(report),
        _drawing(report),
        sections.partitions(report.plan),
        sections.fallbacks(report.plan),
        *sections.refusals(report.plan),
        sections.boundaries(report.plan),
        sections.alternatives(report.plan),
        sections.measurements(measurements),
        sections.certificates(certificates),
        sections.changes(tr("Rewrites"), report.rewrites),
        sections.changes(tr("Passes"), [p for p in report.passes if p.changes]),
        sections.facts(report),
    ]
    return document(report.model, parts)


def document(title: str, parts: Sequence[str]) -> str:
    """Sections as one page with the house's style and script inside."""
    style, script = ((_HERE / name).read_text("utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # The hash lets our script run and no other: a name that slipped through could still do nothing.
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return (
        f'<!doctype html><html lang="{language()}"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)} – autoglm</title><style>{style}</style></head>"
        f"<body><main>{''.join(parts)}{_footer()}</main><script>{script}</script></body></html>\n"
    )


def _header(report: Report) -> str:
    plan = report.plan
    violations = "".join(f"<li>{text(v)}</li>" for v in plan.violations)
    verdict = f'<span class="verdict {VERDICT_CLASS[plan.fit]}">{text(tr(plan.fit.value))}</span>'
    return (
        f"<header>{verdict}"
        f"<h1>{text(report.model)} → {text(plan.backend)}</h1>"
        f'<p class="sub">{text(plan.precision)} · {text(report.frontend)} · '
        f"<code>{text(report.digest[:16])}</code></p></header>"
        + (f'<ul class="violations">{violations}</ul>' if violations else "")
    )


def tiles(figures: Sequence[tuple[object, str]]) -> str:
    """Figures with what they are, in a row."""
    cells = "".join(
        f'<div class="tile"><b>{text(value)}</b><span>{text(label)}</span></div>'
        for value, label in figures
    )
    return f'<div class="tiles">{cells}</div>'


def _tiles(report: Report) -> str:
    plan, nodes = report.plan, report.graph.nodes
    price = sum(f.seconds for f in plan.fallbacks)
    crossing = sum(b.seconds for b in plan.boundaries)
    moved = sum(b.bytes for b in plan.boundaries)
    other = words.greedy(plan)
    unknown = {
        r.node for r in plan.refusals if r.verdict is Verdict.UNKNOWN and r.backend == plan.backend
    }
    figures: list[tuple[object, str]] = [
        (
            words.seconds(plan.seconds),
            tr("predicted, {within}", within=words.within(plan)),
        ),
        (len(nodes), tr("nodes, {work}", work=words.flops(sum(n.flops for n in nodes)))),
        (len(plan.partitions), tr("partition(s)")),
        (len(plan.fallbacks), tr("fallback(s), {price}", price=words.seconds(price))),
        (words.size(moved), tr("over boundaries, {price}", price=words.seconds(crossing))),
        (len(unknown), tr("unknown, not counted as yes")),
    ]
    if other is not None and other.seconds > plan.seconds * 1.005:
        saved = 100 * (1 - plan.seconds / other.seconds)
        figures.append((f"{saved:.0f} %", tr("saved against greedy")))
    return tiles(figures)


def _drawing(report: Report) -> str:
    plan = report.plan
    picture = svg(report.graph, plan)
    if not picture:
        return ""
    hue = colours(plan)
    chips = "".join(
        f'<button class="chip h{hue[p.backend]}" data-p="{text(p.id)}" aria-pressed="false">'
        f"{text(p.id)} · {text(p.backend)} · {len(p.nodes)}</button>"
        for p in plan.partitions
    )
    tools = (
        '<div class="tools"><button class="tool" id="zoom-in">+</button>'
        '<button class="tool" id="zoom-out">−</button>'
        f'<button class="tool" id="zoom-all">{text(tr("all"))}</button></div>'
    )
    legend = tr(
        "Colour: backend. Dashed box: fallback. Orange line: a boundary. "
        "Hover for reason and price; click a partition to filter; Ctrl and wheel to zoom."
    )
    body = (
        f'<div class="chips">{chips}</div><div class="stage">{picture}{tools}</div>'
        f'<p id="detail"></p><div class="legend">{text(legend)}</div>'
    )
    return section(tr("Graph"), body)


def _footer() -> str:
    from autoglm import __version__

    remark = tr(
        "Made by autoglm {version}; times are predictions unless they say measured.",
        version=__version__,
    )
    return f"<footer>{text(remark)}</footer>"
