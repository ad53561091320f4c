"""What `bm-smi` says; its layout is that of sophgo/libsophon's bm_smi_display.cpp (1266784cc9fa).

No real output was found, so this was tried on hand-made ones only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from autoglm.catalog.cards import Card, amount, bus, clean, counted, pair, rows, to_device
from autoglm.catalog.remarks import remark
from autoglm.spec import Device
from autoglm.toolchain.tool import ask

# It is a curses screen unless it writes to a file.
_ASK = ["bm-smi", "--file={folder}/bm-smi.txt", "--loop=0"]
_BOARD = re.compile(r"^\s*([0-9A-Fa-f]{1,4}|N/A)\s+(\S+)\s+(PCIE|SOC)\b")
_CHIP = re.compile(r"^([0-9]{1,3})\s+(\S+)\s+(\S+)\s+(\S+)\s+\S+\s+\S+")
_STATUS = re.compile(r"\b(Active|Fault)\b")


def list_devices() -> Sequence[Device]:
    """The chips that bm-smi lists; [] and a remark where it does not answer."""
    answer = ask(_ASK, output="{folder}/bm-smi.txt")
    cards = parse(answer.text)
    if not cards:
        remark(answer.problem or "bm-smi wrote no chip that can be read")
    return [to_device(card, "sophon", "npu", f"tpu:{card.index}") for card in cards]


def parse(text: str) -> list[Card]:
    """The chips of `bm-smi`'s text; several chips of one board share its name."""
    head = clean(text)
    version = re.search(r"Driver Version:\s*([0-9]+\.[0-9]+\.\s?[0-9]+)", head)
    driver = version[1].replace(" ", "") if version else ""
    found: list[Card] = []
    board, module = "", ""
    complete = True
    for cells in rows(text):
        if cells[0].startswith("Processes"):
            break
        if len(cells) < 2:
            continue
        if own := _BOARD.match(cells[0]):
            module, board = own[1], own[2]
        if board and (chip := _CHIP.match(cells[1])) and not _STATUS.search(cells[1]):
            found.append(_card(chip, board, module, driver, cells[1]))
            complete = False
        elif not complete and found and (status := _STATUS.search(cells[1])):
            found[-1], complete = _second_row(found[-1], status[1], cells), True
    return counted(found)


def _card(chip: re.Match[str], board: str, module: str, driver: str, cell: str) -> Card:
    return Card(
        index=chip[1],
        name=_name(board),
        driver=driver,
        temperature_c=amount(r"^([0-9]{1,4})C$", chip[3]),
        power_w=amount(r"^([0-9.]{1,9})W$", chip[4]),
        utilisation=amount(r"([0-9]{1,3})%", cell),
        module=module,
        fields={"board": board},
    )


def _second_row(card: Card, status: str, cells: list[str]) -> Card:
    used, total = pair(cells[1], unit="MB")
    return replace(card, health=status, bus_id=bus(cells[1]), memory_used=used, memory_total=total)


def _name(board: str) -> str:
    found = re.match(r"(?:BM)?(168[0-9][A-Za-z]?)(?:-|$)", board)
    return f"BM{found[1]}" if found else board
