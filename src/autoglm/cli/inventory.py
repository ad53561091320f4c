"""Devices, backends and chips in a terminal: what works first, then why the rest does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from autoglm.cli import words
from autoglm.cli.output import console
from autoglm.cli.terminal import cell, show_rows, table
from autoglm.messages import tr
from autoglm.spec import Chip, Device

if TYPE_CHECKING:
    from autoglm.catalog.cpu import Cpu
    from autoglm.catalog.evidence import Step
    from autoglm.runtime.hardware import Accelerator, Hardware

_MARK = {True: ("✓", "green"), False: ("✗", "red"), None: ("?", "yellow")}


def show_hardware(found: Hardware, broken: Sequence[Mapping[str, str]]) -> None:
    """The CPU, each accelerator with its chain, what backends offer, and why others do not."""
    _show_cpu(found.cpu)
    _show_accelerators(found.accelerators)
    columns = [tr(name) for name in ("backend", "device", "name", "memory", "facts")]
    table(tr("Devices that backends offer"), columns, [_device(d) for d in found.devices], most=200)
    remarks = [(name, "; ".join(lines)) for name, lines in found.remarks.items()]
    table(tr("Not found"), [tr("backend"), tr("reason")], remarks, most=200)
    show_rows(broken, tr("Plug-ins that did not load"))


def show_backends(rows: Sequence[Mapping[str, Any]]) -> None:
    """What each backend takes, what each needs, and how to get it."""
    ready = [{**_head(row), **_capability(row)} for row in rows]
    show_rows(ready, tr("What they take"))
    show_rows([{**_head(row), **_toolchain(row)} for row in rows], tr("What they need"))


def show_chips(chips: Sequence[Chip]) -> None:
    """The catalog, one row a chip."""
    columns = ["chip", "vendor", "backend", "memory>", "GB/s>", "peak", "W>", "verified"]
    rows = [_chip(chip) for chip in chips]
    table(
        "", [tr(c.removesuffix(">")) + (">" if c.endswith(">") else "") for c in columns], rows, 999
    )
    note = tr(
        "Peaks are dense, in TFLOPS (TOPS of integers). Verified: how many of the figures were "
        "read in their source or are the specification's; the others are recalled, not verified. "
        "--json has each figure's source and evidence."
    )
    console().print(cell(note, "dim"))


def _show_cpu(cpu: Cpu) -> None:
    line = tr(
        "{cores} cores, {threads} threads, {sockets} socket(s), {nodes} NUMA node(s)",
        cores=cpu.cores,
        threads=cpu.threads,
        sockets=cpu.sockets,
        nodes=cpu.numa_nodes,
    )
    caches = ", ".join(f"{name} {words.size(size)}" for name, size in cpu.caches.items())
    out = console()
    out.print(cell(f"{cpu.model or 'CPU'} ({cpu.arch})", "bold"))
    out.print(cell(f"{line}; {caches}" if caches else line))
    out.print(cell(" ".join(cpu.to_dict()["flags"]), "dim"))


def _show_accelerators(found: Sequence[Accelerator]) -> None:
    out = console()
    out.print()
    if not found:
        nothing = tr("No accelerator: none on the PCI bus, and no vendor's tool lists one.")
        out.print(cell(nothing))
    for accelerator in found:
        state = tr("usable") if accelerator.usable else tr("not usable")
        style = "bold green" if accelerator.usable else "bold red"
        memory = accelerator.device.memory_bytes if accelerator.device else None
        size = f", {words.size(memory)}" if memory else ""
        out.print(cell(f"{accelerator.name}{size} → {accelerator.backend}: {state}", style))
        for step in accelerator.chain:
            out.print(_step(step))
        if accelerator.next:
            out.print(cell(f"  → {accelerator.next}"))


def _step(step: Step) -> Text:
    mark, style = _MARK[step.ok]
    line = cell(f"  {mark} ", style)
    return line.append_text(cell(f"{tr(step.name)}: {step.detail}", "default"))


def _device(device: Device) -> tuple[str, ...]:
    memory = words.size(device.memory_bytes) if device.memory_bytes else ""
    facts = ", ".join(f"{k}: {v}" for k, v in device.facts.items())
    return device.backend, device.id, device.name, memory, facts


def _head(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": row["name"], "version": row.get("version", "")}


def _capability(row: Mapping[str, Any]) -> dict[str, Any]:
    taken = [n for n, verdict in (row.get("precisions") or {}).items() if verdict == "yes"]
    memory = row.get("memory_bytes")
    addressing = [f"{row['alignment']} B"] if row.get("alignment") else []
    return {
        "precisions": taken,
        "formats": row.get("formats", ()),
        "addressing": [*addressing, *row.get("layouts", ())],
        "memory": words.size(memory) if memory else "",
        "collectives": row.get("collectives", ()),
        "operators": row.get("operators", ""),
        "evidence": row.get("evidence", ""),
    }


def _toolchain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "table": row.get("table", ""),
        "chip": row.get("chip", ""),
        "verified": _verified(row["figures"]) if row.get("figures") else "",
        "toolchain": row.get("toolchain", ""),
        "problem": row.get("problem", ""),
        "get": row.get("get", ""),
    }


def _chip(chip: Chip) -> tuple[str, ...]:
    peaks = " ".join(f"{name} {value:g}" for name, value in chip.peak_tflops.items())
    return (
        chip.name,
        chip.vendor,
        chip.backend,
        words.size(chip.memory_bytes) if chip.memory_bytes else "",
        f"{chip.bandwidth_gbps:g}" if chip.bandwidth_gbps else "",
        peaks,
        f"{chip.watts:g}" if chip.watts else "",
        _verified(chip.evidence),
    )


def _verified(figures: Mapping[str, str]) -> str:
    """How many of a chip's figures are more than recalled."""
    return f"{sum(grade != 'recalled' for grade in figures.values())}/{len(figures)}"
