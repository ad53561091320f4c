"""What a chip takes: its catalog entry, its vendor's own table, and what it sums products in.

The table comes from the vendor's backend, reached as everybody reaches one: by its entry point.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, entry_points
from importlib.metadata import version as installed
from pathlib import Path

from autoglm.catalog.chips import chip, default_chip
from autoglm.errors import AutoGLMError, BackendUnavailableError
from autoglm.spec import Backend, Capabilities, Chip, Constraint, Device, Support, no

_GROUP = "autoglm.backends"
_DEFAULT = "sophon"  # whose default chip is emulated where none is named
# int8 is calibrated ahead of time here; ranges taken anew at each call are not emulated.
EMULATED = ("fp32", "fp16", "bf16", "int8")
_ROUNDED = {
    "fp32": "in float32",
    "fp16": "every operator's output rounded to float16",
    "bf16": "every operator's output rounded to bfloat16",
    "int8": "the factors of products rounded to int8",
}


@dataclass(frozen=True, slots=True)
class Profile:
    """One chip as the emulation enforces it."""

    chip: Chip
    table: Capabilities
    accumulator: str  # "" = its vendor publishes nothing that was found

    def remark(self, precision: str) -> str:
        """What a user must know of every answer and every time."""
        sums = self.accumulator or "float32, which is assumed"
        return (
            f"emulated: {self.chip.name} on this machine's CPU; {_ROUNDED[precision]}, sums in "
            f"{sums}; times here are not the chip's"
        )


def version() -> str:
    """Version of the onnxruntime beneath; "" where it is not installed."""
    try:
        return installed("onnxruntime")
    except PackageNotFoundError:
        return ""


def list_devices() -> list[Device]:
    """One row that is no device: which chips can be emulated here."""
    if not version():
        return []
    facts = {"emulated": "any chip of the catalog: --backend emulated --arch NAME"}
    text = "emulated chips (on the CPU)"
    return [Device("npu", text, "emulated", "emulated", present=False, facts=facts)]


@cache
def profile(arch: str) -> Profile:
    """The chip of that name or alias; ConfigError where the catalog has none."""
    found = chip(arch) if arch else default_chip(_DEFAULT)
    assert found is not None, f"the catalog names no default chip of {_DEFAULT}"
    table = _vendor(found.backend).capabilities(arch or found.name)
    marked = replace(
        table,
        backend="emulated",
        toolkit=f"emulated {found.name} ({table.toolkit})",
        precisions={name: _precision(found, name, s) for name, s in table.precisions.items()},
        layouts=("NCHW",),
        memory_bytes=table.memory_bytes or found.memory_bytes,
        formats=("emulated-onnx",),
        collectives=(),
        chip=found,
    )
    return Profile(found, marked, _accumulators().get(found.backend, ""))


def _precision(of: Chip, name: str, support: Support) -> Support:
    if name in of.lacks:
        return no(Constraint.PRECISION, f"{of.name} has no {name}")
    if name not in EMULATED:
        return no(
            Constraint.PRECISION, f"the emulation has no {name}; it has {', '.join(EMULATED)}"
        )
    return support


def _vendor(name: str) -> Backend:
    point = next((p for p in entry_points(group=_GROUP) if p.name == name), None)
    try:
        if point is not None:
            return point.load()()  # type: ignore[no-any-return]
        cause = "it is not registered"
    except AutoGLMError:
        raise
    except Exception as error:  # a plug-in may raise anything while it loads
        cause = f"{type(error).__name__}: {error}"
    raise BackendUnavailableError(
        "A chip is emulated by the table of its vendor's backend; {name} does not load: {cause}.",
        hint="`autoglm backends` lists the backends that load.",
        name=name,
        cause=cause,
    )


@cache
def _accumulators() -> Mapping[str, str]:
    text = (Path(__file__).parent / "accumulators.toml").read_text("utf-8")
    return {name: str(row["accumulator"]) for name, row in tomllib.loads(text).items()}
