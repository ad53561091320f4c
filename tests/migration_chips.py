"""Chips that are not here, and a model, for the tests of the migration report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import models
import onnx_ir as ir

from autoglm import registry
from autoglm.errors import ConfigError
from autoglm.spec import Capabilities, Chip, Constraint, Device, Evidence, no, yes


@dataclass
class Npu:
    """A chip that takes what ONNX Runtime takes, less `lacks`; nothing of it is installed."""

    name: str
    lacks: tuple[str, ...] = ()
    has: tuple[str, ...] = ("fp32", "fp16")
    api_version: int = 1

    def probe(self) -> Sequence[Device]:
        return []

    def version(self) -> str:
        return ""

    def capabilities(self, arch: str = "") -> Capabilities:
        if arch not in ("", "Big"):
            raise ConfigError("Unknown chip {name!r}.", name=arch)
        table = registry.backend("onnxruntime").capabilities()
        rules = {op: rule for op, rule in table.table.items() if op not in self.lacks}
        told = {
            p: yes() if p in self.has else no(Constraint.PRECISION, f"it has no {p}")
            for p in ("fp32", "fp16", "bf16", "int8")
        }
        chip = Chip(
            arch or "Small",
            "maker",
            self.name,
            "npu",
            memory_bytes=2**33,
            bandwidth_gbps=500.0 if arch else 50.0,
            peak_tflops={"fp32": 20.0, "fp16": 40.0},
            watts=75.0,
            link_gbps=16.0,
        )
        return replace(
            Capabilities(self.name, f"{self.name} 1.0", rules, evidence=Evidence.DOCUMENT),
            precisions=told,
            chip=chip,
            formats=("npu-bin",),
        )


@contextmanager
def three_chips() -> Iterator[None]:
    """Registers alpha, which takes all; beta without two operators; gamma in fp32 only."""
    plugs = (Npu("alpha"), Npu("beta", ("MaxPool", "Relu")), Npu("gamma", (), ("fp32",)))
    for plug in plugs:
        registry.register_backend(plug)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for plug in plugs:
            registry._load(registry.BACKENDS)[0].pop(plug.name)


def wide_cnn(folder: Path) -> Path:
    """A model with enough work for a chip to be worth its calls."""
    path = folder / "cnn.onnx"
    ir.save(models.cnn(channels=64, size=128), path)
    return path
