"""What TPU-MLIR really does with us, measured through its compiler and its C-model simulator.

python -m benchmarks.sophon pack -o packs --holdout 250 --limit-s 3000   the measured pack, checked
    on random cases that it was not built from
python -m benchmarks.sophon models -o rows.json [--only NAME] [--precision fp16 int8]   the models
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SEED = 20261122


def pack(arguments: argparse.Namespace) -> None:
    """Measure, write, and check the pack on what was held out."""
    from autoglm.testing import measure
    from autoglm.testing.cases import all_cases

    cases = all_cases()
    fixed = [c.name for c in cases if not c.name.endswith("~dynamic")]
    held = set(np.random.default_rng(SEED).choice(fixed, arguments.holdout, replace=False))
    built = measure.measure(
        "sophon",
        cases=[c for c in cases if c.name not in held],
        jobs=arguments.jobs,
        timeout_s=arguments.timeout_s,
        limit_s=arguments.limit_s,
        progress=_progress,
    )
    print(measure.write_pack(built, arguments.output), flush=True)
    names = arguments.output / "held.json"
    names.write_text(json.dumps(sorted(held), indent=0))


def _progress(done: int, total: int) -> None:
    if done % 50 == 0:
        print(f"{done} of {total}", time.strftime("%H:%M:%S"), flush=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("pack")
    verb.add_argument("-o", "--output", type=Path, required=True)
    verb.add_argument("--holdout", type=int, default=250)
    verb.add_argument("--limit-s", type=float, default=None)
    verb.add_argument("--timeout-s", type=float, default=60.0)
    verb.add_argument("--jobs", type=int, default=1)
    verb.set_defaults(run=pack)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
