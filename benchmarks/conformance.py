"""onnx's backend suite on `backend="auto"`: how much passes, what is refused, who ran it.

    python benchmarks/conformance.py [--jobs 2] [--timeout 20] [--filter REGEX] [--out FILE.json]

The reference evaluator runs nothing here. Exit status 1 when the bar is missed: 1,950 of 2,033, at
most 5 answered wrongly, no crash, no time-out. The machine's speeds, measured once and then kept,
are asked for first: a case's time is its own.

Ten cases have no right answer that an engine could give, and are counted apart. Six are Bernoulli
and its function body (RandomUniformLike, Greater, Cast), plain, to double, and with `seed` 0; four
are Dropout in training with a ratio of 0.5 or 0.75 and `seed` 0. What onnx stores for them are the
draws of NumPy's Mersenne Twister; the operators' definition names no generator, says of `seed` only
that it seeds one, and so lets every engine draw its own numbers. Four of the six have no seed at
all: two runs of one engine differ. Dropout in training with a ratio of 0 drops nothing: its two
cases are judged by their values, and pass.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections import Counter
from dataclasses import asdict

from autoglm.runtime.machine import machine
from autoglm.testing.onnx_suite import Outcome, suite_cases
from autoglm.testing.worker import Lost, ask_all

PASSES, WRONG = 1950, 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=20.0)
    parser.add_argument("--filter", default="")
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    machine()
    started = time.time()
    cases = [c for c in suite_cases() if re.search(options.filter, c.name)]
    answers = ask_all(
        "autoglm.testing.onnx_suite:runner", (), cases, jobs=options.jobs, timeout_s=options.timeout
    )
    found = {c.name: _outcome(a) for c, a in zip(cases, answers, strict=True)}
    seconds = time.time() - started
    if options.out:
        with open(options.out, "w") as file:
            json.dump({name: asdict(o) for name, o in found.items()}, file, indent=1)
    random = {c.name for c in cases if c.judge == "shapes"}
    return report(found, random, seconds, whole=not options.filter)


def _outcome(answer: Outcome | Lost) -> Outcome:
    return Outcome(answer.kind, answer.detail) if isinstance(answer, Lost) else answer


def report(found: dict[str, Outcome], random: set[str], seconds: float, *, whole: bool) -> int:
    """Print the figures; 0 when the bar is met.

    Those whose answer is drawn count as wrong, and are said apart.
    """
    counts = Counter(o.status for o in found.values())
    print(f"cases    {len(found)} in {seconds:.0f} s")
    for status in ("pass", "refused", "wrong", "crash", "timeout"):
        print(f"{status:8} {counts[status]}")
    for status in ("wrong", "crash", "timeout", "refused"):
        for name, outcome in found.items():
            if outcome.status == status:
                print(f"  {status}: {name} ({'+'.join(outcome.engines)}) {outcome.reason[:160]}")
    lucky = sum(found[name].status == "wrong" for name in random)
    print(f"wrong, without the {lucky} of random operators: {counts['wrong'] - lucky}")
    passed = Counter("+".join(o.engines) for o in found.values() if o.status == "pass")
    print("passes by engines:")
    for engines, count in passed.most_common():
        print(f"  {count:5} {engines}")
    kernels = sum(n for engines, n in passed.items() if "numpy" in engines.split("+"))
    print(f"passes that needed a NumPy kernel of our own: {kernels}")
    print(f"passes that needed the reference evaluator: {passed['reference']}")
    met = counts["pass"] >= PASSES and counts["wrong"] - lucky <= WRONG
    met = met and not counts["crash"] and not counts["timeout"]
    if whole:
        print(f"bar ({PASSES} pass, at most {WRONG} wrong, no crash): {'met' if met else 'MISSED'}")
    return 0 if met or not whole else 1


if __name__ == "__main__":
    sys.exit(main())
