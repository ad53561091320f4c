"""The CPU itself: from /proc and /sys, without a process; and from lscpu's text where given."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from autoglm.catalog.cards import clean
from autoglm.catalog.pci import ROOT

# What engines choose their kernels by.
ISA = (
    *("sse4_2", "avx", "avx2", "f16c", "fma", "avx_vnni", "avx512f", "avx512_vnni"),
    *("avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8", "amx_fp16"),
    *("asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2", "lasx", "lsx", "v"),
)
_SIZE = {"K": 2**10, "M": 2**20, "G": 2**30}
_MOST = 100_000


@dataclass(frozen=True, slots=True)
class Cpu:
    """Model, cores, NUMA nodes, caches and ISA flags; 0, {} and "" are what is not known."""

    arch: str = ""
    model: str = ""
    threads: int = 0
    cores: int = 0
    sockets: int = 0
    numa_nodes: int = 0
    flags: frozenset[str] = frozenset()
    caches: Mapping[str, int] = field(default_factory=dict)  # L1d -> bytes in all

    def to_dict(self) -> dict[str, Any]:
        """JSON; of the flags only those that engines choose kernels by."""
        return {**asdict(self), "flags": [f for f in ISA if f in self.flags]}


def here(root: Path = ROOT) -> Cpu:
    """This machine's CPU."""
    lines = _text(root / "proc/cpuinfo").splitlines()
    fields = [(k.strip(), v.strip()) for k, _, v in (line.partition(":") for line in lines)]
    first = dict(reversed(fields))
    sockets = {v for k, v in fields if k == "physical id"}
    threads = sum(k == "processor" for k, _ in fields)
    return Cpu(
        arch=platform.machine(),
        model=first.get("model name") or first.get("Model") or first.get("CPU implementer", ""),
        threads=threads,
        cores=_cores(root) or threads,
        sockets=len(sockets) or (1 if threads else 0),
        numa_nodes=len(list((root / "sys/devices/system/node").glob("node[0-9]*"))),
        flags=frozenset((first.get("flags") or first.get("Features") or "").split()),
        caches=_caches(root),
    )


def _cores(root: Path) -> int:
    """Cores, where siblings that share one are counted once."""
    paths = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/topology/core_cpus_list")
    return len({_text(path) for path in paths} - {""})


def _caches(root: Path) -> dict[str, int]:
    found: dict[tuple[str, str], int] = {}
    for folder in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cache/index[0-9]*"):
        kind = {"Data": "d", "Instruction": "i"}.get(_text(folder / "type"), "")
        name = f"L{_text(folder / 'level')}{kind}"
        found[name, _text(folder / "shared_cpu_list")] = _bytes(_text(folder / "size"))
    names = sorted({name for name, _ in found})
    return {n: sum(size for (name, _), size in found.items() if name == n) for n in names}


def parse_lscpu(text: str) -> Cpu:
    """`lscpu -J`, or `lscpu -p` (counts only); an empty Cpu where it is neither."""
    text = clean(text)
    fields = _json_fields(text)
    if fields is None:
        return _parsable(text)
    cores = _count(fields, "Core(s) per socket")
    sockets = _count(fields, "Socket(s)")
    return Cpu(
        arch=fields.get("Architecture", ""),
        model=fields.get("Model name", ""),
        threads=_count(fields, "CPU(s)"),
        cores=cores * sockets,
        sockets=sockets,
        numa_nodes=_count(fields, "NUMA node(s)"),
        flags=frozenset(fields.get("Flags", "").split()),
        caches={
            name.removesuffix(" cache"): _bytes(value)
            for name, value in fields.items()
            if name.endswith(" cache")
        },
    )


def _json_fields(text: str) -> dict[str, str] | None:
    try:
        rows = json.loads(text)["lscpu"]
        return {str(row["field"]).rstrip(":"): str(row["data"]) for row in _flat(rows)}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _flat(rows: Any) -> list[Any]:
    """Newer lscpu nests its rows below `children`."""
    return [r for row in rows for r in (row, *_flat(row.get("children", ())))]


def _parsable(text: str) -> Cpu:
    lines = [line.split(",") for line in text.splitlines() if re.match(r"[0-9]+,", line)]
    columns = [line[:4] for line in lines[:_MOST] if len(line) >= 4]
    return Cpu(
        threads=len(columns),
        cores=len({(c[2], c[1]) for c in columns}),
        sockets=len({c[2] for c in columns}),
        numa_nodes=len({c[3] for c in columns} - {""}),
    )


def _count(fields: Mapping[str, str], name: str) -> int:
    value = fields.get(name, "")
    return int(value) if re.fullmatch(r"[0-9]{1,6}", value) else 0


def _bytes(text: str) -> int:
    found = re.match(r"([0-9]{1,9}(?:\.[0-9]+)?)\s*([KMG])", text)
    return int(float(found[1]) * _SIZE[found[2]]) if found else 0


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
