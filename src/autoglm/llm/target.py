"""What a model may run on: this machine's CPU as measured, or a chip of the catalog."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoglm import registry
from autoglm.catalog import precision as catalog_precision
from autoglm.catalog.chips import chip as named_chip
from autoglm.catalog.chips import default_chip, find
from autoglm.catalog.roofline import Machine
from autoglm.errors import ConfigError
from autoglm.llm.speed import Speeds, chip_speeds, machine_speeds
from autoglm.llm.storage import STORAGES, Storage
from autoglm.messages import tr
from autoglm.spec import Chip, Evidence, Support, Verdict, unknown, yes

_CGROUP = Path("/sys/fs/cgroup/memory.max")
HERE = "here"
_ANY_CHIP = ("auto", "torch", "emulated")  # backends that are not one vendor's


@dataclass(frozen=True, slots=True)
class Target:
    """One kind of device; without a chip it is this machine's CPU."""

    name: str
    backend: str
    memory_bytes: int | None
    chip: Chip | None = None
    machine: Machine | None = None

    def half(self) -> Storage:
        """The 16-bit precision that it takes, bf16 before fp16; fp32 where neither is published."""
        if self.chip is None or {"bf16", "fp16"} <= set(self.chip.lacks):
            return STORAGES["bf16"]
        known = (p for p in ("bf16", "fp16", "fp32") if p in self.chip.precisions)
        return STORAGES[next(known, "bf16")]

    def compute(self, storage: Storage) -> str:
        """The precision of the arithmetic: weights of fewer bits are expanded to `half`."""
        return "fp32" if storage.high_bits == 32 else self.half().name

    def support(self, storage: Storage) -> Support:
        """Whether it computes so; unknown where no document says."""
        if self.chip is None:
            return yes(Evidence.MEASURED)
        wanted = self.compute(storage)
        if storage.name in ("bf16", "fp16", "fp32"):
            wanted = storage.name
        found = catalog_precision.of_chip(self.chip, wanted)
        if found.verdict is Verdict.UNKNOWN and self.chip.precisions:
            had = ", ".join(self.chip.precisions)
            reason = tr(
                "{chip} is published with {had}; no document says whether it computes in {wanted}",
                chip=self.chip.name,
                had=had,
                wanted=wanted,
            )
            return unknown(reason)
        return found

    def speeds(self, storage: Storage) -> Speeds:
        """What it reaches with weights stored so."""
        if self.chip is not None:
            return chip_speeds(self.chip, self.compute(storage))
        assert self.machine is not None
        return machine_speeds(self.machine, storage)


def targets_of(backend: str, arch: str, to: Sequence[str]) -> tuple[Target, ...]:
    """The device that `backend` and `arch` name, and those of `to`, side by side."""
    own = [] if to and (backend, arch) == ("auto", "") else [_target(backend, arch)]
    found = {t.name: t for t in (*own, *(_named(name) for name in to))}
    return tuple(found.values())


def _named(name: str) -> Target:
    """`here`, a chip of the catalog, a backend, or `backend:chip`."""
    name = name.strip()
    backend, colon, arch = name.partition(":")
    if colon:
        return _target(backend, arch)
    if name in (HERE, "cpu"):
        return _target("auto", "")
    if name in registry.backends():
        return _target(name, "")
    return _of_chip(named_chip(name), "auto")


def _target(backend: str, arch: str) -> Target:
    chip = _chip(backend, arch)
    return _here(backend) if chip is None else _of_chip(chip, backend)


def _chip(backend: str, arch: str) -> Chip | None:
    """The chip meant; None for this machine's CPU."""
    found = find(arch) if arch else None
    if found is not None and (backend in (*_ANY_CHIP, found.backend) or found.kind == "cpu"):
        return found
    if backend == "auto":
        return named_chip(arch) if arch else None
    plug = registry.backend(backend)
    if found is not None:
        raise ConfigError(
            "{chip} is driven by the backend {own}, not by {backend}.",
            hint="Leave --backend out: the chip says whose it is.",
            chip=found.name,
            own=found.backend,
            backend=backend,
        )
    own = (None if arch else default_chip(backend)) or plug.capabilities(arch).chip
    return named_chip(arch) if arch and own is None else own


def _of_chip(chip: Chip, backend: str) -> Target:
    name = chip.backend if backend in _ANY_CHIP else backend
    return Target(chip.name, name, chip.memory_bytes, chip=chip)


def _here(backend: str) -> Target:
    from autoglm.runtime.machine import machine

    return Target(HERE, backend, memory_here(), machine=machine())


def memory_here() -> int:
    """Bytes of this machine's memory, or of its container's."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit = _CGROUP.read_text("ascii").strip()
    except OSError:
        return whole
    return min(whole, int(limit)) if limit.isdigit() else whole
