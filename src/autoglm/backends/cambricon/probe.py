"""What `cnmon` says. Two layouts: 4.20 (Inited, Driver, vMemory), 5.10 (Bus-Id, SR-IOV or Mode)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from autoglm.catalog.cards import Card, amount, bus, clean, pair, rows, to_device
from autoglm.catalog.remarks import remark
from autoglm.spec import Device
from autoglm.toolchain.tool import ask

_FIRST = re.compile(r"^([0-9]{1,4})\s+\S+\s+(MLU\S+)\s+(v[0-9][\w.]{0,30})$")
_VERSION = re.compile(r"\bv[0-9][\w.]{0,30}")


def list_devices() -> Sequence[Device]:
    """The cards that cnmon lists; [] and a remark where it does not answer."""
    answer = ask(["cnmon"])
    cards = parse(answer.text)
    if not cards:
        remark(answer.problem or "cnmon printed no card that can be read")
    return [to_device(card, "cambricon", "npu", f"mlu:{card.index}") for card in cards]


def parse(text: str) -> list[Card]:
    """The cards of a `cnmon` table."""
    found: list[Card] = []
    complete = True
    header = re.search(r"Driver\s+(v[0-9][\w.]{0,30})", clean(text))
    for cells in rows(text):
        if cells[0].startswith("Processes"):
            break
        if len(cells) < 3:
            continue
        if first := _FIRST.match(cells[0]):
            found.append(_first_row(first, cells, header[1] if header else ""))
            complete = False
        elif not complete:
            found[-1], complete = _second_row(found[-1], cells), True
    return found


def _first_row(first: re.Match[str], cells: list[str], driver: str) -> Card:
    own = _VERSION.search(cells[1])
    errors = re.search(r"%\s+([0-9]{1,9})$", cells[2])
    faulty = bool(errors and int(errors[1]))
    inited = cells[1].split()[0] if own else ""
    health = "" if inited in ("", "On") else f"not initialised ({inited})"
    return Card(
        index=first[1],
        name=first[2],
        firmware=first[3].removeprefix("v"),
        driver=(own[0] if own else driver).removeprefix("v"),
        health=f"{errors[1]} ECC errors" if errors and faulty else health,
        utilisation=amount(r"([0-9]{1,3})\s*%", cells[2]),
        bus_id=bus(cells[1]),
    )


def _second_row(card: Card, cells: list[str]) -> Card:
    used, total = pair(cells[1])
    return replace(
        card,
        memory_used=used,
        memory_total=total,
        temperature_c=amount(r"([0-9]{1,4})\s*C\b", cells[0]),
        power_w=amount(r"([0-9.]{1,9})\s*W\s*/", cells[0]),
        power_limit_w=amount(r"/\s*([0-9.]{1,9})\s*W", cells[0]),
    )
