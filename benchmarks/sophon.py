"""What TPU-MLIR really does with us, measured through its compiler and its C-model simulator.

python -m benchmarks.sophon pack -o packs --holdout 250 --limit-s 3000   the measured pack, with
    random cases left out of it, named in packs/held.json
python -m benchmarks.sophon check packs/held.json   the shipped pack against those cases
python -m benchmarks.sophon honesty --size 200 --seed 7   the table against fresh cases
python -m benchmarks.sophon precisions --size 60   fp16 and int8 where the table of fp32 says yes
python -m benchmarks.sophon models -o rows.json [--only NAME] [--precision fp16 int8]   the models
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks import models as sets
from benchmarks.models import LIGHT, feeds_of, path_of

SEED = 20261122
SHORT = ("minilm-32", "bert-layer", "decoder-16")
MODELS = (*SHORT, *LIGHT, "minilm", "bert", "block")
SAMPLES = 4  # int8 is calibrated on these seeds, and proved on another


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


def check(arguments: argparse.Namespace) -> None:
    """Ask the shipped table and the compiler about every case that was held out."""
    from autoglm import registry
    from autoglm.testing.cases import all_cases
    from autoglm.testing.conformance import supports
    from autoglm.testing.measure import examine

    names = set(json.loads(arguments.held.read_text()))
    cases = [c for c in all_cases() if c.name in names]
    found = examine("sophon", cases, jobs=arguments.jobs, timeout_s=60.0, progress=_progress)
    table = registry.backend("sophon").capabilities()
    rows = []
    for finding in found:
        verdict = supports(table, finding.nodes) if finding.nodes else None
        said = verdict.verdict if verdict else "skipped"
        works = finding.outcome == "yes"
        agrees = said in ("skipped", "unknown") or (said == "yes") == works
        reason = verdict.reason if verdict else ""
        rows.append((finding.case, said, finding.outcome, agrees, reason, finding.reason))
    counts = Counter((said, outcome) for _, said, outcome, *_ in rows)
    print({f"table {said}, compiler {outcome}": n for (said, outcome), n in sorted(counts.items())})
    for case, said, outcome, agrees, reason, why in rows:
        if not agrees:
            print(f"{case}: table {said} ({reason}); compiler {outcome} ({why})")


def blind(arguments: argparse.Namespace) -> None:
    """The shipped table and the compiler, on cases that nobody measured."""
    from autoglm.testing.conformance import FALSE, honesty

    counts: Counter[str] = Counter()
    rows = honesty("sophon", arguments.size, arguments.seed, jobs=arguments.jobs)
    for done, row in enumerate(rows, 1):
        counts[row.kind] += 1
        if row.kind in (*FALSE, "unsteady"):
            said, was = row.verdict, row.found
            print(f"{row.kind}: {was.case}: {said.reason or 'yes'}; {was.outcome} {was.reason}")
        if done % 20 == 0:
            print(done, dict(sorted(counts.items())), time.strftime("%H:%M:%S"), flush=True)
    print(dict(sorted(counts.items())))


# Of the largest value of an answer, for one operator computed in that precision.
_WITHIN = {"fp16": 0.01, "bf16": 0.05, "int8": 0.1}


def precisions(arguments: argparse.Namespace) -> None:
    """Whether what works in fp32 works in the other precisions: plain cases, one by one."""
    from autoglm import registry
    from autoglm.testing.conformance import core_cases, sample, supports
    from autoglm.testing.measure import load, nodes_of

    backend = registry.backend("sophon")
    table = backend.capabilities()
    plain = [c for c in core_cases() if c.name.endswith(":float32")]
    taken = [c for c in plain if supports(table, nodes_of(load(c))).ok]
    for precision in arguments.precision:
        counts: Counter[str] = Counter()
        for case in sample(taken, arguments.seed, arguments.size):
            found = _in_precision(backend, case, precision)
            counts[found.split(":")[0]] += 1
            if found != "works":
                print(f"{precision} {case.name}: {found}", flush=True)
        print(precision, dict(counts), flush=True)


def _in_precision(backend: Any, case: Any, precision: str) -> str:
    from autoglm.spec import CompileOptions
    from autoglm.testing.measure import ask, first_line, load

    inputs, outputs = case.data[0]
    model = load(case)
    names = [str(v.name) for v in model.graph.inputs]
    largest = max((float(np.abs(o.astype(np.float64)).max()) for o in outputs if o.size), default=0)
    wide = replace(case, rtol=0.0, atol=_WITHIN[precision] * max(largest, 1e-3))
    calibration = [dict(zip(names, inputs, strict=True))]
    options = CompileOptions(precision=precision, calibration=calibration, timeout_s=120.0)
    try:
        answer = ask(backend, model, wide, options)
    except Exception as error:  # whatever it is, it is the finding
        return f"refused: {first_line(error)}"
    return "works" if answer.outcome == "yes" else f"inexact: {answer.reason}"


def models(arguments: argparse.Namespace) -> None:
    """Compile, run on the simulator, compare with ONNX Runtime in fp32; one row a model."""
    rows = json.loads(arguments.output.read_text()) if arguments.output.exists() else []
    for name in arguments.only or MODELS:
        path = (
            short(name, arguments.models) if name in SHORT else path_of(name, 1, arguments.models)
        )
        for precision in arguments.precision:
            row = {"model": name, "precision": precision, **measured(path, precision)}
            print(json.dumps(row), flush=True)
            rows = [r for r in rows if (r["model"], r["precision"]) != (name, precision)]
            rows.append(row)
            arguments.output.write_text(json.dumps(rows, indent=1))


def short(name: str, folder: Path) -> Path:
    """Transformers over few tokens: the simulator needs minutes for a gigaflop."""
    path = folder / f"{name}.onnx"
    if path.exists():
        return path
    if name == "minilm-32":
        model = sets._encoder(sets.minilm_folder(), 1, 32)
    elif name == "decoder-16":
        model = sets._block(1, length=16)
    else:
        with tempfile.TemporaryDirectory() as weights:
            config = sets.bert_folder(Path(weights)) / "config.json"
            config.write_text(json.dumps(json.loads(config.read_text()) | {"num_hidden_layers": 1}))
            model = sets._encoder(Path(weights), 1, 32)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def measured(path: Path, precision: str) -> dict[str, Any]:
    """One model in one precision."""
    import onnxruntime as ort

    from autoglm import registry
    from autoglm.config import AdaptConfig
    from autoglm.errors import AutoGLMError
    from autoglm.rewrite.legalize import legalize
    from autoglm.runtime.prepare import load
    from autoglm.spec import CompileOptions, RunOptions
    from autoglm.tensor.accuracy import compare, passes

    backend, feeds = registry.backend("sophon"), feeds_of(path)
    shapes = {name: array.shape for name, array in feeds.items()}
    model = load(path, AdaptConfig(input_shapes=shapes)).model
    # As a plan does it: what the table refuses and can be taken apart, is.
    legalize(model, backend.capabilities().support)
    golden = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [str(v.name) for v in model.graph.outputs]
    calibration = [feeds_of(path, seed + 1) for seed in range(SAMPLES)]
    options = CompileOptions(precision=precision, calibration=calibration, timeout_s=1800.0)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        try:
            artifact = backend.compile(model, options, Path(folder))
            compiled = time.monotonic()
            session = backend.open(artifact, Path(folder), RunOptions())
            got = session.run(feeds)
            ran = time.monotonic()
            session.close()
        except AutoGLMError as error:
            return {"error": str(error), "tail": str(error.facts.get("tail", ""))[-1500:]}
    difference = compare(dict(zip(names, golden.run(names, feeds), strict=True)), got)
    return {
        "passed": passes(difference, precision),
        "max_abs": difference.max_abs,
        "max_relative": difference.max_relative,
        "cosine": difference.cosine,
        "compile_s": round(compiled - started, 1),
        "simulate_s": round(ran - compiled, 1),
        "memory": artifact.meta["memory"],
    }


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
    verb = verbs.add_parser("check")
    verb.add_argument("held", type=Path)
    verb.add_argument("--jobs", type=int, default=1)
    verb.set_defaults(run=check)
    verb = verbs.add_parser("honesty")
    verb.add_argument("--size", type=int, default=200)
    verb.add_argument("--seed", type=int, required=True)
    verb.add_argument("--jobs", type=int, default=1)
    verb.set_defaults(run=blind)
    verb = verbs.add_parser("precisions")
    verb.add_argument("--size", type=int, default=60)
    verb.add_argument("--seed", type=int, default=SEED)
    verb.add_argument("--precision", nargs="*", default=["fp16", "int8"], choices=list(_WITHIN))
    verb.set_defaults(run=precisions)
    verb = verbs.add_parser("models")
    verb.add_argument("-o", "--output", type=Path, required=True)
    verb.add_argument("--models", type=Path, default=Path(tempfile.gettempdir()) / "autoglm-models")
    verb.add_argument("--only", nargs="*", choices=MODELS)
    verb.add_argument("--precision", nargs="*", default=["fp16"])
    verb.set_defaults(run=models)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
