"""What is in this machine: every probe at once, each within its time, joined to the PCI bus."""

from __future__ import annotations

import threading
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from autoglm import catalog, registry
from autoglm.catalog import pci
from autoglm.catalog.cpu import Cpu, here, parse_lscpu
from autoglm.catalog.evidence import Step, steps
from autoglm.catalog.remarks import listening
from autoglm.settings import library_folders
from autoglm.spec import Backend, Device
from autoglm.toolchain.environment import find, recipes
from autoglm.toolchain.tool import ask

TIMEOUT_S = 3.0
_HEALTHY = ("", "OK", "Active")
_TOOLCHAINS = Path(catalog.__file__).parent / "toolchains.toml"


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One accelerator, and how far the chain below it holds."""

    name: str
    kind: str
    backend: str
    chain: tuple[Step, ...]
    device: Device | None  # None: no probe lists it
    next: str

    @property
    def usable(self) -> bool:
        """Whether nothing in the chain is known to be missing."""
        return all(step.ok is not False for step in self.chain)

    @property
    def why(self) -> str:
        """The first link that is missing."""
        return next((s.detail for s in self.chain if s.ok is False), "")


@dataclass(frozen=True, slots=True)
class Hardware:
    """The CPU, the accelerators with their evidence, and every device that a backend offers."""

    cpu: Cpu
    accelerators: tuple[Accelerator, ...]
    devices: tuple[Device, ...]
    remarks: Mapping[str, tuple[str, ...]]  # backend -> why it found nothing, or less

    def to_dict(self) -> dict[str, Any]:
        """JSON."""
        return {
            "cpu": self.cpu.to_dict(),
            "accelerators": [_accelerator_dict(a) for a in self.accelerators],
            "devices": [_device_dict(d) for d in self.devices],
            "remarks": {name: list(lines) for name, lines in self.remarks.items()},
        }


def hardware(*, timeout_s: float = TIMEOUT_S, root: Path = pci.ROOT) -> Hardware:
    """Probe everything at once; a probe that fails or hangs costs its own devices only."""
    plugs = registry.backends()
    found, remarks = _probe_all(plugs, timeout_s)
    devices = tuple(d for name in plugs for d in found.get(name, ()))
    return Hardware(
        cpu=_cpu(root),
        accelerators=tuple(_accelerators(devices, remarks, plugs, root)),
        devices=devices,
        remarks={name: tuple(lines) for name, lines in remarks.items() if lines},
    )


def _cpu(root: Path) -> Cpu:
    """From files; where /proc is closed to us, as lscpu says."""
    found = here(root)
    return found if found.threads else parse_lscpu(ask(["lscpu", "-J"]).text)


def backend_row(name: str, plug: Backend) -> dict[str, Any]:
    """What `autoglm backends` says of one backend; a table that cannot be made is its problem."""
    place, how = toolchain(name)
    try:
        version, table = plug.version(), plug.capabilities()
    except Exception as error:  # a plug-in may raise anything; its reason is shown
        return {"name": name, "version": "", "problem": f"{type(error).__name__}: {error}"}
    return {
        "name": name,
        "version": version,
        "toolchain": place,
        "get": "" if version else how,
        "table": table.toolkit,
        "operators": len(table.table),
        "evidence": table.evidence.value,
        "precisions": {k: v.verdict.value for k, v in table.precisions.items()},
        "formats": list(table.formats),
        "collectives": list(table.collectives),
        "layouts": list(table.layouts),
        "alignment": table.alignment,
        "memory_bytes": table.memory_bytes,
        "chip": table.chip.name if table.chip else "",
        "figures": dict(table.chip.evidence) if table.chip else {},
        "chips": [c.name for c in catalog.chips().values() if c.backend == name],
        "problem": "" if version else "its toolkit is not installed here",
    }


def toolchain(backend: str) -> tuple[str, str]:
    """Where a backend's toolchain environment is ("" = nowhere), and how to get its toolkit."""
    row = _toolchains().get(backend, {})
    recipe = row.get("recipe", "")
    if not recipe:
        return "", row.get("get", "")
    place = find(recipe) if recipe in recipes() else None
    return str(place.folder) if place else "", f"autoglm toolchain install {recipe}"


@cache
def _toolchains() -> Mapping[str, Mapping[str, str]]:
    return tomllib.loads(_TOOLCHAINS.read_text("utf-8"))


def _probe_all(
    plugs: Mapping[str, Backend], timeout_s: float
) -> tuple[dict[str, Sequence[Device]], dict[str, list[str]]]:
    found: dict[str, Sequence[Device]] = {}
    remarks: dict[str, list[str]] = {name: [] for name in plugs}

    def probe(name: str, plug: Backend) -> None:
        with listening() as lines:
            try:
                found[name] = list(plug.probe())
            except Exception as error:  # a plug-in may raise anything; its reason is shown
                lines.append(f"its probe failed: {type(error).__name__}: {error}")
            remarks[name] = lines

    # Daemons: a driver that hangs must not keep the process from ending.
    threads = {
        name: threading.Thread(target=probe, args=(name, plug), daemon=True)
        for name, plug in plugs.items()
    }
    for thread in threads.values():
        thread.start()
    deadline = time.monotonic() + timeout_s
    for name, thread in threads.items():
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            remarks[name] = [f"its probe gave no answer within {timeout_s:g} s"]
    # A probe that answers from here on writes to nothing that is read.
    return dict(found), dict(remarks)


def _accelerators(
    devices: Sequence[Device],
    remarks: Mapping[str, Sequence[str]],
    plugs: Mapping[str, Backend],
    root: Path,
) -> list[Accelerator]:
    """The bus first, then what a tool lists that the bus does not show (a container hides it)."""
    left = [d for d in devices if d.present and d.kind != "cpu" and "simulator" not in d.facts]
    found = []
    for entry in pci.accelerators(root):
        device = _matching(entry, left)
        if device:
            left.remove(device)
        found.append(_accelerator(entry.name, entry, entry.family, device, remarks, plugs, root))
    for device in left:
        if family := _family(device):
            found.append(_accelerator(device.name, None, family, device, remarks, plugs, root))
    return found


def _matching(entry: pci.PciDevice, devices: Sequence[Device]) -> Device | None:
    family = entry.family
    same = [d for d in devices if d.backend == family.backend and d.kind == family.kind]
    exact = [d for d in same if d.facts.get("pci") == entry.bus_id]
    unplaced = [d for d in same if not d.facts.get("pci")]
    return next(iter(exact or unplaced), None)


def _family(device: Device) -> pci.Family | None:
    # PyTorch shows other vendors' devices a second time.
    if device.backend == "torch":
        return None
    pairs = ((f.backend, f.kind) for f in pci.families())
    wanted = (device.backend, device.kind)
    return next((f for f, p in zip(pci.families(), pairs, strict=True) if p == wanted), None)


def _accelerator(
    name: str,
    entry: pci.PciDevice | None,
    family: pci.Family,
    device: Device | None,
    remarks: Mapping[str, Sequence[str]],
    plugs: Mapping[str, Backend],
    root: Path,
) -> Accelerator:
    below = steps(entry, family, folders=library_folders(), root=root)
    tool = _tool_step(family, device, remarks.get(family.backend, ()))
    toolkit = _toolkit_step(family.backend, plugs)
    missing = any(step.ok is False for step in below)
    how = toolchain(family.backend)[1] if not missing and not toolkit.ok else family.next
    chain = (*below, tool, toolkit)
    healthy = all(step.ok is not False for step in chain)
    known = device.facts.get("chip") or device.name if device else name
    return Accelerator(known, family.kind, family.backend, chain, device, "" if healthy else how)


def _tool_step(family: pci.Family, device: Device | None, remarks: Sequence[str]) -> Step:
    if device is None:
        reason = "; ".join(remarks) or f"the {family.backend} backend does not list it"
        return Step("tool", False, reason)
    health = device.facts.get("health", "")
    if health not in _HEALTHY:
        return Step("tool", False, f"{family.tool or family.backend} says: {health}")
    driver = device.facts.get("driver", "")
    said = f", driver {driver}" if driver else ""
    return Step("tool", True, f"{device.name} as {device.id}{said}")


def _toolkit_step(backend: str, plugs: Mapping[str, Backend]) -> Step:
    plug = plugs.get(backend)
    if plug is None:
        return Step("toolkit", False, f"no backend {backend} is registered")
    try:
        version = plug.version()
    except Exception as error:  # a plug-in may raise anything; its reason is shown
        return Step("toolkit", False, f"{type(error).__name__}: {error}")
    if version:
        return Step("toolkit", True, f"{backend} {version}")
    return Step("toolkit", False, f"the toolkit of backend {backend} is not installed here")


def _device_dict(device: Device) -> dict[str, Any]:
    return {
        "kind": device.kind,
        "name": device.name,
        "backend": device.backend,
        "id": device.id,
        "memory_bytes": device.memory_bytes,
        "present": device.present,
        "facts": dict(device.facts),
    }


def _accelerator_dict(found: Accelerator) -> dict[str, Any]:
    return {
        "name": found.name,
        "kind": found.kind,
        "backend": found.backend,
        "usable": found.usable,
        "why": found.why,
        "next": found.next,
        "chain": [{"step": s.name, "ok": s.ok, "detail": s.detail} for s in found.chain],
        "device": _device_dict(found.device) if found.device else None,
    }
