"""Servers side by side in one interleaved run: each once, then each again; medians and ratios."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from autoglm.serve.load.tally import Load
from autoglm.settings import Settings
from benchmarks.serving.common import Served, save, table

CONCURRENCY = (1, 16, 64)
OURS = "autoglm"


def timed(
    served: Served, press: Callable[[int, float], Load], seconds: float
) -> list[dict[str, object]]:
    """Load at each concurrency, after a warm-up: its figures, and the server's CPU and memory."""
    press(16, min(seconds, 1.0))
    rows: list[dict[str, object]] = []
    for concurrency in CONCURRENCY:
        before = served.cpu_s()
        load = press(concurrency, seconds)
        used = served.cpu_s() - before
        rows.append(
            {
                "c": concurrency,
                "per_s": load.per_s,
                "p50_ms": load.p50_ms,
                "p99_ms": load.p99_ms,
                "cpu_us": used / max(load.requests, 1) * 1e6,
                "cold_s": served.cold_s,
                "pss_mb": served.pss_mb(),
                "errors": load.errors,
                "faults": {code: fault.message for code, fault in load.faults.items()},
                "generator": load.generator_busy,
            }
        )
    return rows


HEAD = (
    "server", "c", "per_s", "p50_ms", "p99_ms", "cpu_us", "cold_s", "pss_mb", "errors", "generator"
)  # fmt: skip
RATIOS = ("server", "c", "ours/theirs per_s", "theirs/ours p99", "theirs/ours cpu")


Server = TypeVar("Server")
Row = dict[str, object]


def compare(
    name: str,
    peers: Mapping[str, Callable[[], Server]],
    servers: Sequence[Server],
    rows: Callable[[Server, float], list[Row]],
) -> int:
    """The command line that the comparisons have in common: a line for each server and concurrency,
    and our ratio to each. A peer's first word is its package.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="one round of a second each")
    parser.add_argument("--prepare", action="store_true", help="one answer of each, and the end")
    parser.add_argument("--peers", default="all", help="none, all, or names with commas")
    parser.add_argument("--seconds", type=float, default=2.5, help="for each concurrency")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    begun = time.monotonic()
    wanted = {"none": [], "all": list(peers)}.get(args.peers, args.peers.split(","))
    every = [*servers]
    for peer in wanted:
        every += _tried(peer, lambda peer=peer: [peers[peer]()])
    seconds = 0.0 if args.prepare else 1.0 if args.quick else args.seconds
    found: list[Row] = []
    for _ in range(1 if args.quick or args.prepare else args.rounds):
        for one in every:
            found += _tried(str(one), partial(rows, one, seconds))
    if args.prepare:
        table(["server", "cold_s", "pss_mb"], found)
        return 0
    save(name, found)
    medians = middle(found)
    table(HEAD, medians)
    print()
    table(RATIOS, ratios(medians))
    packages = sorted({n.split()[0] for n in wanted})
    print("\n" + ", ".join([*map(version, packages), f"{time.monotonic() - begun:.0f} s"]))
    return 0


def _tried(what: str, work: Callable[[], list[Any]]) -> list[Any]:
    """What `work` gives; where a peer is not installed, does not start or answers wrong, that is
    said, not hidden.
    """
    try:
        return work()
    except (SystemExit, Exception) as error:
        print(f"{what}: {error}", file=sys.stderr)
        return []


def middle(rows: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """The median of each server's rounds, figure by figure."""
    found: list[dict[str, object]] = []
    for name in dict.fromkeys(str(r["server"]) for r in rows):
        for c in CONCURRENCY:
            own = [r for r in rows if (r["server"], r["c"]) == (name, c)]
            figures = {key: median(float(str(r[key])) for r in own) for key in HEAD[2:] if own}
            if own:
                found.append({"server": name, "c": c, **figures})
    return found


def ratios(rows: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """Each server's medians against ours; above 1, ours is better."""
    by = {(str(r["server"]), r["c"]): r for r in rows}
    found: list[dict[str, object]] = []
    for (name, c), row in by.items():
        own = by.get((OURS, c))
        if name == OURS or own is None:
            continue
        found.append(
            {
                "server": name,
                "c": c,
                RATIOS[2]: _over(own, row, "per_s"),
                RATIOS[3]: _over(row, own, "p99_ms"),
                RATIOS[4]: _over(row, own, "cpu_us"),
            }
        )
    return found


def _over(a: Mapping[str, object], b: Mapping[str, object], key: str) -> float:
    below = float(str(b[key]))
    return float(str(a[key])) / below if below else float("nan")


def environment(name: str) -> Path:
    """The Python of a peer's own virtual environment, made once, outside the repository."""
    place = Settings.read().cache_dir / "bench-peers" / name
    python = place / "bin" / "python"
    if not (place / ".made").exists():
        print(f"making {place}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
        packages = [name, "onnxruntime", "numpy"]
        subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
        (place / ".made").touch()
    return python


def version(name: str) -> str:
    """A peer and the version of it in its environment."""
    asked = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
    argv = [str(environment(name)), "-c", asked, name]
    return f"{name} {subprocess.run(argv, capture_output=True, text=True).stdout.strip()}"
