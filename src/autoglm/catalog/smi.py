"""The three-row card table that nvidia-smi, Kunlun's xpu-smi and Intel's xpu-smi print alike."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from autoglm.catalog.cards import Card, amount, bus, clean, pair, rows

_FIRST = re.compile(r"^([0-9]{1,4})\s+(\S.*?)\s+(On|Off|WDDM|TCC|MCDM|N/A|Enabled|Disabled)$")
_END = ("Processes:", "MIG devices:")


def table(text: str, *, driver: str = "", health: str = "") -> list[Card]:
    """The cards of such a table, in order."""
    found: list[Card] = []
    complete = True  # the card's second row was read
    for cells in _until_processes(text):
        first = _FIRST.match(cells[0])
        if len(cells) >= 3 and first and bus(cells[1]):
            found.append(_card(first[1], first[2], cells, driver, health))
            complete = False
        elif found and not complete and len(cells) >= 3:
            found[-1], complete = _second_row(found[-1], cells)
    return found


def intel(text: str) -> list[Card]:
    """Cards of Intel's xpu-smi; [] where another vendor's tool of that name answered."""
    head = clean(text)
    if "Intel XPU-SMI" not in head:
        return []
    driver = re.search(r"Driver:\s*(\S+)", head)
    return table(text, driver=driver[1] if driver else "")


def _until_processes(text: str) -> Iterator[list[str]]:
    for cells in rows(text):
        if any(cells[0].startswith(word) for word in _END):
            return
        yield cells


def _card(index: str, name: str, cells: list[str], driver: str, health: str) -> Card:
    errors = cells[2].split()[0] if cells[2] else ""
    counted = errors.isascii() and errors.isdigit()
    return Card(
        index=index,
        name=name,
        driver=driver,
        health=_health(int(errors[:9])) if counted else health,
        bus_id=bus(cells[1]),
    )


def _health(errors: int) -> str:
    return f"{errors} uncorrected ECC errors" if errors else "OK"


def _second_row(card: Card, cells: list[str]) -> tuple[Card, bool]:
    used, total = pair(cells[1])
    if total is None:  # a long name goes on in a row of its own
        more = cells[0] if card.name and cells[0] and not cells[1] else ""
        return replace(card, name=f"{card.name} {more}".strip()), False
    return replace(
        card,
        memory_used=used,
        memory_total=total,
        temperature_c=amount(r"([0-9]{1,4})\s*C\b", cells[0]),
        power_w=amount(r"([0-9.]{1,9})\s*W\s*/", cells[0]),
        power_limit_w=amount(r"/\s*([0-9.]{1,9})\s*W", cells[0]),
        utilisation=amount(r"([0-9]{1,3})\s*%", cells[2]),
    ), True
