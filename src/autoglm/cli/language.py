"""A language model's plan in a terminal: the verdict, the chips side by side, each precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from autoglm.cli import words
from autoglm.cli.output import console
from autoglm.cli.terminal import VERDICT_STYLE, cell, table
from autoglm.llm.memory import room
from autoglm.messages import tr
from autoglm.spec import Fit

if TYPE_CHECKING:
    from autoglm.llm.check import LanguageReport
    from autoglm.llm.plan import Row, TargetPlan
    from autoglm.llm.speed import Prediction

# The same exit statuses as for a graph, but nothing falls back here.
VERDICTS = {Fit.FITS: "fits", Fit.FALLBACKS: "fits with limits", Fit.NO: "does not fit"}


def show_language(found: LanguageReport) -> None:
    """Verdict and model, one row for each target, then what each target's precisions give."""
    out = console()
    line = Text(tr(VERDICTS[found.fit]), style=VERDICT_STYLE[found.fit])
    out.print(line.append_text(cell(f"  {found.model}: {_model(found)}")))
    out.print(cell(_asked(found), "dim"))
    if len(found.targets) > 1:
        _side_by_side(found)
    for plan in found.targets:
        _show_target(found, plan)
    out.print()
    for remark in (*found.notes, *_basis(found)):
        out.print(cell(tr("note: {text}", text=remark), "dim"))


def _model(found: LanguageReport) -> str:
    arch, billions = found.architecture, f"{found.parameters / 1e9:.2f}"
    facts = {"type": arch.model_type, "billions": billions, "stored": found.stored}
    if found.active_parameters == found.parameters:
        text = tr("{type}, {billions} B parameters in {stored}", **facts)
    else:
        active = f"{found.active_parameters / 1e9:.2f}"
        text = tr(
            "{type}, {billions} B parameters in {stored}, {active} B active",
            **facts,
            active=active,
        )
    cache = words.size(found.cache_token_bytes)
    more = tr(
        "{layers} layers, {cache} of cache per token, at most {context} tokens",
        layers=len(arch.layers),
        cache=cache,
        context=arch.context,
    )
    return f"{text}; {more}"


def _asked(found: LanguageReport) -> str:
    return tr(
        "asked: {sequences} sequence(s) of {context} tokens on {devices} device(s)",
        sequences=found.load.sequences,
        context=found.load.context,
        devices=found.devices,
    )


def _side_by_side(found: LanguageReport) -> None:
    columns = (tr("target"), tr("verdict"), *_columns(found, short=True))
    rows = [
        (
            cell(plan.target.name, "bold"),
            cell(tr(VERDICTS[plan.fit]), VERDICT_STYLE[plan.fit]),
            *_cells(found, plan, plan.chosen, short=True),
        )
        for plan in found.targets
    ]
    table(tr("Side by side"), columns, rows, len(rows))


def _show_target(found: LanguageReport, plan: TargetPlan) -> None:
    out = console()
    out.print()
    line = Text(tr(VERDICTS[plan.fit]), style=VERDICT_STYLE[plan.fit])
    memory = plan.target.memory_bytes
    size = words.size(room(memory)) if memory else tr("unknown")
    where = tr("{name}, {size} usable of a device", name=plan.target.name, size=size)
    out.print(line.append_text(cell(f"  {where}")))
    if plan.reason:
        out.print(cell(plan.reason))
    if plan.remedies:
        out.print(cell(tr("what would fit: {options}", options="; ".join(plan.remedies))))
    rows = [
        (cell(tr(VERDICTS[row.fit]), VERDICT_STYLE[row.fit]), *_cells(found, plan, row))
        for row in plan.rows
    ]
    table("", (tr("verdict"), *_columns(found)), rows, len(rows))
    if len(plan.chosen.splits) > 1:
        _show_splits(plan.chosen)


def _columns(found: LanguageReport, *, short: bool = False) -> tuple[str, ...]:
    count = found.load.sequences
    parts = () if short else (tr("weights") + ">", tr("cache") + ">")
    return (
        tr("precision"),
        *parts,
        tr("total") + ">",
        tr("tokens") + ">",
        tr("sequences") + ">",
        tr("devices") + ">",
        tr("first token") + ">",
        tr("tokens/s ×1") + ">",
        tr("tokens/s ×{count}", count=count) + ">",
        tr("limit"),
    )


def _cells(
    found: LanguageReport, plan: TargetPlan, row: Row, *, short: bool = False
) -> tuple[object, ...]:
    known = plan.target.memory_bytes is not None
    parts = () if short else (words.size(row.need.weights), words.size(row.need.cache))
    return (
        row.storage.name,
        *parts,
        words.size(row.need.total),
        row.context if known else "?",
        row.concurrency if known else "?",
        row.devices or ("–" if known else "?"),
        _seconds(row.first_full),
        _rate(row.single, 1),
        _rate(row.batch, found.load.sequences),
        tr(row.batch.bound) if row.batch.bound else "?",
    )


def _show_splits(row: Row) -> None:
    columns = (
        tr("tensor × pipeline"),
        tr("per device") + ">",
        tr("sent per token and layer") + ">",
        tr("links") + ">",
        tr("step") + ">",
        tr("why not"),
    )
    rows = [
        (
            str(s.layout),
            words.size(s.need.total) if s.need else "–",
            words.size(s.sent_bytes),
            words.seconds(s.decode.links_s) if s.decode else "–",
            _seconds(s.decode) if s.decode else "–",
            s.obstacle,
        )
        for s in row.splits
    ]
    table(tr("Splits"), columns, rows)


def _seconds(step: Prediction) -> str:
    if step.seconds is None:
        return "?"
    return words.seconds(step.seconds) if step.seconds < 100 else f"{step.seconds:.0f} s"


def _rate(step: Prediction, sequences: int) -> str:
    return "?" if step.seconds is None else f"{sequences / step.seconds:.3g}"


def _basis(found: LanguageReport) -> list[str]:
    """How far off the times may be, and what they rest on."""
    notes = []
    for plan in found.targets:
        row = plan.chosen
        text = tr(
            "{name}: times within ×{factor}; {basis}",
            name=plan.target.name,
            factor=f"{1 + row.uncertainty:.3g}",
            basis="; ".join(row.basis),
        )
        notes.append(text)
        if row.single.seconds is None:
            told = tr(
                "{name}: no source gives its memory bandwidth: tokens/s are not known",
                name=plan.target.name,
            )
            notes.append(told)
    return notes
