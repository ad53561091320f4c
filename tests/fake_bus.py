"""A PCI bus as sysfs would show it, made up for a test."""

from __future__ import annotations

from pathlib import Path


def plug_in(root: Path, bus: str, pci_id: str, kind: str, driver: str = "") -> None:
    """One function of a fake bus."""
    folder = root / "sys/bus/pci/devices" / bus
    folder.mkdir(parents=True)
    vendor, device = pci_id.split(":")
    (folder / "vendor").write_text(f"0x{vendor}\n")
    (folder / "device").write_text(f"0x{device}\n")
    (folder / "class").write_text(f"0x{kind}\n")
    (folder / "numa_node").write_text("-1\n")
    if driver:
        (root / "sys/bus/pci/drivers" / driver).mkdir(parents=True, exist_ok=True)
        (folder / "driver").symlink_to(root / "sys/bus/pci/drivers" / driver)
