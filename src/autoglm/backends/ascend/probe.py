"""What `npu-smi info` says. Three layouts: before 23 (Device column), 23 to 25, A3 (Phy-ID)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from autoglm.catalog.cards import MIB, Card, bus, clean, counted, number, rows, to_device
from autoglm.catalog.remarks import remark
from autoglm.spec import Device
from autoglm.toolchain.tool import ask

_PAIR = re.compile(r"([0-9]{1,9})\s*/\s*([0-9]{1,9})")
_FIRST = re.compile(r"^([0-9]{1,4})\s+([A-Za-z0-9]\S*)$")
_SECOND = re.compile(r"^([0-9]{1,4})(?:\s+([0-9]{1,4}))?$")


def list_devices() -> Sequence[Device]:
    """The NPUs that npu-smi lists; [] and a remark where it does not answer."""
    answer = ask(["npu-smi", "info"])
    cards = parse(answer.text)
    if not cards:
        remark(answer.problem or "npu-smi info printed no NPU that can be read")
    return [to_device(card, "ascend", "npu", f"npu:{card.index}") for card in cards]


def parse(text: str) -> list[Card]:
    """The chips of an `npu-smi info` table."""
    found: list[Card] = []
    open_card: Card | None = None
    driver = _driver(text)
    a3 = "Phy-ID" in text
    for cells in rows(text):
        if "Process" in " ".join(cells[1:2]):
            break
        if len(cells) < 3:
            continue
        if bus(cells[1]) and open_card is not None:
            if card := _second_row(open_card, cells):
                found.append(card)
            open_card = None
        elif first := _FIRST.match(cells[0]):
            open_card = _first_row(first[1], first[2], cells, driver, a3)
    return counted(found)


def _driver(text: str) -> str:
    found = re.search(r"Version:\s*([0-9A-Za-z._-]{1,32})", clean(text))
    return found[1] if found else ""


def _first_row(npu: str, name: str, cells: list[str], driver: str, a3: bool) -> Card:
    words = cells[2].split()
    return Card(
        index=npu,
        # A3 boards print the bare family; two dies in one module are a 910C.
        name="Ascend 910C" if a3 and name == "Ascend910" else name,
        driver=driver,
        health=cells[1],
        power_w=number(words[0]) if words else None,
        temperature_c=number(words[1]) if len(words) > 1 else None,
        module=npu,
    )


def _second_row(card: Card, cells: list[str]) -> Card | None:
    second = _SECOND.match(cells[0])
    if not second:
        return None
    pairs = [(int(a) * MIB, int(b) * MIB) for a, b in _PAIR.findall(cells[2])]
    used, total = next((p for p in reversed(pairs) if p[1]), (None, None))
    words = cells[2].split()
    chip, second_id = second.groups()
    return replace(
        card,
        index=second_id or card.index,
        bus_id=bus(cells[1]),
        utilisation=number(words[0]) if words else None,
        memory_used=used,
        memory_total=total,
        fields={"chip_in_module": chip},
    )
