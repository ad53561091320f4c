"""Tiny bundles whose answer tells which one answered: y = x * factor."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import numpy as np
import onnx
from models import Builder

from autoglm import api


@functools.cache
def _compiled(factor: float, weights: int, backend: str) -> Path:
    place = Path(tempfile.mkdtemp(prefix="autoglm-test-bundle-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    build = Builder()
    x = build.input("x", ["n", 4])
    scale = np.full(weights, factor, np.float32)
    held = build.constant(scale, name="scale")
    first = build.op("Slice", held, *(build.constant(np.int64([i])) for i in (0, 1)))
    y = build.op("Mul", x, first)
    onnx.save(build.proto(y), place / "model.onnx")
    # Unfolded, so that `weights` numbers are really in the bundle.
    api.compile(place / "model.onnx", place / "out", backend=backend, passes={"fold": False})
    return place / "out"


def bundle(folder: Path, factor: float = 1.0, *, weights: int = 4, backend: str = "numpy") -> Path:
    """A bundle at `folder`: x [n, 4] float32 -> x * factor."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(_compiled(factor, weights, backend), folder)
    return folder


def corrupt(folder: Path) -> None:
    """Change one byte of the largest artifact; its size stays."""
    files = [p for p in (folder / "artifacts").rglob("*") if p.is_file()]
    victim = max(files, key=lambda p: p.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 0xFF
    victim.write_bytes(bytes(data))


X = np.arange(8, dtype=np.float32).reshape(2, 4)
