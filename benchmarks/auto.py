"""`backend: auto` against every single engine, in one interleaved run, with an A/A control.

    python -m benchmarks.auto [--models …] [--batches 1,8] [--json out.json]
    python -m benchmarks.auto --precision auto --max-error 2e-2      # the budget cases
    python -m benchmarks.auto --precision auto --max-error 1e-1

Each engine is used directly through its own API at its fp32 settings. `auto` is what
`autoglm.compile` chose. Every side is opened twice, since a session's luck with memory pages alone
moves it by up to a fifth here, and the faster one counts; a time is the mean of the fastest quarter
of the calls. Read no ratio finer than the A/A column, the two ONNX Runtime sessions' own.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

import autoglm
from autoglm.runtime.timing import interleave
from benchmarks import models

Feeds = dict[str, np.ndarray]


def raw_onnxruntime(path: Path, feeds: Feeds) -> Callable[[], object]:
    """ONNX Runtime with its defaults, but no spinning after a run: engines take turns here."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, feeds)


def raw_openvino(path: Path, feeds: Feeds) -> Callable[[], object]:
    """OpenVINO at fp32 (its own default here is bf16)."""
    import openvino as ov

    compiled = ov.Core().compile_model(
        str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    )
    request = compiled.create_infer_request()
    for name, array in feeds.items():
        request.set_tensor(name, ov.Tensor(array, shared_memory=True))
    return request.infer


ENGINES = {"onnxruntime": raw_onnxruntime, "openvino": raw_openvino}


def row(name: str, batch: int, args: argparse.Namespace, work: Path) -> dict[str, object]:
    """One model: what auto chose, and the times of all sides in one run."""
    path = models.path_of(name, batch, args.folder)
    feeds = models.feeds_of(path)
    options: dict[str, object] = {"precision": args.precision}
    if args.max_error:
        options["max_error"] = args.max_error
    if args.precision == "auto":
        options |= {"calibration": str(_samples(name, path, work))}
    result = autoglm.compile(path, work / f"{name}-{batch}", backend="auto", **options)
    chosen = next(m for m in result.measurements if m.chosen)
    with autoglm.open(result.folder) as one, autoglm.open(result.folder) as two:
        sides = {engine: (raw(path, feeds), raw(path, feeds)) for engine, raw in ENGINES.items()}
        sides["auto"] = (lambda: one.run(feeds), lambda: two.run(feeds))
        calls = {f"{side} {i}": call for side, pair in sides.items() for i, call in enumerate(pair)}
        samples = interleave(calls, budget_s=args.budget, least=7, gap_s=0.02)
    pairs = {k: (samples[f"{k} 0"].estimate, samples[f"{k} 1"].estimate) for k in sides}
    times = {k: min(pair) for k, pair in pairs.items()}
    best = min(times[e] for e in ENGINES)
    return {
        "model": name,
        "batch": batch,
        "chosen": chosen.candidate,
        "error": chosen.max_relative_error,
        "ms": {k: v * 1e3 for k, v in times.items()},
        "auto/best": times["auto"] / best,
        "auto/ort": times["auto"] / times["onnxruntime"],
        "aa": max(pairs["onnxruntime"]) / min(pairs["onnxruntime"]),
        "rejected": {m.candidate: m.reason for m in result.measurements if m.median_s is None},
    }


def _samples(name: str, path: Path, work: Path) -> Path:
    """Calibration feeds: real sentences for MiniLM, seeded ones of the model's own kind for
    random weights.
    """
    folder = work / f"{path.stem}-samples"
    folder.mkdir(exist_ok=True)
    for seed in range(16):
        feeds = (
            models.sentence_feeds(path, seed)
            if name == "minilm"
            else models.feeds_of(path, 900 + seed)
        )
        np.savez(folder / f"{seed:02}.npz", **feeds)
    return folder


def main() -> None:
    """Print the table, and the geometric means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=",".join(models.NAMES))
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--max-error", type=float, default=None)
    parser.add_argument("--budget", type=float, default=6.0, help="seconds of timing a model")
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()) / "autoglm-models"
    )
    args = parser.parse_args()
    rows = []
    print(
        f"{'model':14}{'ORT ms':>9}{'OV ms':>9}{'auto ms':>9}"
        f"{'auto/best':>10}{'auto/ORT':>9}{'A/A':>6}  chosen"
    )
    for batch in (int(b) for b in args.batches.split(",")):
        for name in args.models.split(","):
            with tempfile.TemporaryDirectory(dir=args.folder.parent) as work:
                one = row(name, batch, args, Path(work))
            rows.append(one)
            ms = one["ms"]
            print(
                f"{name + ' b' + str(batch):14}{ms['onnxruntime']:9.2f}{ms['openvino']:9.2f}"
                f"{ms['auto']:9.2f}"
                f"{one['auto/best']:10.2f}{one['auto/ort']:9.2f}{one['aa']:6.2f}  {one['chosen']}"
                f" (error {one['error']:.1e})",
                flush=True,
            )
            if args.json:
                args.json.write_text(json.dumps(rows, indent=1))
    for key in ("auto/best", "auto/ort", "aa"):
        mean = math.exp(sum(math.log(r[key]) for r in rows) / len(rows))
        print(f"geometric mean {key}: {mean:.3f} (worst {max(r[key] for r in rows):.3f})")


if __name__ == "__main__":
    main()
