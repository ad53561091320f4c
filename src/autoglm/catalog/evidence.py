"""The chain under a usable device: PCI id, driver, device node, runtime library; read from files
alone, so it costs nothing and cannot hang.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoglm.catalog.pci import ROOT, Family, PciDevice, accelerators, families

_CACHE = "etc/ld.so.cache"
_FOLDERS = ("lib", "lib64", "usr/lib", "usr/lib64", "usr/local/lib", "usr/lib/x86_64-linux-gnu")


@dataclass(frozen=True, slots=True)
class Step:
    """One link of the chain: yes, no, or None where it cannot be told."""

    name: str  # pci, driver, node, library, tool, usable
    ok: bool | None
    detail: str


def steps(
    device: PciDevice | None,
    family: Family,
    *,
    folders: Sequence[str] = (),
    root: Path = ROOT,
) -> tuple[Step, ...]:
    """The chain as files show it; `folders` are searched for libraries first."""
    return (
        _bus(device),
        _driver(device, family, root),
        _node(family, root),
        _library(family, folders, root),
    )


def _bus(device: PciDevice | None) -> Step:
    if device is None:
        return Step("pci", None, "no PCI device of this kind is visible here")
    return Step("pci", True, f"{device.pci_id} at {device.bus_id}")


def _driver(device: PciDevice | None, family: Family, root: Path) -> Step:
    if device and device.driver in family.modules:
        return Step("driver", True, f"{device.driver} is bound to it")
    loaded = [m for m in family.modules if (root / "sys/module" / m.replace("-", "_")).exists()]
    wanted = " or ".join(family.modules)
    if device and device.driver:
        return Step("driver", False, f"bound to {device.driver}, not to {wanted}")
    if loaded:
        return Step("driver", True, f"module {loaded[0]} is loaded")
    return Step("driver", False, f"no kernel module {wanted}")


def _node(family: Family, root: Path) -> Step:
    found = [str(p.relative_to(root)) for pattern in family.nodes for p in _glob(root, pattern)]
    if found:
        return Step("node", True, ", ".join(f"/{name}" for name in found[:3]))
    return Step("node", False, f"no {' or '.join(family.nodes)}")


def _library(family: Family, folders: Sequence[str], root: Path) -> Step:
    for name in family.libraries:
        if place := _find(name, folders, root):
            return Step("library", True, place)
    wanted = dict.fromkeys(Path(name).name for name in family.libraries)
    return Step("library", False, f"no {' or '.join(wanted)}")


def _find(name: str, folders: Sequence[str], root: Path) -> str:
    if name.startswith("/"):
        return name if (root / name[1:]).exists() else ""
    for folder in (*folders, *_FOLDERS):
        if (root / folder.lstrip("/") / name).exists():
            return f"/{folder.lstrip('/')}/{name}"
    try:
        known = (root / _CACHE).read_bytes()
    except OSError:
        return ""
    return f"{name} (ld.so.cache)" if b"\0" + name.encode() + b"\0" in known else ""


def _glob(root: Path, pattern: str) -> list[Path]:
    return sorted(root.glob(pattern.lstrip("/")))


def hinted(backends: Sequence[str] = (), root: Path = ROOT) -> bool:
    """Whether the bus or a device node speaks for an accelerator (of these backends); cheap, so
    that a heavy library need not be loaded to learn that there is none.
    """
    known = [f for f in families() if not backends or f.backend in backends]
    if any(device.family in known for device in accelerators(root)):
        return True
    return any(_glob(root, pattern) for f in known for pattern in f.nodes)
