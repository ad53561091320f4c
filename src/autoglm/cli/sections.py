"""The report's tables: where things run, why not elsewhere, what it costs, and the proof."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from autoglm.cli import words
from autoglm.cli.html import Html, bar, code, section, table, text
from autoglm.cli.output import plain
from autoglm.cli.svg import colours
from autoglm.messages import tr
from autoglm.spec import Certificate, Partition, Plan, Verdict

if TYPE_CHECKING:
    from autoglm.api import Report
    from autoglm.runtime.candidate import Measurement


def partitions(plan: Plan) -> str:
    """Where the time goes."""
    if not plan.partitions:
        return ""
    hue = colours(plan)
    total = plan.seconds or 1.0

    def piece(p: Partition) -> str:
        width = 100 * words.share(p.seconds, total)
        title = text(f"{p.id} · {p.backend} · {words.seconds(p.seconds)}")
        return f'<i class="h{hue[p.backend]}" style="width:{width:.2f}%" title="{title}"></i>'

    crossing = 100 * words.share(sum(b.seconds for b in plan.boundaries), total)
    edge = f'<i class="cross" style="width:{crossing:.2f}%" title="{text(tr("boundaries"))}"></i>'
    pieces = [*map(piece, plan.partitions), *([edge] if crossing else [])]
    stack = f'<div class="stack">{"".join(pieces)}</div>'
    rows = [
        (
            code(p.id),
            words.place(p),
            p.precision,
            p.layout,
            len(p.nodes),
            words.seconds(p.seconds),
            bar(words.share(p.seconds, total), hue[p.backend]),
        )
        for p in plan.partitions
    ]
    columns = ("id", tr("backend"), tr("precision"), tr("layout"), tr("nodes") + ">")
    marks = [f' data-choose="{text(p.id)}" data-p="{text(p.id)}"' for p in plan.partitions]
    return section(
        tr("Partitions"),
        stack + table((*columns, tr("predicted") + ">", tr("share of time")), rows, marks),
    )


def fallbacks(plan: Plan) -> str:
    """Every node that does not run where it was asked to, with reason and price."""
    home = {name: p.id for p in plan.partitions for name in p.nodes}
    shown = sorted(plan.fallbacks, key=lambda f: -f.seconds)
    rows = [
        (code(f.node), f.op, f.wanted, f.placed, words.seconds(f.seconds), f.constraint, f.reason)
        for f in shown
    ]
    columns = (tr("node"), tr("operator"), tr("wanted"), tr("placed on"), tr("price") + ">")
    marks = [f' data-p="{text(home.get(f.node, ""))}"' for f in shown]
    body = table((*columns, tr("limit"), tr("why not there")), rows, marks) if rows else ""
    return section(tr("Fallbacks"), body, tr("each names what it costs"))


def refusals(plan: Plan) -> list[str]:
    """What each backend refuses, what nobody knows, and what nothing takes."""
    home = {name: p.id for p in plan.partitions for name in p.nodes}
    columns = (
        tr("backend"),
        tr("operator"),
        tr("nodes") + ">",
        tr("limit"),
        tr("why"),
        tr("for example"),
        tr("known by"),
    )
    found = []
    for title, remark, wanted in (
        (tr("Refused"), tr("the first limit that each node ran into"), Verdict.NO),
        (tr("Unknown, not counted as yes"), "", Verdict.UNKNOWN),
    ):
        groups = [g for g in words.grouped(plan.refusals) if g.verdict is wanted]
        groups.sort(key=lambda g: g.backend != plan.backend)
        rows = [
            (
                g.backend,
                g.op,
                len(g.nodes),
                g.constraint,
                g.reason,
                code(words.some(g.nodes)),
                tr(g.evidence),
            )
            for g in groups
        ]
        homes = [dict.fromkeys(home.get(n, "") for n in g.nodes) for g in groups]
        marks = [f' data-p="{"&#10;".join(map(text, h))}"' for h in homes]
        found.append(section(title, table(columns, rows, marks) if rows else "", remark))
    unplaced = table((tr("node"),), [(code(n),) for n in plan.unplaced]) if plan.unplaced else ""
    return [*found, section(tr("No backend takes"), unplaced)]


def boundaries(plan: Plan) -> str:
    """Every tensor that crosses partitions, with what crossing costs."""
    shown = sorted(plan.boundaries, key=lambda b: -b.seconds)
    rows = [
        (
            code(b.tensor),
            b.producer,
            b.consumer,
            b.kind,
            words.size(b.bytes),
            words.seconds(b.seconds),
        )
        for b in shown
    ]
    columns = (tr("tensor"), tr("from"), tr("to"), tr("what"), tr("size") + ">", tr("price") + ">")
    return section(tr("Boundaries"), table(columns, rows) if rows else "")


def alternatives(plan: Plan) -> str:
    """The chosen plan beside greedy and the others."""
    if not plan.alternatives:
        return ""
    most = max([plan.seconds, *(a.seconds for a in plan.alternatives)]) or 1.0
    chosen = (tr("chosen"), len(plan.partitions), plan.seconds)
    found = [chosen, *((tr(a.name), a.partitions, a.seconds) for a in plan.alternatives)]
    rows = [
        (name, count, words.seconds(time), bar(words.share(time, most), 0 if i == 0 else -1))
        for i, (name, count, time) in enumerate(found)
    ]
    columns = (tr("plan"), tr("partitions") + ">", tr("predicted") + ">", "")
    return section(tr("Plans compared"), table(columns, rows))


def measurements(measurements: Sequence[Measurement]) -> str:
    """The candidates that were timed, and why one was chosen."""
    times = [m.median_s for m in measurements if m.median_s]
    rows = [
        (
            Html('<span class="ok">✓</span>') if m.chosen else "",
            m.candidate,
            words.seconds(m.median_s),
            words.error(m.max_relative_error),
            bar(words.share(m.median_s or 0.0, max(times, default=1.0)), 0 if m.chosen else -1),
            m.reason,
        )
        for m in measurements
    ]
    columns = ("", tr("candidate"), tr("median") + ">", tr("error") + ">", "", tr("why"))
    body = table(columns, rows) if rows else ""
    return section(tr("Candidates"), body, tr("measured on this machine, interleaved"))


def certificates(certificates: Sequence[Certificate]) -> str:
    """Accuracy of each partition and of the whole against fp32."""
    rows = [
        (
            Html(f'<span class="{"ok" if c.passed else "nok"}">{"✓" if c.passed else "✗"}</span>'),
            c.subject,
            c.precision,
            words.error(c.max_relative_error),
            words.error(c.tolerance),
            f"{c.sqnr_db:.0f} dB",
            f"{c.cosine:.7f}",
            c.golden,
            "; ".join(filter(None, (c.remark, c.first_divergence or c.detail))),
        )
        for c in certificates
    ]
    columns = ["", tr("subject"), tr("precision"), tr("max relative error") + ">"]
    columns += [tr("allowed") + ">", "SQNR>", tr("cosine") + ">", tr("golden"), tr("remark")]
    return section(tr("Certificates"), table(columns, rows) if rows else "")


def changes(title: str, changes: Sequence[Any]) -> str:
    """What passes or rewrites did to the model, folded away."""
    found = [plain(change) for change in changes]
    columns = list(dict.fromkeys(key for row in found for key in row))
    rows = [[_change(row.get(key, "")) for key in columns] for row in found]
    body = table([tr(c.replace("_", " ")) for c in columns], rows) if rows else ""
    count = tr("{count} in all", count=len(found))
    folded = f"<details><summary>{text(count)}</summary>{body}</details>" if body else ""
    return section(title, folded)


def _change(value: object) -> object:
    return words.some([str(v) for v in value]) if isinstance(value, list) else value


def facts(report: Report) -> str:
    """Toolkits, inputs, outputs, notes and the config in force."""
    rows: list[tuple[object, object]] = [
        (tr("toolkit"), f"{name}: {kit}") for name, kit in report.toolkits.items()
    ]
    for title, infos in ((tr("input"), report.inputs), (tr("output"), report.outputs)):
        rows += [(title, f"{i.name}: {i.dtype} {_shape(i.shape)}") for i in infos]
    rows += [(tr("note"), note) for note in report.notes]
    config = report.config.model_dump(mode="json", exclude_unset=True)
    rows.append((tr("config"), code(json.dumps(config, ensure_ascii=False))))
    return section(tr("Model and config"), table(("", ""), rows))


def _shape(shape: Sequence[object] | None) -> str:
    return (
        "?" if shape is None else "[" + ", ".join("?" if d is None else str(d) for d in shape) + "]"
    )
