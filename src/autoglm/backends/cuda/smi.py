"""Every form in which nvidia-smi answers, as cards: -q, -q -x, --query-gpu, -L, the plain table."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from autoglm.catalog import smi
from autoglm.catalog.cards import MIB, Card, Slice, amount, bus, clean, number

_TAG = re.compile(r"<(/?)([A-Za-z_][\w.-]{0,80})([^<>]{0,200})>([^<>]*)")
_GPU = re.compile(r"^GPU ([0-9A-Fa-f:.]{7,20})\s*$")
_LINE = re.compile(r"^( *)(\S[^:]*?) *(?:: (.*))?$")
_LISTED = re.compile(r"^GPU ([0-9]{1,4}): (.{1,120}?) \(UUID: ([^)]{1,80})\)")
_SLICE = re.compile(r"^\s+MIG (\S{1,40})\s+Device\s+([0-9]{1,4}): \(UUID: ([^)]{1,80})\)")
_DRIVER = re.compile(
    r"(?:(?:KMD|Driver|DRIVER) [Vv]ersion\s*:\s*|<driver_version>)([0-9]+(?:\.[0-9]+){1,3})"
)
_NO_ACTION = ("", "None", "N/A", "[N/A]")
_CUDA = re.compile(r"(?:CUDA (?:UMD )?[Vv]ersion\s*:\s*|<cuda_version>)([0-9]+\.[0-9]+)")


@dataclass(slots=True)
class _Entry:
    """One GPU as `section/key` to its first value, and one such mapping for each MIG device."""

    values: dict[str, str] = field(default_factory=dict)
    slices: list[dict[str, str]] = field(default_factory=list)


def parse(text: str) -> list[Card]:
    """The cards of whatever form this is; [] where it is none of them."""
    text = clean(text)
    cuda = {"cuda": version} if (version := versions(text)["cuda"]) else {}
    return [replace(c, fields={**(c.fields or {}), **cuda}) for c in _cards(text)]


def _cards(text: str) -> list[Card]:
    driver = versions(text)["driver"]
    if "<nvidia_smi_log" in text or "<gpu " in text:
        return [_card(entry, i, driver) for i, entry in enumerate(_from_xml(text))]
    if "NVSMI LOG" in text or _anywhere(_GPU, text):
        return [_card(entry, i, driver) for i, entry in enumerate(_from_log(text))]
    if "memory.total" in text or "pci.bus_id" in text:
        return _from_csv(text)
    if _anywhere(_LISTED, text):
        return _from_list(text)
    return smi.table(text, driver=driver)


def versions(text: str) -> dict[str, str]:
    """Driver and CUDA version that a header or `nvidia-smi --version` names; "" where none."""
    driver, cuda = _DRIVER.search(clean(text)), _CUDA.search(clean(text))
    return {"driver": driver[1] if driver else "", "cuda": cuda[1] if cuda else ""}


def _anywhere(pattern: re.Pattern[str], text: str) -> bool:
    return any(pattern.match(line) for line in text.splitlines())


def _from_xml(text: str) -> Iterator[_Entry]:
    entry: _Entry | None = None
    stack: list[str] = []
    for closing, tag, rest, value in _TAG.findall(text):
        if closing:
            if tag in stack:
                del stack[stack.index(tag) :]
            if tag == "gpu" and entry:
                yield entry
                entry = None
        elif tag == "gpu" and "id=" in rest:
            entry, stack = _Entry({"bus_id": bus(rest)}), []
        elif entry is not None and not rest.endswith("/"):
            stack.append(tag)
            if tag == "mig_device":
                entry.slices.append({})
            _put(entry, stack, value.strip())
    if entry:
        yield entry


def _from_log(text: str) -> Iterator[_Entry]:
    entry: _Entry | None = None
    stack: list[tuple[int, str]] = []
    for line in text.splitlines():
        if opened := _GPU.match(line):
            if entry:
                yield entry
            entry, stack = _Entry({"bus_id": bus(opened[1])}), []
        elif entry is not None and (found := _LINE.match(line)):
            indent, name = len(found[1]), re.sub(r"\W+", "_", found[2].strip().lower())
            stack = [(i, n) for i, n in stack if i < indent] + [(indent, name)]
            if name == "mig_device":
                entry.slices.append({})
            _put(entry, [n for _, n in stack], (found[3] or "").strip())
    if entry:
        yield entry


def _put(entry: _Entry, path: Sequence[str], value: str) -> None:
    if not value:
        return
    inside = "mig_device" in path
    values = entry.slices[-1] if inside and entry.slices else entry.values
    start = path.index("mig_device") + 1 if inside else 0
    values.setdefault("/".join(path[start:]), value)


def _card(entry: _Entry, position: int, driver: str) -> Card:
    found = entry.values
    power = ("gpu_power_readings", "power_readings")
    return Card(
        index=str(position),
        name=found.get("product_name", ""),
        memory_total=_mib(found, "fb_memory_usage/total"),
        memory_used=_mib(found, "fb_memory_usage/used"),
        driver=driver,
        health=_health(found),
        utilisation=_first(found, "utilization/gpu_util", "utilization/gpu"),
        power_w=_first(
            found,
            *(f"{p}/{n}" for p in power for n in ("power_draw", "average_power_draw")),
            *(f"{p}/{n}_power_draw" for p in power for n in ("instant", "instantaneous")),
        ),
        power_limit_w=_first(
            found,
            *(f"{p}/{n}power_limit" for p in power for n in ("current_", "enforced_", "")),
            "gpu_power_readings/gpu_ceiling_power_limit/current_power_limit",
        ),
        temperature_c=_first(found, "temperature/gpu_temp", "temperature/gpu_current_temp"),
        bus_id=found["bus_id"],
        slices=tuple(_slice(s) for s in entry.slices),
        fields=_pci_device(found),
    )


def _slice(values: Mapping[str, str]) -> Slice:
    total = _mib(values, "fb_memory_usage/total") or _mib(values, "shared_fb_memory_usage/total")
    instance = values.get("gpu_instance_id", "")
    return Slice(f"instance {instance}", values.get("index", ""), memory_total=total)


def _pci_device(found: Mapping[str, str]) -> dict[str, str]:
    # 0x218210DE: device, then vendor
    both = re.match(r"(?:0x)?([0-9A-Fa-f]{4})10DE", found.get("pci/pci_device_id", ""))
    both = both or re.match(r"(?:0x)?([0-9A-Fa-f]{4})10DE", found.get("pci/device_id", ""))
    return {"pci_device": f"10de:{both[1].lower()}"} if both else {}


def _health(found: Mapping[str, str]) -> str:
    action = found.get("gpu_recovery_action", "")
    if action not in _NO_ACTION:
        return f"recovery action asked for: {action[:60]}"
    errors = [
        int(number(value) or 0)
        for path, value in found.items()
        if path.startswith("ecc_errors/volatile/")
        and ("uncorrectable" in path or path.endswith("double_bit/total"))
        and number(value) is not None
    ]
    return _errors(sum(errors)) if errors or action == "None" else ""


def _errors(count: int) -> str:
    return f"{count} uncorrected ECC errors" if count else "OK"


def _first(found: Mapping[str, str], *paths: str) -> float | None:
    values = (number(found.get(path, "")) for path in paths)
    return next((value for value in values if value is not None), None)


def _mib(found: Mapping[str, str], path: str) -> int | None:
    value = amount(r"([0-9]{1,9}) ?MiB", found.get(path, ""))
    return None if value is None else int(value) * MIB


def _from_csv(text: str) -> list[Card]:
    lines = [line for line in text.splitlines() if line.count(",") > 1]
    if not lines:
        return []
    try:
        header, *table = csv.reader(lines)
    except csv.Error:
        return []
    names = [name.split("[")[0].strip() for name in header]
    found = [dict(zip(names, map(str.strip, row), strict=False)) for row in table]
    return [_csv_card(row) for row in found if row.get("name")]


def _csv_card(row: Mapping[str, str]) -> Card:
    errors = number(row.get("ecc.errors.uncorrected.volatile.total", ""))
    action = row.get("gpu_recovery_action", "")
    asked = f"recovery action asked for: {action[:60]}" if action not in _NO_ACTION else ""
    return Card(
        index=row.get("index", "0"),
        name=row["name"],
        memory_total=_mib(row, "memory.total"),
        memory_used=_mib(row, "memory.used"),
        driver=row.get("kmd_version") or row.get("driver_version", ""),
        health=asked or (_errors(int(errors or 0)) if errors is not None or action else ""),
        utilisation=_first(row, "utilization.gpu"),
        power_w=_first(row, "power.draw", "power.draw.instant"),
        power_limit_w=_first(row, "enforced.power.limit", "power.limit"),
        temperature_c=_first(row, "temperature.gpu"),
        bus_id=bus(row.get("pci.bus_id", "")),
    )


def _from_list(text: str) -> list[Card]:
    cards: list[Card] = []
    for line in text.splitlines():
        if gpu := _LISTED.match(line):
            cards.append(Card(gpu[1], gpu[2], fields={"uuid": gpu[3]}))
        elif cards and (part := _SLICE.match(line)):
            made = Slice(part[1], part[2], part[3])
            cards[-1] = replace(cards[-1], slices=(*cards[-1].slices, made))
    return cards
