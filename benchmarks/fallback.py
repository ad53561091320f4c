"""One operator that only the CPU has: how many partitions it costs, and whether its price is right.

    python -m benchmarks.fallback [--arch Ascend310P3] [--precision fp16] [--runs 40]

Each model runs on an emulated chip whose table lacks the operator named, and on ONNX Runtime for
that one. Emulated sessions are paced to the chip's estimated time; where this CPU needs longer than
the chip would, the overrun is taken off: measured = wall clock - overrun, the mean of the fastest
quarter of the calls. The chip's share is so as predicted by construction; the CPU's, the calls
and the walk are measured.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from models import Builder, feeds

import autoglm
from autoglm import registry
from autoglm.runtime.timing import Samples
from autoglm.spec import Capabilities

Middle = Callable[[Builder, str], str]


@dataclass(frozen=True, slots=True)
class Row:
    """A model with `op` in its middle: an encoder layer of 128 tokens, or a convolutional net."""

    op: str
    middle: Middle
    image: bool = False


def plain(op: str, **attributes: Any) -> Middle:
    """The operator on the hidden state alone."""
    return lambda b, x: str(b.op(op, x, name="only-cpu", **attributes))


def cumulative(b: Builder, x: str) -> str:
    """A running sum over the tokens."""
    return str(b.op("CumSum", x, b.constant(1, np.int64), name="only-cpu"))


def recurrent(b: Builder, x: str) -> str:
    """A GRU over the tokens."""
    x = str(b.op("Transpose", x, perm=[1, 0, 2]))
    weights = b.weight(1, 3 * 64, 384), b.weight(1, 3 * 64, 64)
    y = str(b.op("GRU", x, *weights, name="only-cpu", hidden_size=64))
    y = str(b.op("Reshape", y, b.constant([1, 128, 64], np.int64)))
    return str(b.op("MatMul", y, b.weight(64, 384)))


def upward(b: Builder, x: str) -> str:
    """Twice as many rows and columns, by a product."""
    return str(b.op("ConvTranspose", x, b.weight(64, 64, 2, 2), name="only-cpu", strides=[2, 2]))


def sorted_rows(b: Builder, x: str) -> str:
    """The largest 16 of each row, and a product that widens them again."""
    values, _ = b.op("TopK", x, b.constant([16], np.int64), name="only-cpu", outputs=2)
    return str(b.op("MatMul", values, b.weight(16, 384)))


ROWS = (
    Row("Erf", plain("Erf")),
    Row("Sin", plain("Sin")),
    Row("Tanh", plain("Tanh")),
    Row("CumSum", cumulative),
    Row("GRU", recurrent),
    Row("TopK", sorted_rows),
    Row("MaxPool", plain("MaxPool", kernel_shape=[3, 3], strides=[2, 2]), image=True),
    Row("AveragePool", plain("AveragePool", kernel_shape=[3, 3], strides=[2, 2]), image=True),
    Row("LRN", plain("LRN", size=5), image=True),
    Row("ConvTranspose", upward, image=True),
)


def model_of(row: Row) -> Any:
    """The operator between two halves that every chip has."""
    b = Builder(opset=17)
    if row.image:
        x = b.input("x", [1, 3, 56, 56])
        for inside in (3, 64, 64):
            x = b.op("Relu", b.op("Conv", x, b.weight(64, inside, 3, 3), pads=[1] * 4))
        x = row.middle(b, x)
        for _ in range(2):
            x = b.op("Relu", b.op("Conv", x, b.weight(64, 64, 3, 3), pads=[1] * 4))
        return b.model(b.op("GlobalAveragePool", x))
    x = b.input("x", [1, 128, 384])
    x = b.op("MatMul", b.op("MatMul", x, b.weight(384, 1536)), b.weight(1536, 384))
    x = row.middle(b, x)
    return b.model(b.op("MatMul", b.op("MatMul", x, b.weight(384, 1536)), b.weight(1536, 384)))


def without(op: str) -> Any:
    """The emulated backend, less one operator of every chip."""
    plug = type(registry.backend("emulated"))

    class Lacking(plug):  # type: ignore[misc, valid-type]
        def capabilities(self, arch: str = "") -> Capabilities:
            table = super().capabilities(arch)
            return replace(table, table={k: v for k, v in table.table.items() if k != op})

    return Lacking()


def timed(row: Row, arguments: argparse.Namespace, work: Path) -> tuple[int, float, float]:
    """Partitions, predicted and measured seconds."""
    whole = registry.backend("emulated")
    registry.register_backend(without(row.op))
    try:
        model = model_of(row)
        result = autoglm.compile(
            model,
            work / row.op,
            backend="emulated",
            arch=arguments.arch,
            precision=arguments.precision,
            fallback_policy=["onnxruntime"],
            accept_accuracy=True,
            settings={"pace": "true"},
        )
    finally:
        registry.register_backend(whole)
    plan = result.report.plan
    values = feeds(model)
    with autoglm.open(work / row.op) as session:
        chips = [session.part(p.id) for p in plan.partitions if p.chip]
        samples = [call(session, chips, values) for _ in range(arguments.runs)]
    return len(plan.partitions), plan.seconds, Samples(tuple(samples[5:])).estimate


def call(session: Any, chips: list[Any], values: dict[str, Any]) -> float:
    """Seconds of one call, less what the emulation took longer than the chip would."""
    before = sum(c.overrun_s for c in chips)
    started = time.perf_counter()
    session.run(values)
    took = time.perf_counter() - started
    return took - (sum(c.overrun_s for c in chips) - before)


def main() -> None:
    """Print a line a model; exit status 1 where a plan has more than 2 extra partitions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="Ascend310P3")
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--runs", type=int, default=40)
    arguments = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores\n")
    print(f"{'only on the CPU':18}{'partitions':>11}{'predicted':>12}{'measured':>12}{'ratio':>8}")
    ratios, most = [], 0
    with tempfile.TemporaryDirectory() as work:
        os.environ["AUTOGLM_CACHE_DIR"] = work  # speeds are measured now, not read
        for row in ROWS:
            count, predicted, measured = timed(row, arguments, Path(work))
            ratios.append(predicted / measured)
            most = max(most, count)
            times = f"{1e6 * predicted:>9.0f} us{1e6 * measured:>9.0f} us"
            print(f"{row.op:18}{count:>11}{times}{ratios[-1]:>8.2f}", flush=True)
    inside = sum(0.7 <= r <= 1.3 for r in ratios)
    print(
        f"\nwithin +-30 %: {inside} of {len(ratios)}; geometric mean {geometric_mean(ratios):.2f}"
    )
    print(f"load after: {os.getloadavg()[0]:.2f}; more load than 0.5 makes these figures worthless")
    sys.exit(most > 3)


if __name__ == "__main__":
    main()
