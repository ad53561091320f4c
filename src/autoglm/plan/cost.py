"""What a boundary costs, and whose speeds price each backend's nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from autoglm.catalog.roofline import Machine, chip_machine, node_seconds
from autoglm.spec import Capabilities

__all__ = [
    "Machine",
    "Side",
    "boundary_kinds",
    "boundary_seconds",
    "machines_of",
    "node_seconds",
]


def machines_of(
    tables: Sequence[Capabilities], precisions: Sequence[str], host: Machine
) -> tuple[Machine, ...]:
    """Per backend: its chip's estimated speeds, or the host's own where it drives no chip.

    Beside a chip the host's engines wait between calls, and each call wakes them.
    """
    if any(t.chip is not None for t in tables):
        slept = {name: seconds + host.wake_s for name, seconds in host.dispatch_s.items()}
        host = replace(host, dispatch_s=slept)
    return tuple(
        host if t.chip is None else chip_machine(t.chip, p)
        for t, p in zip(tables, precisions, strict=True)
    )


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a boundary: what decides whether a tensor must be cast or laid out anew."""

    backend: str
    precision: str
    layout: str


def boundary_kinds(producer: Side, consumer: Side, dtype: str, rank: int) -> tuple[str, ...]:
    """What happens to a tensor on its way between two partitions; a copy always does.

    A cast where the two compute in different precisions, for floats; a new layout where they prefer
    different ones, for tensors of image or volume rank (4 and 5), the only ones that engines block.
    """
    kinds = ["copy"]
    if producer.precision != consumer.precision and "float" in dtype:
        kinds.append("cast")
    if producer.layout != consumer.layout and rank in (4, 5):
        kinds.append("layout")
    return tuple(kinds)


def boundary_seconds(
    kinds: tuple[str, ...], size_bytes: int, host: Machine, ends: Sequence[Machine] = ()
) -> float:
    """Seconds to bring `size_bytes` across; session calls are priced with their partition.

    `ends` are the processors of producer and consumer. What lies behind a link is reached over it,
    from one chip to another through the host, and a chip casts and lays out in its own memory.
    """
    chips = [m for m in ends if m.link_gbps]
    worker = chips[-1] if chips else host
    rates = {
        "copy": worker.copy_gbps,
        "cast": worker.cast_gbps,
        "layout": worker.layout_gbps,
    }
    links = sum(m.link_seconds(size_bytes) for m in chips)
    return links + sum(
        size_bytes / (1e9 * rates[kind]) for kind in kinds if not (chips and kind == "copy")
    )
