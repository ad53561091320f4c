"""PCI ids as ground truth: which accelerators are in the machine, driver or not."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

_DATA = Path(__file__).parent / "pci.toml"
_DEVICES = "sys/bus/pci/devices"
_BRIDGE = "06"
ROOT = Path("/")


@dataclass(frozen=True, slots=True)
class Family:
    """One vendor's line of accelerators: how to recognise it, and what it needs to work."""

    name: str
    vendors: tuple[str, ...]
    classes: tuple[str, ...]
    backend: str
    kind: str
    modules: tuple[str, ...]
    nodes: tuple[str, ...]
    libraries: tuple[str, ...]
    tool: str
    next: str  # what to do where the driver is not there
    source: str
    only: tuple[str, ...] = ()  # device ids; () = any
    devices: Mapping[str, str] = field(default_factory=dict)

    def holds(self, vendor: str, device: str, kind: str) -> bool:
        """Whether a function of these ids and class is such an accelerator."""
        if vendor not in self.vendors or kind.startswith(_BRIDGE):
            return False
        if self.only and device not in self.only:
            return False
        return not self.classes or kind in self.classes


@dataclass(frozen=True, slots=True)
class PciDevice:
    """One accelerator on the bus, as sysfs shows it."""

    bus_id: str
    pci_id: str  # 10de:2330
    family: Family
    name: str  # the chip's where the id is known, else the family's
    driver: str  # the kernel module bound to it; "" = none
    numa_node: int | None


@cache
def families() -> tuple[Family, ...]:
    """Every family that is known by its PCI ids."""
    rows = tomllib.loads(_DATA.read_text("utf-8"))["family"]
    return tuple(_family(row) for row in rows)


def _family(row: Mapping[str, Any]) -> Family:
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
    return Family(**values)


def name_of(pci_id: str) -> str:
    """The chip of a `vendor:device` id; "" where it is not known."""
    vendor, _, device = pci_id.partition(":")
    owners = (f for f in families() if vendor in f.vendors)
    return next((f.devices[device] for f in owners if device in f.devices), "")


def accelerators(root: Path = ROOT) -> tuple[PciDevice, ...]:
    """The accelerators that sysfs lists; () where there is no sysfs."""
    try:
        folders = sorted((root / _DEVICES).iterdir())
    except OSError:
        return ()
    found = (_device(folder) for folder in folders)
    return tuple(device for device in found if device)


def present(backend: str, root: Path = ROOT) -> bool:
    """Whether the bus holds an accelerator that this backend drives."""
    return any(device.family.backend == backend for device in accelerators(root))


def _device(folder: Path) -> PciDevice | None:
    vendor, device, kind = (_hex(folder / name) for name in ("vendor", "device", "class"))
    family = next((f for f in families() if f.holds(vendor, device, kind[:4])), None)
    if family is None:
        return None
    pci_id = f"{vendor}:{device}"
    node = _read(folder / "numa_node")
    return PciDevice(
        bus_id=folder.name.lower(),
        pci_id=pci_id,
        family=family,
        name=name_of(pci_id) or family.name,
        driver=_driver(folder / "driver"),
        numa_node=int(node) if node.isdigit() else None,  # -1 = the machine does not say
    )


def _driver(link: Path) -> str:
    try:
        return link.readlink().name
    except OSError:
        return ""


def _hex(path: Path) -> str:
    return _read(path).removeprefix("0x").lower()


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace").strip()
    except OSError:
        return ""
