"""How long the migration report takes, from the command line, with no toolkit installed.

`python -m benchmarks.migration` plans MiniLM and ResNet-50 from cuda to all five others, each in
a process of its own with an empty cache folder, so that no vendor toolchain is found and this
machine's speeds are measured anew. Bar: 10 s.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.models import path_of

CHIPS = "ascend:Ascend910B3,sophon:BM1684X,kunlun:P800,cambricon:MLU370-X8,openvino"
BAR_S = 10.0


def main() -> int:
    """Print one row a model; 1 where one of them took longer than the bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("out/models"))
    folder = parser.parse_args().folder
    slow = False
    print(f"{'model':12}{'wall':>8}{'processor':>11}  verdicts")
    for name in ("minilm", "resnet50"):
        wall, busy, verdicts = report(path_of(name, 1, folder))
        slow = slow or wall > BAR_S
        print(f"{name:12}{wall:7.1f}s{busy:10.1f}s  {verdicts}")
    return int(slow)


def report(model: Path) -> tuple[float, float, str]:
    """Seconds by the clock, seconds of processor time, and each chip's verdict."""
    command = [sys.executable, "-m", "autoglm.cli", "check", str(model), "--json"]
    command += ["--from", "cuda:H100", "--to", CHIPS, "--precision", "fp16"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as cache:
        environ = {**os.environ, "AUTOGLM_CACHE_DIR": cache}
        start = time.perf_counter()
        done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, text=True)
        wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found = json.loads(done.stdout)["verdicts"]
    return wall, busy, ", ".join(f"{chip}: {verdict}" for chip, verdict in found.items())


if __name__ == "__main__":
    sys.exit(main())
