"""What TPU-MLIR really does with us, measured through its compiler and its C-model simulator.

python -m benchmarks.sophon widen -o packs --size 400 --seed 7 [--large]   fresh cases that the
    table takes, into the pack in that folder; the seeds of the blind test are others
python -m benchmarks.sophon honesty --size 200 --seed 7   the table against fresh cases
python -m benchmarks.sophon precisions --size 60   fp16 and int8 where the table of fp32 says yes
python -m benchmarks.sophon models -o rows.json [--only NAME] [--precision fp16 int8]   the models
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from autoglm.testing.cases import Case
from autoglm.testing.measure import Finding
from benchmarks import models as sets
from benchmarks.models import LIGHT, feeds_of, path_of

SEED = 20261122
_CHUNK = 50
_LATE = re.compile("timeout|no end after|no answer within")  # the machine's, not the compiler's
SHORT = ("minilm-32", "bert-layer", "decoder-16")
MODELS = (*SHORT, *LIGHT, "minilm", "bert", "block")
SAMPLES = 4  # int8 is calibrated on these seeds, and proved on another


def widen(arguments: argparse.Namespace) -> None:
    """Ask the compiler about new cases that the table takes, one of each kind, and add the rows."""
    from autoglm.catalog.packs import read_pack, with_rows
    from autoglm.testing import measure

    (path,) = arguments.output.glob("sophon-[0-9]*.json")
    pack = read_pack(path)
    known = {(op, row.key) for op, _, row in pack.rows()}
    cases = doubtful(arguments, set() if arguments.large else known)
    print(f"{len(cases)} of {arguments.size} cases to ask", flush=True)
    started = time.monotonic()
    for start in range(0, len(cases), _CHUNK):
        if time.monotonic() - started > arguments.limit_s:
            break
        chunk = cases[start : start + _CHUNK]
        found = measure.examine("sophon", chunk, jobs=arguments.jobs, timeout_s=90.0)
        asked = [f for f in found if f.outcome != "skipped" and not _LATE.search(f.reason)]
        told = {f.case: f for f in asked}
        more = [f for case in chunk if case.name in told for f in spread(case, told[case.name])]
        pack = with_rows(pack, measure.rows_of([*asked, *more]))
        measure.write_pack(pack, arguments.output)
        failed = [f for f in asked if f.outcome != "yes"]
        print(start + len(chunk), len(failed), time.strftime("%H:%M:%S"), flush=True)
        for finding in failed:
            print(f"  {finding.case}: {finding.outcome} {finding.reason}", flush=True)


def doubtful(arguments: argparse.Namespace, known: set[Any]) -> list[Case]:
    """New cases that the shipped table takes: one of each kind, whatever the operator's version."""
    from autoglm import registry
    from autoglm.testing.conformance import supports
    from autoglm.testing.fresh import fresh
    from autoglm.testing.measure import load, nodes_of, row_of

    table = registry.backend("sophon").capabilities()
    cases: dict[Any, Case] = {}
    for case in fresh(arguments.size, arguments.seed, large=arguments.large):
        nodes = nodes_of(load(case))
        key = tuple((n.op, row_of(n, Finding("", "")).key) for n in nodes)
        if not set(key) <= known and supports(table, nodes).ok:
            cases.setdefault(key, case)
    return list(cases.values())


def spread(case: Case, found: Finding) -> Iterator[Finding]:
    """What was found, of the operator's other versions that are the same file to the compiler."""
    from autoglm.testing.measure import load, nodes_of
    from autoglm.testing.restamp import other_versions

    here = _lowered(case)
    for other in other_versions(case):
        if here is not None and _lowered(other) == here:
            nodes = nodes_of(load(other))
            yield replace(found, case=other.name, nodes=nodes)


def _lowered(case: Case) -> bytes | None:
    from autoglm.backends.sophon.model import write_model
    from autoglm.errors import CompileError
    from autoglm.testing.measure import load

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            write_model(load(case), path)
        except CompileError:
            return None
        return path.read_bytes()


def blind(arguments: argparse.Namespace) -> None:
    """The shipped table and the compiler, on cases that nobody measured."""
    from autoglm.testing.conformance import FALSE, honesty

    counts: Counter[str] = Counter()
    known: Counter[str] = Counter()
    rows = honesty("sophon", arguments.size, arguments.seed, jobs=arguments.jobs)
    for done, row in enumerate(rows, 1):
        counts[row.kind] += 1
        known[row.kind] += row.known
        if row.kind in (*FALSE, "unsteady"):
            said, was = row.verdict, row.found
            print(f"{row.kind}: {was.case}: {said.reason or 'yes'}; {was.outcome} {was.reason}")
        if done % 20 == 0:
            print(done, dict(sorted(counts.items())), time.strftime("%H:%M:%S"), flush=True)
    print(dict(sorted(counts.items())))
    print("of a kind that the pack was measured with:", dict(sorted(known.items())))


def precisions(arguments: argparse.Namespace) -> None:
    """Whether what works in fp32 works in the other precisions: plain cases, one by one."""
    from autoglm import registry
    from autoglm.testing.conformance import sample
    from autoglm.testing.measure import find, plain_cases

    backend = registry.backend("sophon")
    for precision in arguments.precision:
        counts: Counter[str] = Counter()
        for case in sample(plain_cases("sophon"), arguments.seed, arguments.size):
            found = find(backend, case, precision)
            counts[found.outcome] += 1
            if found.outcome != "yes":
                print(f"{precision} {case.name}: {found.outcome} {found.reason}", flush=True)
        print(precision, dict(counts), flush=True)


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
    path = folder / f"{name}-r2.onnx"
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


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("widen")
    verb.add_argument("-o", "--output", type=Path, required=True)
    verb.add_argument("--size", type=int, default=400)
    verb.add_argument("--seed", type=int, required=True)
    verb.add_argument("--large", action="store_true")
    verb.add_argument("--limit-s", type=float, default=3600.0)
    verb.add_argument("--jobs", type=int, default=1)
    verb.set_defaults(run=widen)
    verb = verbs.add_parser("honesty")
    verb.add_argument("--size", type=int, default=200)
    verb.add_argument("--seed", type=int, required=True)
    verb.add_argument("--jobs", type=int, default=1)
    verb.set_defaults(run=blind)
    verb = verbs.add_parser("precisions")
    verb.add_argument("--size", type=int, default=60)
    verb.add_argument("--seed", type=int, default=SEED)
    verb.add_argument("--precision", nargs="*", default=["fp16", "int8"], choices=["fp16", "int8"])
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
