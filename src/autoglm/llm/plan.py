"""Whether a model fits a target at a load, how fast it would be, and what would make it fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from autoglm.llm.architecture import Architecture
from autoglm.llm.memory import (
    Held,
    Load,
    Need,
    held,
    largest_concurrency,
    largest_context,
    need,
    room,
)
from autoglm.llm.speed import Prediction, Speeds, decode, prefill
from autoglm.llm.split import Layout, layouts, obstacle
from autoglm.llm.storage import STORAGES, Storage, checkpoint_storage
from autoglm.llm.target import Target
from autoglm.llm.work import sent_each_layer
from autoglm.messages import tr
from autoglm.spec import Fit, Verdict

SHORT = 512  # tokens of the prompt beside the full one, as benchmarks use it
_COUNTS: tuple[int, ...] = (
    *range(1, 17),
    20,
    24,
    32,
    40,
    48,
    64,
    72,
    80,
    96,
    128,
    192,
    256,
    384,
    512,
    768,
    1024,
)
_ORDER = (Fit.NO, Fit.FALLBACKS, Fit.FITS)


@dataclass(frozen=True, slots=True)
class SplitRow:
    """One arrangement of the devices: what each holds, and what sharing costs."""

    layout: Layout
    obstacle: str  # "" where the model can be split so
    need: Need | None = None
    sent_bytes: float = 0.0  # by one device, for one token in one layer
    decode: Prediction | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One precision on one target."""

    storage: Storage
    fit: Fit
    reason: str  # the limit, then what was found; "" where it simply fits
    layout: Layout
    weights_bytes: int  # on all devices together
    need: Need  # on the fullest device
    context: int  # the longest at the asked concurrency
    concurrency: int  # the most at the asked context
    devices: int  # the fewest that the asked load fits on; 0 = none, or not known
    first_short: Prediction  # a prompt of SHORT tokens
    first_full: Prediction  # a prompt of the whole context
    single: Prediction  # one step of one sequence
    batch: Prediction  # one step of the asked sequences
    uncertainty: float
    basis: tuple[str, ...]
    splits: tuple[SplitRow, ...] = ()
    helps: frozenset[str] = frozenset()  # options that change why it does not fit

    def rate(self, load: Load) -> float | None:
        """Tokens/s of all sequences together, each at the full context."""
        seconds = self.batch.seconds
        return load.sequences / seconds if seconds else None


@dataclass(frozen=True, slots=True)
class TargetPlan:
    """What one target makes of the model: the precision chosen, and the others beside it."""

    target: Target
    chosen: Row
    rows: tuple[Row, ...]
    fit: Fit
    reason: str
    remedies: tuple[str, ...]


def plan_target(
    arch: Architecture, target: Target, load: Load, *, devices: int = 1, precision: str = "auto"
) -> TargetPlan:
    """Every precision on `devices` of the target; the chosen one is the highest that fits."""
    devices = devices if target.chip else 1  # this machine is one
    stored = checkpoint_storage(arch.quantization, arch.dtype)
    storages = _storages(stored, target, precision)
    rows = tuple(plan_row(arch, target, s, load, devices) for s in storages)
    chosen = _choose(rows) if precision == "auto" else rows[0]
    fit, reason = chosen.fit, chosen.reason
    if chosen is not rows[0] and fit is not Fit.NO:
        lower = tr(
            "{own} does not fit: {reason}; {chosen} does",
            own=rows[0].storage.name,
            reason=rows[0].reason,
            chosen=chosen.storage.name,
        )
        fit, reason = Fit.FALLBACKS, f"{lower}; {reason}" if reason else lower
    return TargetPlan(target, chosen, rows, fit, reason, _remedies(chosen, rows, load, devices))


def plan_row(arch: Architecture, target: Target, storage: Storage, load: Load, devices: int) -> Row:
    """One precision on that many devices, in the arrangement that fits and is fastest."""
    speeds = target.speeds(storage)
    splits = tuple(_split(arch, storage, n, speeds, load) for n in layouts(devices))
    free = room(target.memory_bytes) if target.memory_bytes else None
    best = max(splits, key=lambda s: _merit(s, free))
    # Where no arrangement is possible, the figures are those of one device.
    layout = Layout() if best.obstacle else best.layout
    each = held(arch, storage, layout)
    row = Row(
        storage=storage,
        fit=Fit.FITS,
        reason="",
        layout=layout,
        weights_bytes=round(sum(h.weights for h in each) * layout.tensor),
        need=need(each, load),
        context=largest_context(each, load.sequences, free, arch.context) if free else 0,
        concurrency=largest_concurrency(each, load.context, free) if free else 0,
        devices=_fewest(arch, storage, load, free, _COUNTS if target.chip else (1,)),
        first_short=prefill(arch, storage, layout, speeds, min(SHORT, load.context)),
        first_full=prefill(arch, storage, layout, speeds, load.context),
        single=decode(arch, storage, layout, speeds, load.context, 1),
        batch=decode(arch, storage, layout, speeds, load.context, load.sequences),
        uncertainty=speeds.uncertainty,
        basis=speeds.basis,
        splits=splits,
    )
    fit, reason, helps = _verdict(arch, target, row, best, load, each)
    return replace(row, fit=fit, reason=reason, helps=frozenset(helps))


def _storages(stored: Storage, target: Target, precision: str) -> tuple[Storage, ...]:
    """What was asked for, the checkpoint's own, and those of fewer bits."""
    own = target.half() if stored.name in ("bf16", "fp16") else stored
    less = [s for s in (target.half(), STORAGES["int8"], STORAGES["int4"]) if s.bits < own.bits]
    if own.name not in STORAGES:
        less.append(target.half())  # a quantised checkpoint may be expanded
    asked = [] if precision == "auto" else [STORAGES[precision]]
    return tuple({s.name: s for s in (*asked, own, *less)}.values())


def _choose(rows: Sequence[Row]) -> Row:
    """The first that fits whole; else that which takes most sequences; else the smallest."""
    for row in rows:
        if row.fit is Fit.FITS:
            return row
    partly = [r for r in rows if r.fit is Fit.FALLBACKS]
    if partly:
        return max(partly, key=lambda r: r.concurrency)
    return min(rows, key=lambda r: r.weights_bytes)


def _split(
    arch: Architecture, storage: Storage, layout: Layout, speeds: Speeds, load: Load
) -> SplitRow:
    if why := obstacle(arch, layout):
        return SplitRow(layout, why)
    return SplitRow(
        layout,
        "",
        need(held(arch, storage, layout), load),
        sent_each_layer(arch, storage, layout.tensor),
        decode(arch, storage, layout, speeds, load.context, load.sequences),
    )


def _merit(split: SplitRow, free: int | None) -> tuple[bool, bool, float, int]:
    """A split that is possible, that fits, that decodes fast, that needs little."""
    if split.need is None:
        return (False, False, 0.0, 0)
    fits = free is None or split.need.total <= free
    seconds = split.decode.seconds if split.decode else None
    return (True, fits, 1 / seconds if seconds else 0.0, -split.need.total)


def _fewest(
    arch: Architecture, storage: Storage, load: Load, free: int | None, counts: Sequence[int]
) -> int:
    """The fewest devices that hold the load; 0 where none of those tried do."""
    if not free or load.context > arch.context:
        return 0
    whole = sum(h.weights for h in held(arch, storage, Layout()))
    for count in counts:
        if whole > count * free:
            continue
        for layout in layouts(count):
            possible = not obstacle(arch, layout)
            if possible and need(held(arch, storage, layout), load).total <= free:
                return count
    return 0


def _verdict(
    arch: Architecture,
    target: Target,
    row: Row,
    split: SplitRow,
    load: Load,
    each: tuple[Held, ...],
) -> tuple[Fit, str, tuple[str, ...]]:
    """The verdict, its reason, and the options that change it; another precision always may."""
    support = target.support(row.storage)
    if support.verdict is Verdict.NO:
        return Fit.NO, support.reason, ()
    if load.context > arch.context:
        asked = tr(
            "the model takes {most} tokens, asked are {context}",
            most=arch.context,
            context=load.context,
        )
        return Fit.NO, asked, ("context",)
    if split.obstacle:
        return Fit.NO, split.obstacle, ("devices",)
    if target.memory_bytes is None:
        told = tr(
            "no source gives the memory of {name}; it needs {size}",
            name=target.name,
            size=gib(row.need.total),
        )
        return Fit.FALLBACKS, told, ()
    short = _shortage(room(target.memory_bytes), row, load, each)
    if short is not None:
        return *short, ("devices", "concurrency", "context")
    if support.verdict is Verdict.UNKNOWN:
        return Fit.FALLBACKS, support.reason, ()
    return Fit.FITS, "", ()


def _shortage(free: int, row: Row, load: Load, each: tuple[Held, ...]) -> tuple[Fit, str] | None:
    """What is short, by its largest term; None where nothing is."""
    if row.need.total <= free:
        return None
    facts = {"weights": gib(row.need.weights), "free": gib(free)}
    one = need(each, Load(load.context, 1))
    if row.need.weights > free:
        return Fit.NO, tr("the weights take {weights} of a device, usable are {free}", **facts)
    if one.total > free:
        text = tr(
            "the weights take {weights} and the cache of one sequence {cache}, usable are {free}",
            cache=gib(one.cache),
            **facts,
        )
        return Fit.NO, text
    text = tr(
        "{count} of {asked} sequences fit: the weights take {weights}, each sequence's cache "
        "{cache}, usable are {free}",
        count=row.concurrency,
        asked=load.sequences,
        cache=gib(one.cache),
        **facts,
    )
    return Fit.FALLBACKS, text


def _remedies(chosen: Row, rows: Iterable[Row], load: Load, devices: int) -> tuple[str, ...]:
    """Options that would make the asked load fit, or the load that does."""
    if chosen.fit is Fit.FITS:
        return ()
    found = []
    if "devices" in chosen.helps and chosen.devices not in (0, devices):
        found.append(f"--devices {chosen.devices}")
    found += [f"--precision {r.storage.name}" for r in rows if r.fit is Fit.FITS]
    if "concurrency" in chosen.helps and 0 < chosen.concurrency < load.sequences:
        found.append(f"--concurrency {chosen.concurrency}")
    if "context" in chosen.helps and 0 < chosen.context < load.context:
        found.append(f"--context {chosen.context}")
    return tuple(found)


def gib(size: float) -> str:
    """Bytes as people read them."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
