"""The verbs of the main job: check, compile, run, open; inspect and bench beside them.

import autoglm
report = autoglm.check("model.onnx", backend="openvino")        # before anything is compiled
result = autoglm.compile("model.onnx", "out/", backend="auto")  # measured choice, bundle,
certificates with autoglm.open("out/") as session:
    outputs = session.run({"x": x})
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoglm import registry
from autoglm.config import AdaptConfig, merge
from autoglm.errors import AccuracyError, AutoGLMError, FileMissingError
from autoglm.spec import (
    Alternative,
    Certificate,
    Device,
    Feeds,
    Fit,
    Plan,
    RunOptions,
    TensorInfo,
    Value,
)

if TYPE_CHECKING:
    from autoglm.bundle.manifest import Bundle
    from autoglm.plan.graph import Graph
    from autoglm.rewrite.legalize import Rewrite
    from autoglm.rewrite.prepare import PassResult
    from autoglm.runtime.choose import Measurement, Samplings
    from autoglm.runtime.prepare import Loaded, Planned
    from autoglm.runtime.session import PlanSession

__all__ = [
    "CompileResult",
    "Report",
    "backends",
    "bench",
    "check",
    "compile",
    "devices",
    "inspect",
    "open",
    "ops",
    "run",
]

_PROOF_SEEDS = (101, 202)
_CALIBRATION_SEEDS = tuple(range(301, 309))


@dataclass(frozen=True, slots=True)
class Report:
    """What `check` says: the plan with its reasons and prices, and what was done to the model
    first.
    """

    model: str
    source: str  # where it was read from; "" for an object
    frontend: str
    digest: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    plan: Plan
    graph: Graph
    passes: tuple[PassResult, ...]
    rewrites: tuple[Rewrite, ...]
    notes: tuple[str, ...]
    toolkits: dict[str, str]
    config: AdaptConfig

    @property
    def fit(self) -> Fit:
        """fits, fits with fallbacks, does not fit."""
        return self.plan.fit

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON."""
        from autoglm.plan.explain import to_dict

        nodes = self.graph.nodes
        return {
            "model": self.model,
            "source": self.source,
            "frontend": self.frontend,
            "digest": self.digest,
            "fit": self.fit.value,
            "inputs": [asdict(i) for i in self.inputs],
            "outputs": [asdict(o) for o in self.outputs],
            "nodes": len(nodes),
            "flops": sum(n.flops for n in nodes),
            "plan": to_dict(self.plan),
            "passes": [asdict(p) for p in self.passes],
            "rewrites": [asdict(r) for r in self.rewrites],
            "notes": list(self.notes),
            "toolkits": self.toolkits,
            "config": self.config.model_dump(mode="json", exclude_unset=True),
        }


@dataclass(frozen=True, slots=True)
class CompileResult:
    """What `compile` made, and how it chose."""

    folder: Path
    bundle: Bundle
    report: Report
    certificates: tuple[Certificate, ...]
    measurements: tuple[Measurement, ...]
    cache_hits: int
    notes: tuple[str, ...]


def check(
    source: object,
    config: AdaptConfig | None = None,
    *,
    example_inputs: Sequence[Value] | None = None,
    **overrides: Any,
) -> Report:
    """Say what would run where, why not elsewhere, and what it costs; compiles nothing, needs no
    toolkit.

    With `backend="auto"` the engine with the best predicted plan is reported, the others as
    alternatives. Raises ModelError for a broken model, ConfigError for a wrong key.
    """
    from autoglm.runtime.machine import machine
    from autoglm.runtime.prepare import load, plan_for

    config = merge(config, **overrides)
    loaded = load(source, config, example_inputs=example_inputs)
    precision = "fp32" if config.precision == "auto" else config.precision
    plans = [
        plan_for(loaded, name, config, machine(), precision=precision)
        for name in _check_engines(config)
    ]
    order = {Fit.FITS: 0, Fit.FALLBACKS: 1, Fit.NO: 2}
    best = min(plans, key=lambda p: (order[p.plan.fit], p.plan.seconds))
    others = tuple(
        Alternative(p.plan.backend, len(p.plan.partitions), p.plan.seconds)
        for p in plans
        if p is not best and p.plan.fit is not Fit.NO
    )
    return _report(loaded, best, config, others)


def compile(
    source: object,
    out: str | Path,
    config: AdaptConfig | None = None,
    *,
    force: bool = False,
    example_inputs: Sequence[Value] | None = None,
    progress: Callable[[str], None] = lambda _: None,
    **overrides: Any,
) -> CompileResult:
    """Adapt `source` into a bundle at `out`: plan, compile, prove, and for `auto` measure and
    choose.

    `force` compiles anew instead of taking artifacts from the cache. Raises AccuracyError where
    the answers are out of tolerance (unless `accept_accuracy`), UnsupportedOperatorError where
    nothing takes the model.
    """
    from autoglm.bundle.manifest import read_bundle, write_bundle
    from autoglm.runtime.choose import choose
    from autoglm.runtime.machine import machine
    from autoglm.runtime.prepare import load, require_installed

    config = merge(config, **overrides)
    if config.backend != "auto":
        require_installed([config.backend])
    progress("reading the model")
    loaded = load(source, config, example_inputs=example_inputs)
    samplings = _samplings(loaded.inputs, config)
    with tempfile.TemporaryDirectory(prefix="autoglm-compile-", dir=_work_folder(out)) as work:
        winner, table = choose(
            loaded,
            config,
            machine(),
            samplings,
            Path(work),
            use_cache=not force,
            progress=progress,
        )
        assert winner.built is not None
        _require_accurate(loaded, winner.certificates, config)
        report = _report(loaded, winner.planned, config, ())
        progress("writing the bundle")
        write_bundle(
            Path(out),
            winner.built.folder,
            report=report.to_dict(),
            plan=winner.planned.plan,
            artifacts=winner.built.artifacts,
            inputs=loaded.inputs,
            outputs=loaded.outputs,
            certificates=winner.certificates,
            measurements=[asdict(m) for m in table],
        )
    return CompileResult(
        folder=Path(out),
        bundle=read_bundle(Path(out), verify="size"),
        report=report,
        certificates=tuple(winner.certificates),
        measurements=tuple(table),
        cache_hits=winner.built.cache_hits,
        notes=(*loaded.notes, *samplings.notes),
    )


def open(
    source: object,
    config: AdaptConfig | None = None,
    *,
    measure: bool = False,
    verify: str = "hash",
    example_inputs: Sequence[Value] | None = None,
    **overrides: Any,
) -> PlanSession:
    """A session over a bundle, or over a model compiled for this process only.

    For a model with `backend="auto"` and no `measure`, the first engine whose measured table
    takes every node is used; with `measure` the candidates are timed as `compile` does.
    """
    config = merge(config, **overrides)
    if _is_bundle(source):
        from autoglm.bundle.manifest import read_bundle
        from autoglm.runtime.session import open_parts

        bundle = read_bundle(Path(str(source)), verify=verify)
        options = RunOptions(
            device=config.device, threads=config.threads, settings=dict(config.settings)
        )
        return open_parts(
            bundle.plan.partitions,
            bundle.artifacts,
            bundle.folder,
            bundle.inputs,
            bundle.outputs,
            options,
        )
    if measure:
        return _open_measured(source, config, example_inputs)
    from autoglm.runtime.first import open_first
    from autoglm.runtime.prepare import load

    return open_first(load(source, config, example_inputs=example_inputs), config)


def run(
    source: object,
    feeds: Feeds,
    config: AdaptConfig | None = None,
    **overrides: Any,
) -> dict[str, Value]:
    """Open, run once, close. `feeds` maps input names to arrays; returns outputs by name."""
    with open(source, config, **overrides) as session:
        return session.run(feeds)


def inspect(folder: str | Path, *, verify: bool = False) -> dict[str, Any]:
    """Everything a bundle says of itself; with `verify`, every file's hash is checked as well."""
    from autoglm.bundle.manifest import read_bundle
    from autoglm.bundle.manifest import verify as verify_files

    problems = verify_files(Path(folder)) if verify else []
    bundle = read_bundle(Path(folder), verify="none" if problems else "size")
    return {**bundle.to_dict(), "problems": problems, "verified": verify and not problems}


def ops(backend: str, op: str | None = None, *, arch: str = "") -> dict[str, Any]:
    """What a backend's table says, by operator."""
    from autoglm.catalog import describe

    return describe(registry.backend(backend).capabilities(arch), op)


def devices() -> list[Device]:
    """Every device that some backend finds here."""
    return [device for plug in registry.backends().values() for device in plug.probe()]


def backends() -> list[dict[str, Any]]:
    """One row a backend: version here, size and evidence of its table, precisions; broken
    plug-ins too.
    """
    rows: list[dict[str, Any]] = []
    for name, plug in registry.backends().items():
        table = plug.capabilities()
        rows.append(
            {
                "name": name,
                "version": plug.version(),
                "table": table.toolkit,
                "operators": len(table.table),
                "evidence": table.evidence.value,
                "precisions": {k: v.verdict.value for k, v in table.precisions.items()},
                "layouts": list(table.layouts),
                "alignment": table.alignment,
                "problem": "" if plug.version() else "its toolkit is not installed here",
            }
        )
    return rows + [{"name": b.name, "version": "", "problem": b.reason} for b in registry.broken()]


def bench(
    source: object,
    feeds: Feeds | None = None,
    *,
    against: Sequence[str] = (),
    budget_s: float = 5.0,
    config: AdaptConfig | None = None,
    **overrides: Any,
) -> list[dict[str, Any]]:
    """Time `source` and each engine in `against` in one interleaved run, with an A/A control.

    One row each: median and best seconds, the ratio of medians to the first row, and the largest
    error against it. The control opens `source` a second time: its ratio shows what the machine's
    noise is worth.
    """
    from autoglm.runtime.measure import bench_sessions

    config = merge(config, **overrides)
    plain = {"precision": "fp32", "accept_accuracy": True}
    origin = _origin(source) if against else source
    names = [("this", source, config), ("this again (A/A)", source, config)]
    names += [(e, origin, config.model_copy(update={"backend": e, **plain})) for e in against]
    sessions: dict[str, PlanSession] = {}
    try:
        for name, what, how in names:
            sessions[name] = open(what, how)
        first = sessions["this"]
        values = feeds if feeds is not None else _samplings(first.inputs, config).proof[0]
        return bench_sessions(sessions, values, budget_s=budget_s)
    finally:
        for session in sessions.values():
            session.close()


def _open_measured(
    source: object, config: AdaptConfig, example_inputs: Sequence[Value] | None
) -> PlanSession:
    from autoglm.runtime.session import open_parts

    folder = Path(tempfile.mkdtemp(prefix="autoglm-open-"))
    remove = lambda: shutil.rmtree(folder, ignore_errors=True)  # noqa: E731
    try:
        result = compile(source, folder / "bundle", config, example_inputs=example_inputs)
        bundle = result.bundle
        return open_parts(
            bundle.plan.partitions,
            bundle.artifacts,
            bundle.folder,
            bundle.inputs,
            bundle.outputs,
            RunOptions(device=config.device, threads=config.threads),
            on_close=remove,
        )
    except BaseException:
        remove()
        raise


def _check_engines(config: AdaptConfig) -> list[str]:
    if config.backend != "auto":
        return [config.backend]
    from autoglm.runtime.prepare import installed

    return [n for n in installed() if n not in ("numpy", "reference")] or installed()


def _report(
    loaded: Loaded, planned: Planned, config: AdaptConfig, others: tuple[Alternative, ...]
) -> Report:
    plan = replace(planned.plan, alternatives=(*planned.plan.alternatives, *others))
    return Report(
        model=loaded.name,
        source=loaded.source,
        frontend=loaded.frontend,
        digest=loaded.digest,
        inputs=loaded.inputs,
        outputs=loaded.outputs,
        plan=plan,
        graph=planned.graph,
        passes=loaded.passes,
        rewrites=planned.rewrites,
        notes=(*loaded.notes, *planned.graph.notes),
        toolkits={name: table.toolkit for name, table in planned.tables.items()},
        config=config,
    )


def _samplings(inputs: tuple[TensorInfo, ...], config: AdaptConfig) -> Samplings:
    from autoglm.runtime.choose import Samplings
    from autoglm.tensor.disk import random_feeds

    notes: list[str] = []
    given = _feeds(config.inputs)
    calibration = _feeds(config.calibration)
    if not calibration:
        if config.precision in ("int8", "auto"):
            notes.append(
                "int8 was calibrated on seeded random data: give --calibration for accuracy"
            )
            calibration = [random_feeds(inputs, seed) for seed in _CALIBRATION_SEEDS]
    elif not given and len(calibration) > 3:
        # What calibrated the model must not also prove it.
        given = calibration[::4]
        calibration = [f for i, f in enumerate(calibration) if i % 4]
    proof = given or [random_feeds(inputs, seed) for seed in _PROOF_SEEDS]
    return Samplings(tuple(calibration), tuple(proof), tuple(notes))


def _feeds(path: str) -> list[Feeds]:
    """One feed a file: a file, or every file of a folder in name order."""
    from autoglm.tensor.disk import load_arrays

    if not path:
        return []
    place = Path(path)
    if not place.exists():
        raise FileMissingError("No such file or folder: {path}.", path=path)
    files = sorted(p for p in place.iterdir() if p.is_file()) if place.is_dir() else [place]
    return [load_arrays(file) for file in files]


def _require_accurate(
    loaded: Loaded, certificates: Sequence[Certificate], config: AdaptConfig
) -> None:
    failed = [c for c in certificates if not c.passed]
    if failed and not config.accept_accuracy:
        worst = max(failed, key=lambda c: c.max_relative_error)
        raise AccuracyError(
            "{model}: {subject} is off by {error:.2g}, {tolerance:.2g} is allowed.",
            model=loaded.name,
            subject=worst.subject,
            error=worst.max_relative_error,
            tolerance=worst.tolerance,
        )


def _is_bundle(source: object) -> bool:
    return isinstance(source, str | Path) and (Path(source) / "bundle.json").is_file()


def _origin(source: object) -> object:
    """The model that a bundle was made from: other engines need it, the artifacts are for one each."""
    if not _is_bundle(source):
        return source
    origin = inspect(str(source)).get("report", {}).get("source", "")
    if not origin or not Path(origin).exists():
        raise FileMissingError(
            "The model that this bundle was made from is not at {path} any more.",
            hint="Compare the model file instead: autoglm bench model.onnx --against …",
            path=origin or "(unknown)",
        )
    return Path(origin)


def _work_folder(out: str | Path) -> Path:
    """Beside the bundle: the finished folder is renamed into place, which only works on one file
    system.
    """
    parent = Path(out).absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AutoGLMError(
            "Cannot write to {path}: {why}.", path=str(parent), why=error.strerror
        ) from error
    return parent
