"""What a device tool prints, as typed cards; and the small parts that every such parser needs.

Parsers are pure and never raise: what a text does not say stays None, and a text that says
nothing gives no cards.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from autoglm.catalog.chips import find
from autoglm.spec import Chip, Device

MIB = 2**20
# Vendors sell one chip under these words; none of them tells chips apart.
_BRANDS = ("nvidia ", "tesla ", "geforce ", "quadro ", "amd ")
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ufeff]")
_NUMBER = re.compile(r"-?[0-9]{1,12}(?:\.[0-9]{1,6})?")
_BUS = re.compile(r"(?:([0-9A-Fa-f]{1,8}):)?([0-9A-Fa-f]{2}):([0-9A-Fa-f]{2})\.([0-9A-Fa-f])")


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of one card that works as a device of its own (NVIDIA's MIG)."""

    profile: str
    index: str
    uuid: str = ""
    memory_total: int | None = None


@dataclass(frozen=True, slots=True)
class Card:
    """One chip as its tool prints it; None and "" are what the tool does not say."""

    index: str
    name: str
    memory_total: int | None = None  # bytes
    memory_used: int | None = None
    driver: str = ""
    firmware: str = ""
    health: str = ""
    utilisation: float | None = None  # percent
    power_w: float | None = None
    power_limit_w: float | None = None
    temperature_c: float | None = None
    bus_id: str = ""  # 0000:9d:00.0
    module: str = ""  # the NPU or board that holds this chip
    chips_in_module: int = 1
    slices: tuple[Slice, ...] = ()
    fields: Mapping[str, str] | None = None  # what only this tool says

    @property
    def chip(self) -> Chip | None:
        """The catalog's chip of that name, where there is one."""
        return known_chip(self.name)


def clean(text: str) -> str:
    """The text without colours, control characters and carriage returns."""
    return _CONTROL.sub("", _ANSI.sub("", text).replace("\r", "\n"))


def rows(text: str) -> Iterator[list[str]]:
    """The cells of every `| a | b |` line."""
    for line in clean(text).splitlines():
        line = line.strip()
        if line.startswith("|") and line.count("|") > 1:
            yield [cell.strip() for cell in line.strip("|").split("|")]


def number(text: str) -> float | None:
    """The first number in a text."""
    found = _NUMBER.search(text)
    return float(found.group()) if found else None


def amount(pattern: str, text: str) -> float | None:
    """The number that the first group of `pattern` holds."""
    found = re.search(pattern, text, re.ASCII)
    return number(found.group(1)) if found else None


def mib(pattern: str, text: str) -> int | None:
    """Like `amount`, of mebibytes, in bytes."""
    value = amount(pattern, text)
    return None if value is None else int(value * MIB)


def pair(text: str, unit: str = "MiB") -> tuple[int | None, int | None]:
    """`used / total` in bytes."""
    found = re.search(rf"([0-9]{{1,9}})\s*{unit}\s*/\s*([0-9]{{1,9}})\s*{unit}", text)
    return (int(found[1]) * MIB, int(found[2]) * MIB) if found else (None, None)


def bus(text: str) -> str:
    """The first PCI address in a text, as sysfs writes it; "" where there is none."""
    found = _BUS.search(text)
    if not found:
        return ""
    domain, *rest = found.groups()
    return f"{int(domain or '0', 16):04x}:{rest[0]}:{rest[1]}.{rest[2]}".lower()


def known_chip(name: str) -> Chip | None:
    """The catalog's chip for a name that a tool prints."""
    if found := find(name):
        return found
    short = name.lower()
    for brand in _BRANDS:
        short = short.replace(brand, "")
    return find(short)


def to_device(card: Card, backend: str, kind: str, identifier: str) -> Device:
    """A card as the plan's device, its other figures as facts."""
    chip = card.chip
    facts = {
        "chip": chip.name if chip else "",
        "pci": card.bus_id,
        "driver": card.driver,
        "firmware": card.firmware,
        "health": card.health,
        "memory_used_bytes": _text(card.memory_used),
        "utilisation_percent": _text(card.utilisation),
        "power_w": _text(card.power_w),
        "power_limit_w": _text(card.power_limit_w),
        "temperature_c": _text(card.temperature_c),
        "module": card.module,
        "chips_in_module": str(card.chips_in_module) if card.module else "",
        "slices": ", ".join(f"{s.index}: {s.profile}" for s in card.slices),
        **(card.fields or {}),
    }
    given = {name: value for name, value in facts.items() if value}
    return Device(kind, card.name, backend, identifier, card.memory_total, facts=given)


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def counted(cards: Sequence[Card]) -> list[Card]:
    """The cards, each knowing how many chips its module holds."""
    many = {c.module: sum(o.module == c.module for o in cards) for c in cards if c.module}
    return [replace(c, chips_in_module=many.get(c.module, 1)) for c in cards]
