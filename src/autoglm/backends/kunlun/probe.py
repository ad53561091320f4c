"""What Kunlun's `xpu-smi` says. Intel ships another tool of that name: the header tells."""

from __future__ import annotations

import re
from collections.abc import Sequence

from autoglm.catalog import smi
from autoglm.catalog.cards import Card, clean, to_device
from autoglm.catalog.remarks import remark
from autoglm.spec import Device
from autoglm.toolchain.tool import ask


def list_devices() -> Sequence[Device]:
    """The cards that xpu-smi lists; [] and a remark where it does not answer."""
    answer = ask(["xpu-smi"])
    cards = parse(answer.text)
    if not cards:
        remark(_why_none(answer.text, answer.problem))
    return [to_device(card, "kunlun", "npu", f"xpu:{card.index}") for card in cards]


def parse(text: str) -> list[Card]:
    """The cards of Kunlun's `xpu-smi` table; [] where Intel's tool answered."""
    head = clean(text)
    if "Intel" in head or "XPU-SMI" not in head:
        return []
    driver = re.search(r"Driver Version:\s*([0-9][\w.]{0,30})", head)
    return smi.table(text, driver=driver[1] if driver else "")


def _why_none(text: str, problem: str) -> str:
    if "Intel" in clean(text):
        return "the xpu-smi here is Intel's, not Kunlun's"
    return problem or "xpu-smi printed no card that can be read"
