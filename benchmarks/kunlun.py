"""The Kunlun route on the CPU: every model through Paddle Inference against fp32.

    python -m benchmarks.kunlun [--models resnet50 bert ...] [--folder DIR] [--out FILE.json]

It needs the Paddle environment (`autoglm toolchain install paddle`). Each model is compiled whole
by our own ONNX-to-Paddle mapping and run by Paddle Inference on the CPU: the chip's route, not the
chip. The reference is ONNX Runtime in fp32. Exit status 1 when the bar is missed: a largest error,
relative to the output's largest value, of at most 1e-4 on every model.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from autoglm import registry
from autoglm.errors import AutoGLMError
from autoglm.spec import CompileOptions, RunOptions
from benchmarks.models import LIGHT, feeds_of, path_of

BAR = 1e-4
MODELS = (*LIGHT, "bert", "minilm", "block")
SEEDS = 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", default=MODELS)
    parser.add_argument("--folder", type=Path, default=Path("out/models"))
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    print(f"{'model':14} {'max relative':>12} {'max absolute':>12} {'cosine':>12}")
    found = {}
    for name in options.models:
        row = found[name] = measure(path_of(name, 1, options.folder))
        text = row.get("error") or (
            f"{row['relative']:12.2e} {row['absolute']:12.2e} {row['cosine']:12.9f}"
        )
        print(f"{name:14} {text}", flush=True)
    missed = [n for n, row in found.items() if not row.get("relative", np.inf) <= BAR]
    print(f"bar ({BAR:g} on every model): {'MISSED: ' + ', '.join(missed) if missed else 'met'}")
    if options.out:
        Path(options.out).write_text(json.dumps(found, indent=1))
    return 1 if missed else 0


def measure(path: Path) -> dict[str, Any]:
    """The worst output over the seeds."""
    model = registry.frontends()["onnx"].load(str(path))
    feeds = [feeds_of(path, seed) for seed in range(SEEDS)]
    try:
        wanted, got = (answers(name, model, feeds) for name in ("onnxruntime", "kunlun"))
    except AutoGLMError as error:
        return {"error": f"{error.code}: {error}"}
    pairs = [(w[n], g[n]) for w, g in zip(wanted, got, strict=True) for n in w]
    return {
        "relative": max(float(np.abs(w - g).max() / np.abs(w).max()) for w, g in pairs),
        "absolute": max(float(np.abs(w - g).max()) for w, g in pairs),
        "cosine": min(cosine(w, g) for w, g in pairs),
    }


def answers(backend: str, model: Any, feeds: list[Any]) -> list[dict[str, Any]]:
    """What that backend answers."""
    plug = registry.backend(backend)
    with tempfile.TemporaryDirectory() as folder:
        artifact = plug.compile(model, CompileOptions(), Path(folder))
        session: Any = plug.open(artifact, Path(folder), RunOptions())
        with session:
            return [session.run(feed) for feed in feeds]


def cosine(a: Any, b: Any) -> float:
    """Of the two answers as vectors."""
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


if __name__ == "__main__":
    sys.exit(main())
