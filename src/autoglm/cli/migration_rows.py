"""The migration report's tables as rows of words, for the terminal and for the page alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from autoglm.cli import words
from autoglm.messages import tr
from autoglm.spec import Fit, Verdict

if TYPE_CHECKING:
    from autoglm.plan.migrate import OpChange
    from autoglm.plan.migrate_work import Work
    from autoglm.runtime.migrate import ChipReport, Migration

NOTHING = "–"


def side_by_side(found: Migration) -> list[tuple[str, list[str]]]:
    """One row a fact: its name, then the source chip's cell and one a target."""
    chips = [found.source, *found.targets]
    return [
        (tr("verdict"), [tr(c.verdict) for c in chips]),
        (tr("operators lost"), ["", *(_ops(c.lost) for c in found.targets)]),
        (tr("operators gained"), ["", *(_ops(c.gained) for c in found.targets)]),
        (tr("rewritten"), [_counts(c) for c in chips]),
        (tr("fallbacks"), [_fallbacks(c) for c in chips]),
        (tr("partitions"), [str(len(c.plan.partitions)) for c in chips]),
        (tr("precision"), [_precision(c, found.precision) for c in chips]),
        (tr("it computes in"), [_legal(c) for c in chips]),
        (tr("error allowed"), [words.error(c.tolerance) for c in chips]),
        (tr("predicted"), [_time(c) for c in chips]),
        (tr("range"), [_range(c) for c in chips]),
        (tr("against the source"), ["×1", *(_ratio(found, c) for c in found.targets)]),
        (tr("memory"), [_memory(c) for c in chips]),
        (tr("rated power"), [_watts(c) for c in chips]),
        (tr("energy, at most"), [_energy(c) for c in chips]),
        (tr("not published"), [", ".join(c.missing) or NOTHING for c in chips]),
        (tr("toolkit here"), [c.installed or tr("none") for c in chips]),
    ]


def fallbacks(chip: ChipReport) -> list[tuple[str, str, str, str, str]]:
    """Operator, where it is placed, price, evidence, why not on the chip."""
    return [
        (
            f"{g.op} ×{len(g.nodes)}" if len(g.nodes) > 1 else g.op,
            g.placed,
            words.seconds(g.seconds),
            tr(g.evidence),
            g.reason,
        )
        for g in chip.fallbacks
    ]


def work(chip: ChipReport) -> list[tuple[str, str, str, str, str]]:
    """What to do, time gained, time then, verdict then, command."""
    return [
        (w.text, _gain(w), words.seconds(w.seconds), _verdict(w.fit), w.command) for w in chip.work
    ]


def conflicts(chip: ChipReport) -> list[tuple[str, str, str]]:
    """Kind, nodes concerned, what does not fit."""
    return [(tr(c.kind), str(c.nodes) if c.nodes else "", c.text) for c in chip.conflicts]


def changed(chip: ChipReport) -> list[tuple[str, str, str, str, str]]:
    """Lost and gained operators: which, nodes, limit, why, known by."""
    return [
        (
            f"{sign}{c.op}",
            str(len(c.nodes)),
            c.constraint,
            c.reason,
            tr(Verdict.UNKNOWN.value if c.verdict is Verdict.UNKNOWN else c.evidence.value),
        )
        for sign, group in (("−", chip.lost), ("+", chip.gained))
        for c in group
    ]


def tools(found: Migration) -> list[tuple[str, str, str, str]]:
    """Chip, what its table holds for, artifact formats, how to get its compiler."""
    return [
        (
            c.target,
            c.toolkit,
            ", ".join(c.formats) or NOTHING,
            tr("here: {version}", version=c.installed) if c.installed else c.obtain or NOTHING,
        )
        for c in (found.source, *found.targets)
    ]


def _verdict(fit: Fit) -> str:
    from autoglm.plan.migrate import GO

    return tr(GO[fit])


def _gain(entry: Work) -> str:
    sign = "−" if entry.gain_s < 0 else "+" if entry.gain_s > 0 else ""
    return f"{sign}{words.seconds(abs(entry.gain_s))}"


def _ops(changes: Sequence[OpChange]) -> str:
    if not changes:
        return NOTHING
    from autoglm.plan.migrate import counted

    return counted([c.op for c in changes for _ in c.nodes], most=2)


def _counts(chip: ChipReport) -> str:
    return ", ".join(f"{rule} ×{count}" for rule, count in chip.rewrites.items()) or NOTHING


def _fallbacks(chip: ChipReport) -> str:
    if not chip.fallbacks:
        return NOTHING
    count = sum(len(g.nodes) for g in chip.fallbacks)
    return f"{count}, {words.seconds(sum(g.seconds for g in chip.fallbacks))}"


def _precision(chip: ChipReport, asked: str) -> str:
    own = chip.plan.precision
    return own if own == asked else tr("{precision} (forced)", precision=own)


def _legal(chip: ChipReport) -> str:
    known = [p for p, s in chip.precisions.items() if s.ok]
    unknown = [f"{p}?" for p, s in chip.precisions.items() if s.verdict is Verdict.UNKNOWN]
    return " ".join([*known, *unknown]) or NOTHING


def _time(chip: ChipReport) -> str:
    time = words.seconds(chip.plan.seconds)
    return tr("{time} (rough)", time=time) if chip.rough else time


def _range(chip: ChipReport) -> str:
    low, high = chip.latency
    return f"{words.seconds(low)} – {words.seconds(high)}"


def _ratio(found: Migration, chip: ChipReport) -> str:
    ratio = found.ratio(chip)
    if ratio is None:
        return NOTHING
    expected, least, most = (f"{r:.0f}" if r >= 10 else f"{r:.2g}" for r in ratio)
    return f"×{expected} ({least} – {most})"


def _memory(chip: ChipReport) -> str:
    have = words.size(chip.memory_bytes) if chip.memory_bytes else "?"
    return f"{words.size(chip.memory_need)} / {have}"


def _watts(chip: ChipReport) -> str:
    if chip.chip is None or chip.chip.watts is None:
        return "?"
    return f"{chip.chip.watts:g} W"


def _energy(chip: ChipReport) -> str:
    joules = chip.energy_j
    if joules is None:
        return "?"
    return f"{joules:.3g} J" if joules >= 1 else f"{1000 * joules:.3g} mJ"
