"""The NVIDIA GPUs here: NVML first, then nvidia-smi, whose forms change between drivers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from autoglm.backends.cuda.nvml import NvmlError, list_cards
from autoglm.backends.cuda.smi import parse
from autoglm.catalog.cards import Card, Slice, to_device
from autoglm.catalog.pci import name_of
from autoglm.catalog.remarks import remark
from autoglm.spec import Device
from autoglm.toolchain.tool import TIMEOUT_S, ask

_FORMS = (["nvidia-smi", "-q", "-x"], ["nvidia-smi"])


def list_devices() -> Sequence[Device]:
    """The GPUs here; [] and a remark where neither NVML nor nvidia-smi answers."""
    return [to_device(_named(c), "cuda", "gpu", f"cuda:{c.index}") for c in _cards()]


def _cards() -> list[Card]:
    try:
        return list_cards()
    except NvmlError as error:
        reason = str(error)
    until = time.monotonic() + TIMEOUT_S  # for all the questions together
    for form in _FORMS:
        answer = ask(form, timeout_s=until - time.monotonic())
        cards = parse(answer.text)
        if cards:
            return _with_profiles(cards, until)
        problem = answer.problem or f"{' '.join(form)} printed no GPU that can be read"
        if answer.problem:
            break
    remark(f"{reason}; {problem}")
    return []


def _with_profiles(cards: list[Card], until: float) -> list[Card]:
    """MIG profiles have names in `nvidia-smi -L` only."""
    if not any(card.slices for card in cards):
        return cards
    answer = ask(["nvidia-smi", "-L"], timeout_s=until - time.monotonic())
    listed = {c.index: c.slices for c in parse(answer.text)}
    return [replace(c, slices=_merged(c.slices, listed.get(c.index, ()))) for c in cards]


def _merged(known: Sequence[Slice], listed: Sequence[Slice]) -> tuple[Slice, ...]:
    named = {part.index: part for part in listed}
    return tuple(
        replace(s, profile=named[s.index].profile, uuid=named[s.index].uuid)
        if s.index in named
        else s
        for s in known
    )


def _named(card: Card) -> Card:
    """A driver older than its GPU calls it "Graphics Device"; the PCI id knows better."""
    known = name_of((card.fields or {}).get("pci_device", ""))
    return replace(card, name=known) if known and card.name == "Graphics Device" else card
