"""What `model_tool --info` prints of a BModel: edges and memory."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from autoglm.errors import CompileError

_CHIP = re.compile(r"^chip:\s*(\S+)", re.M)
_EDGE = re.compile(r"^(input|output):\s*(.+?),\s*\[([^\]]*)\],\s*(\w+)", re.M)
_MEMORY = re.compile(r"^(device|host) mem size:\s*(\d+)\s*(?:\(([^)]*)\))?", re.M)
_PART = re.compile(r"(\w+):\s*(\d+)")


@dataclass(frozen=True, slots=True)
class Description:
    """One BModel."""

    chip: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    memory: Mapping[str, int] = field(default_factory=dict)  # bytes, by what holds them


def describe(text: str) -> Description:
    """Read the listing; what is not in it stays empty."""
    chip = _CHIP.search(text)
    edges: dict[str, list[str]] = {"input": [], "output": []}
    for side, name, *_ in _EDGE.findall(text):
        edges[side].append(name)
    memory = {}
    for where, total, parts in _MEMORY.findall(text):
        memory[where] = int(total)
        memory.update({f"{where}.{part}": int(size) for part, size in _PART.findall(parts)})
    return Description(
        chip[1] if chip else "", tuple(edges["input"]), tuple(edges["output"]), memory
    )


def matched(found: Description, count: int) -> tuple[str, ...]:
    """The BModel's names of our outputs out0, out1, …: it keeps their order and lengthens their
    names, by the operator, the dtype and what it fused.
    """
    pairs = list(enumerate(found.outputs))
    if len(pairs) != count or not all(re.search(rf"out{i}(?!\d)", name) for i, name in pairs):
        raise CompileError(
            "The BModel's outputs are {found}; {count} were asked for.",
            found=", ".join(found.outputs) or "none",
            count=count,
        )
    return found.outputs
