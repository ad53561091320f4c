"""The Kunlun route on the CPU: every model through Paddle Inference against fp32.

    python -m benchmarks.kunlun [--models resnet50 bert ...] [--folder DIR] [--out FILE.json]

It needs the Paddle environment (`autoglm toolchain install paddle`). Each model is compiled whole
by our own ONNX-to-Paddle mapping and run by Paddle Inference on the CPU: the chip's route, not the
chip. The reference is ONNX Runtime in fp32. Exit status 1 when the bar is missed: a largest error,
relative to the output's largest value, of at most 1e-4 on every model.

    python -m benchmarks.kunlun --widen packs

asks Paddle about every measured case also with its parameters constant and with open dimensions,
but for those held out, and writes the shipped pack with these rows added.

    python -m benchmarks.kunlun --honesty 200 [--seed 1]

asks the shipped table and Paddle about that many of the cases held out, parameters as Constant
nodes, and exits with 1 where they disagree about one.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from autoglm import registry
from autoglm.errors import AutoGLMError
from autoglm.spec import CompileOptions, RunOptions
from autoglm.testing.cases import Case
from benchmarks.models import LIGHT, feeds_of, path_of

BAR = 1e-4
MODELS = (*LIGHT, "bert", "minilm", "block")
SEEDS = 3
SEED, HELD_OUT = 20261122, 600


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", default=MODELS)
    parser.add_argument("--folder", type=Path, default=Path("out/models"))
    parser.add_argument("--out", default="")
    parser.add_argument("--honesty", type=int, default=0, metavar="CASES")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--widen", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    if options.widen:
        return widen(options.widen)
    if options.honesty:
        return honesty(options.honesty, options.seed)
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


def widen(folder: Path) -> int:
    """Measure, add the rows to the shipped pack, and write it."""
    from autoglm.catalog.packs import read_pack, shipped, with_rows
    from autoglm.testing import measure
    from autoglm.testing.cases import all_cases

    pack = read_pack(max(shipped("kunlun").items())[1])
    if (here := registry.backend("kunlun").version()) != pack.version:
        raise SystemExit(f"the shipped pack is of Paddle {pack.version}; here is {here or 'none'}")
    cases, _ = split()
    found = measure.examine("kunlun", cases, jobs=2, progress=progress)
    today = measure.redescribed(pack, [*all_cases(), *cases])
    print(measure.write_pack(with_rows(today, measure.rows_of(found)), folder))
    return 0


def progress(done: int, total: int) -> None:
    """One line in a hundred cases."""
    if done % 100 == 0:
        print(f"{done} of {total}", flush=True)


def honesty(size: int, seed: int) -> int:
    """Print every case of the sample in which the table is wrong."""
    from autoglm.testing.conformance import dishonest, sample, supports
    from autoglm.testing.measure import load, nodes_of

    plug, wrong = registry.backend("kunlun"), 0
    table, said = plug.capabilities(), Counter[str]()
    asked = sample(map(as_nodes, split()[1]), seed, size)
    for case in asked:
        said[supports(table, nodes_of(load(case))).verdict.value] += 1
        if text := dishonest(plug, case):
            wrong += 1
            print(f"{case.name}: {text}", flush=True)
    print("the table says", dict(sorted(said.items())))
    print(f"the table is wrong about {wrong} of {len(asked)} cases it was not measured with")
    return 1 if wrong else 0


def split() -> tuple[list[Case], list[Case]]:
    """Cases that `autoglm ops measure` does not have: those to measure, and those held out."""
    from autoglm.testing.cases import all_cases, dynamic, with_constants

    known = all_cases()
    given = [(c, with_constants(c)) for c in known]
    fixed = [c for _, c in given if c is not None]
    loose = [c for c in (dynamic(v or c) for c, v in given) if c is not None]
    unseen = {c.name: c for c in (*fixed, *loose) if "~dynamic~" not in c.name}
    for case in known:
        unseen.pop(case.name, None)
    held = set(np.random.default_rng(SEED).choice(sorted(unseen), HELD_OUT, replace=False))
    parts = ([], [])  # type: tuple[list[Case], list[Case]]
    for name, case in unseen.items():
        parts[name in held].append(case)
    return parts


def as_nodes(case: Case) -> Case:
    """The same case with a Constant node for each of its weights."""
    model = case.proto()
    weights = list(model.graph.initializer)
    if not weights:
        return case
    nodes = [onnx.helper.make_node("Constant", [], [w.name], value=w) for w in weights]
    nodes += model.graph.node
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.node.extend(nodes)
    text = model.SerializeToString(deterministic=True)
    return replace(case, name=f"{case.name}~nodes", model=text)


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
