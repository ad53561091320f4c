"""Chips as data: what their makers publish, one TOML file a vendor.

Memory is the datasheet's "GB" taken as GiB, which is what device tools report; rates are dense
(the half of a figure quoted "with sparsity"). Every figure names its source: one of
`[read."date"]` was seen on that day and says the figure; one of `[sources]` is known to publish
it, but the figure was written down from memory.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from autoglm.errors import ConfigError
from autoglm.spec import Chip

FOLDER = Path(__file__).parent / "chips"
_TUPLES = ("formats", "collectives", "aliases", "precisions", "lacks", "layouts")
_FIGURES = ("memory_bytes", "bandwidth_gbps", "watts", "link_gbps")
_STATED = (*_FIGURES, "lacks", "alignment", "layouts")
GIVEN, RECALLED = "specification", "recalled"


@cache
def chips() -> Mapping[str, Chip]:
    """Every chip of the catalog by name."""
    found = [chip for path in sorted(FOLDER.glob("*.toml")) for chip in _read(path)]
    return {chip.name: chip for chip in found}


def chip(name: str) -> Chip:
    """The chip of that name or alias, in any case; ConfigError names near ones."""
    if found := find(name):
        return found
    near = difflib.get_close_matches(plain(name), _names(), n=5, cutoff=0.5)
    raise ConfigError(
        "Unknown chip {name!r}; near ones: {near}.",
        hint="`autoglm devices --catalog` lists every chip.",
        name=name,
        near=", ".join(dict.fromkeys(_names()[n].name for n in near)) or "none",
    )


def find(name: str) -> Chip | None:
    """The chip of that name or alias, in any case; None where there is none."""
    return _names().get(plain(name))


def default_chip(backend: str) -> Chip | None:
    """The chip that a backend plans for where none is named."""
    return _defaults().get(backend)


def plain(name: str) -> str:
    """A name as it is compared: lower case, letters, digits and the plus sign only."""
    return "".join(c for c in name.lower() if c.isalnum() or c == "+")


@cache
def _names() -> Mapping[str, Chip]:
    found: dict[str, Chip] = {}
    for item in chips().values():
        for name in (item.name, *item.aliases):
            found.setdefault(plain(name), item)
    return found


@cache
def _defaults() -> Mapping[str, Chip]:
    found = {}
    for path in sorted(FOLDER.glob("*.toml")):
        document = _load(path)
        if name := document.get("default"):
            found[document["backend"]] = chips()[name]
    return found


@cache
def _load(path: Path) -> Mapping[str, Any]:
    return tomllib.loads(path.read_text("utf-8"))


def _read(path: Path) -> list[Chip]:
    document = _load(path)
    apart = ("chip", "sources", "read", "default")
    shared = {k: v for k, v in document.items() if k not in apart}
    titles = {key: (title, RECALLED) for key, title in document.get("sources", {}).items()}
    for day, read in document.get("read", {}).items():
        titles |= {key: (title, f"read {day}") for key, title in read.items()}
    titles[GIVEN] = (GIVEN, GIVEN)
    return [_chip({**shared, **entry}, titles) for entry in document["chip"]]


def _chip(entry: Mapping[str, Any], titles: Mapping[str, tuple[str, str]]) -> Chip:
    data = dict(entry)
    whole = data.pop("source", "")
    if "memory_gib" in data:
        data["memory_bytes"] = int(data.pop("memory_gib") * 2**30)
    own = data.pop("source_of", {})
    given = [*(f for f in _STATED if data.get(f)), *data.get("peak_tflops", ())]
    found = {figure: titles[own.get(figure, whole)] for figure in given}
    data["sources"] = {figure: title for figure, (title, _) in found.items()}
    data["evidence"] = {figure: grade for figure, (_, grade) in found.items()}
    values: dict[str, Any] = {k: tuple(v) if k in _TUPLES else v for k, v in data.items()}
    return Chip(**values)
