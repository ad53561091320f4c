"""Results in a terminal: the verdict first, then where things run, then why not elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from autoglm.cli import words
from autoglm.cli.output import console, plain, printable
from autoglm.messages import tr
from autoglm.spec import Fit, Plan, Verdict

if TYPE_CHECKING:
    from autoglm.api import CompileResult, Report

VERDICT_STYLE = {Fit.FITS: "bold green", Fit.FALLBACKS: "bold yellow", Fit.NO: "bold red"}
_MOST = 20
_BAR = 12


def cell(value: object, style: str = "") -> Text:
    """Model-derived text as literal text: no markup, no control characters."""
    return Text(printable(str(value)), style=style, overflow="fold")


def table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], most: int = _MOST
) -> None:
    """Print a table; long ones are cut, and say so."""
    rows = list(rows)
    if not rows:
        return
    grid = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for name in columns:
        right = name.endswith(">")
        grid.add_column(name.rstrip(">"), justify="right" if right else "left", header_style="dim")
    for row in rows[:most]:
        grid.add_row(*(value if isinstance(value, Text) else cell(value) for value in row))
    out = console()
    out.print()
    out.print(grid)
    if len(rows) > most:
        out.print(cell(tr("… and {count} more (--json has all)", count=len(rows) - most), "dim"))


def bar(share: float, width: int = _BAR) -> str:
    """A share as a bar."""
    return "█" * round(share * width) or ("▏" if share > 0 else "")


def show_report(report: Report) -> None:
    """What `check` found."""
    plan = report.plan
    out = console()
    line = Text(tr(plan.fit.value), style=VERDICT_STYLE[plan.fit])
    line.append(printable(f"  {report.model} → {plan.backend}, {plan.precision}"), style="default")
    out.print(line)
    out.print(cell(summary_line(report), "dim"))
    for violation in plan.violations:
        out.print(cell(f"✗ {violation}", "red"))
    _show_plan(plan)
    _show_changes(report)
    if report.notes:
        out.print()
    for remark in report.notes:
        out.print(cell(tr("note: {text}", text=remark), "dim"))


def summary_line(report: Report) -> str:
    """Size of the model, of the plan, and what the planner saved."""
    plan, nodes = report.plan, report.graph.nodes
    work = words.flops(sum(n.flops for n in nodes))
    parts = [
        tr("{nodes} nodes, {work}", nodes=len(nodes), work=work),
        tr("{count} partition(s)", count=len(plan.partitions)),
        tr("{count} fallback(s)", count=len(plan.fallbacks)),
        tr(
            "predicted {time} ({within})",
            time=words.seconds(plan.seconds),
            within=words.within(plan),
        ),
    ]
    other = words.greedy(plan)
    if other is not None and other.seconds > plan.seconds * 1.001:
        saved = f"{100 * (1 - plan.seconds / other.seconds):.0f}"
        parts.append(tr("{percent} % less than greedy", percent=saved))
    return "; ".join(parts)


def _show_plan(plan: Plan) -> None:
    total = plan.seconds or sum(p.seconds for p in plan.partitions)
    table(
        tr("Partitions"),
        ("id", tr("backend"), tr("precision"), tr("nodes") + ">", tr("predicted") + ">", ""),
        (
            (
                p.id,
                words.place(p),
                p.precision,
                len(p.nodes),
                words.seconds(p.seconds),
                bar(words.share(p.seconds, total)),
            )
            for p in plan.partitions
        ),
    )
    table(
        tr("Fallbacks"),
        (tr("operator"), tr("nodes"), tr("placed on"), tr("price") + ">", tr("why not there")),
        (
            (
                f"{g[0].op} ×{len(g)}" if len(g) > 1 else g[0].op,
                words.some([words.tail(f.node) for f in g], 2),
                g[0].placed,
                words.seconds(sum(f.seconds for f in g)),
                f"{g[0].wanted}: {g[0].reason}",
            )
            for g in words.grouped_fallbacks(plan.fallbacks)
        ),
    )
    _show_refusals(plan)
    table(
        tr("Boundaries"),
        (tr("tensor"), tr("from"), tr("to"), tr("size") + ">", tr("what"), tr("price") + ">"),
        (
            (
                b.tensor,
                b.producer,
                b.consumer,
                words.size(b.bytes),
                b.kind,
                words.seconds(b.seconds),
            )
            for b in sorted(plan.boundaries, key=lambda b: -b.seconds)
        ),
    )
    chosen = (tr("chosen"), len(plan.partitions), words.seconds(plan.seconds))
    table(
        tr("Plans compared"),
        (tr("plan"), tr("partitions") + ">", tr("predicted") + ">"),
        [chosen, *((tr(a.name), a.partitions, words.seconds(a.seconds)) for a in plan.alternatives)]
        if plan.alternatives
        else [],
    )


def _show_refusals(plan: Plan) -> None:
    # What the others refuse matters only for nodes that found no place; --json has all of it.
    lost = set(plan.unplaced)
    told = [r for r in plan.refusals if r.backend == plan.backend or r.node in lost]
    groups = words.grouped(told)
    columns = (tr("backend"), tr("operator"), tr("nodes") + ">", tr("why"), tr("known by"))
    for title, wanted in (
        ("Refused", Verdict.NO),
        ("Unknown, not counted as yes", Verdict.UNKNOWN),
    ):
        table(
            tr(title),
            columns,
            (
                (g.backend, g.op, len(g.nodes), f"{g.reason} ({words.some(g.nodes)})", g.evidence)
                for g in groups
                if g.verdict is wanted
            ),
        )
    table(tr("No backend takes"), (tr("node"),), ((name,) for name in plan.unplaced))


def _show_changes(report: Report) -> None:
    show_rows([_flat(change) for change in report.rewrites], tr("Rewrites"))
    done = [f"{p.name} ×{p.changes}" for p in report.passes if p.changes]
    if done:
        out = console()
        out.print()
        out.print(cell(tr("passes that changed the graph: {names}", names=", ".join(done)), "dim"))


def _flat(value: object) -> dict[str, Any]:
    facts = asdict(value) if is_dataclass(value) and not isinstance(value, type) else {}
    return {
        key: words.some([str(v) for v in item]) if isinstance(item, list | tuple) else item
        for key, item in facts.items()
    }


def show_compiled(result: CompileResult) -> None:
    """What `compile` made."""
    show_report(result.report)
    table(
        tr("Candidates"),
        (
            "",
            tr("candidate"),
            tr("median") + ">",
            tr("best") + ">",
            tr("error") + ">",
            tr("why"),
        ),
        (
            (
                "✓" if m.chosen else "",
                m.candidate,
                words.seconds(m.median_s),
                words.seconds(m.best_s),
                words.error(m.max_relative_error),
                m.reason,
            )
            for m in result.measurements
        ),
    )
    show_certificates([plain(c) for c in result.certificates])
    out = console()
    out.print()
    for remark in result.notes:
        out.print(cell(tr("note: {text}", text=remark), "dim"))
    out.print(cell(tr("bundle: {path}", path=result.folder), "bold"))


def show_certificates(certificates: Sequence[Mapping[str, Any]]) -> None:
    """Accuracy of each partition and of the whole."""
    table(
        tr("Certificates"),
        (
            "",
            tr("subject"),
            tr("precision"),
            tr("max relative error") + ">",
            tr("allowed") + ">",
            "SQNR >",
            tr("cosine") + ">",
            tr("golden"),
        ),
        (
            (
                Text("✓", "green") if c["passed"] else Text("✗", "red"),
                c["subject"],
                c["precision"],
                words.error(c["max_relative_error"]),
                words.error(c["tolerance"]),
                f"{float(c['sqnr_db']):.0f} dB",
                f"{float(c['cosine']):.7f}",
                c["golden"],
            )
            for c in certificates
        ),
    )
    for remark in dict.fromkeys(str(c.get("remark") or "") for c in certificates):
        if remark:
            console().print(cell(tr("note: {text}", text=remark), "dim"))


def show_outputs(outputs: Mapping[str, Mapping[str, Any]], path: Path | None) -> None:
    """What `run` computed."""

    def numbers(facts: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(f"{facts[k]:.6g}" if k in facts else "" for k in ("min", "max", "mean"))

    table(
        tr("Outputs"),
        (tr("name"), "dtype", tr("shape"), "min>", "max>", "mean>", tr("values")),
        (
            (
                name,
                facts.get("dtype", facts["kind"]),
                "×".join(map(str, facts.get("shape", []))),
                *numbers(facts),
                words.some([f"{v}" for v in facts.get("values", [])], 4),
            )
            for name, facts in outputs.items()
        ),
    )
    if path is not None:
        console().print(cell(tr("written: {path}", path=path), "bold"))


def show_rows(rows: Sequence[Mapping[str, Any]], title: str = "") -> None:
    """A list of like rows, whatever their columns."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    shown = [[_value(key, row.get(key)) for key in columns] for row in (dict(r) for r in rows)]
    table(title, [tr(c.removesuffix("_s").replace("_", " ")) for c in columns], shown, most=200)


def _value(key: str, value: object) -> str:
    if isinstance(value, float):
        return words.seconds(value) if key.endswith("_s") else f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {v}" for k, v in value.items())
    return "" if value is None else str(value)


def show_bundle(facts: Mapping[str, Any]) -> None:
    """What `inspect` read."""
    out = console()
    state = tr("verified: every hash is right") if facts.get("verified") else ""
    out.print(cell(tr("bundle {path}", path=facts.get("folder", "")) + f"  {state}", "bold"))
    simple = {k: v for k, v in facts.items() if isinstance(v, str | int | float | bool) and v != ""}
    show_rows(
        [{"key": k, "value": v} for k, v in simple.items() if k not in ("folder", "verified")]
    )
    plan = facts.get("plan") or {}
    rows = [
        {
            **{k: p[k] for k in ("id", "backend", "precision")},
            **({"chip": p["chip"]} if p.get("chip") else {}),
            "nodes": len(p["nodes"]),
        }
        for p in plan.get("partitions", [])
    ]
    show_rows(rows, tr("Partitions"))
    for key, title in (("inputs", tr("Inputs")), ("outputs", tr("Outputs"))):
        show_rows(list(facts.get(key) or []), title)
    show_certificates(list(facts.get("certificates") or []))
    files = facts.get("files") or {}
    if isinstance(files, Mapping):
        listed = [
            {"file": name, **info} for name, info in files.items() if isinstance(info, Mapping)
        ]
        show_rows(listed, tr("Files"))


def show_ops(facts: Mapping[str, Any]) -> None:
    """A capability table."""
    head = {k: v for k, v in facts.items() if not isinstance(v, list | Mapping)}
    show_rows([head])
    for key, value in facts.items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            show_rows(value, tr(key))
        elif isinstance(value, Mapping) and value:
            rows = [
                {"name": name, **(row if isinstance(row, Mapping) else {"value": row})}
                for name, row in value.items()
            ]
            show_rows(rows, tr(key))
