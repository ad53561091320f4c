"""The verbs of the main job: check, compile, run, open; inspect and bench beside them.

Each takes a model (a path, or an object that some frontend reads), an `AdaptConfig`, and keys of it
as overrides: `autoglm.compile("model.onnx", "out/", backend="auto", precision="fp32")`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoglm import registry
from autoglm.config import AdaptConfig, merge
from autoglm.errors import ConfigError, FileMissingError
from autoglm.runtime.report import Report, make_report
from autoglm.spec import Alternative, Certificate, Chip, Device, Feeds, Fit, Value
from autoglm.tensor.files import write_error

if TYPE_CHECKING:
    from autoglm.bundle.manifest import Bundle
    from autoglm.llm.check import LanguageReport
    from autoglm.runtime.candidate import Measurement
    from autoglm.runtime.hardware import Hardware
    from autoglm.runtime.migrate import Migration
    from autoglm.runtime.prepare import Loaded
    from autoglm.runtime.session import PlanSession

__all__ = [
    "CompileResult",
    "Report",
    "backends",
    "bench",
    "check",
    "check_language_model",
    "chips",
    "compile",
    "devices",
    "hardware",
    "inspect",
    "migrate",
    "open",
    "ops",
    "run",
]


# Options that only a language model's plan has, and what of a config counts for one.
_LANGUAGE_KEYS = {"context", "concurrency", "devices", "to"}
_LANGUAGE_CONFIG = {"arch", "backend", "memory_limit_bytes", "precision", "timeout_s"}
# What of a config still counts once a bundle is compiled.
_RUN_KEYS = {"device", "inputs", "memory_limit_bytes", "settings", "threads", "timeout_s"}


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
) -> Report | LanguageReport:
    """Say what would run where, why not elsewhere, and what it costs; compiles nothing, needs no
    toolkit.

    With `backend="auto"` the engine with the best predicted plan is reported, the others as
    alternatives. Raises ModelError for a broken model, ConfigError for a wrong key. Returns a
    `Report`; for a language model's folder what `check_language_model` returns, with its options.
    """
    from autoglm.llm.read import is_language_model

    if _LANGUAGE_KEYS & set(overrides) or is_language_model(source):
        if example_inputs is not None:
            raise _no_effect(["example_inputs"])
        return check_language_model(source, config, **overrides)
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
    return make_report(loaded, best, config, others)


def check_language_model(
    source: object,
    config: AdaptConfig | None = None,
    *,
    precision: str | None = None,
    to: Sequence[str] = (),
    context: int | None = None,
    concurrency: int | None = None,
    devices: int | None = None,
    **overrides: Any,
) -> LanguageReport:
    """Whether a language model fits, and how fast it would be, from its config.json alone.

    `context` is prompt and answer together, `concurrency` the sequences at a time, `devices` the
    devices that share it, `precision` auto, fp32, bf16, fp16, int8 or int4; `to` names more chips.
    """
    from autoglm.llm.check import check_language_model as plan

    config = merge(config, **overrides)
    if idle := sorted(config.model_fields_set - _LANGUAGE_CONFIG):
        raise _no_effect(idle)
    own = config.precision if "precision" in config.model_fields_set else "auto"
    return plan(
        source,
        backend=config.backend,
        arch=config.arch,
        to=to,
        precision=precision or own,
        context=context,
        concurrency=1 if concurrency is None else concurrency,
        devices=1 if devices is None else devices,
    )


def migrate(
    source: object,
    from_: str,
    to: Sequence[str],
    config: AdaptConfig | None = None,
    *,
    example_inputs: Sequence[Value] | None = None,
    **overrides: Any,
) -> Migration:
    """Compare the plans of one model on the chip it comes from and on each it may go to.

    A chip is a backend, `backend:chip`, or a chip of the catalog: `from_="cuda:H100"`,
    `to=["ascend:Ascend910B", "bm1684x"]`. Needs no toolkit and no device, compiles nothing.
    """
    from autoglm.runtime.migrate import migrate as compare

    return compare(source, from_, to, merge(config, **overrides), example_inputs=example_inputs)


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
    from autoglm.bundle.manifest import read_bundle, require_replaceable, write_bundle
    from autoglm.runtime.candidate import Search
    from autoglm.runtime.choose import choose
    from autoglm.runtime.machine import machine
    from autoglm.runtime.prepare import load, require_installed

    config = merge(config, **overrides)
    require_replaceable(Path(out))
    if config.backend != "auto":
        require_installed([config.backend])
    progress("reading the model")
    loaded = load(source, config, example_inputs=example_inputs)
    from autoglm.runtime.samples import make_samplings

    samplings = make_samplings(loaded.inputs, config, _golden_runs(loaded))
    with tempfile.TemporaryDirectory(prefix="autoglm-compile-", dir=_work_folder(out)) as work:
        search = Search(
            loaded, config, machine(), samplings, Path(work), use_cache=not force, progress=progress
        )
        winner, table = choose(search)
        assert winner.built is not None
        report = make_report(loaded, winner.planned, config, ())
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
        from autoglm.runtime.candidate import run_options
        from autoglm.runtime.session import open_parts

        _refuse_adapting(config)
        bundle = read_bundle(Path(str(source)), verify=verify)
        options = replace(run_options(config), settings=dict(config.settings))
        return open_parts(
            bundle.plan.partitions,
            bundle.artifacts,
            bundle.folder,
            bundle.inputs,
            bundle.outputs,
            options,
            primary=bundle.plan.backend,
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


def hardware() -> Hardware:
    """The CPU, every accelerator with the evidence for and against it, and what backends offer.

    Probes run at once, each for at most 3 s; one that fails or hangs costs its own devices only.
    """
    from autoglm.runtime.hardware import hardware

    return hardware()


def devices() -> list[Device]:
    """Every device that some backend finds here."""
    return list(hardware().devices)


def chips() -> list[Chip]:
    """Every chip of the catalog: a plan needs none of them here."""
    from autoglm.catalog import chips

    return list(chips().values())


def backends() -> list[dict[str, Any]]:
    """One row a backend: version here, its table and the grade of its evidence, formats,
    precisions, memory addressing, collectives, toolchain; broken plug-ins too.
    """
    from autoglm.runtime.hardware import backend_row

    rows = [backend_row(name, plug) for name, plug in registry.backends().items()]
    return rows + [{"name": b.name, "version": "", "problem": b.reason} for b in registry.broken()]


def bench(
    source: object,
    feeds: Feeds | None = None,
    *,
    against: Sequence[str] = (),
    passes: bool = False,
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
    from autoglm.runtime.samples import make_samplings

    config = merge(config, **overrides)
    plain = {"precision": "fp32", "accept_accuracy": True}
    origin = _origin(source) if against else source
    names = [("this", source, config), ("this again (A/A)", source, config)]
    names += [(e, origin, config.model_copy(update={"backend": e, **plain})) for e in against]
    if passes and _is_bundle(source):
        raise ConfigError(
            "{path} is a bundle: its passes have run, and cannot be switched off one by one.",
            hint="Give the model: autoglm bench model.onnx --backend ENGINE --passes",
            path=str(source),
        )
    if passes:
        names += _without_each_pass(source, config)
    sessions: dict[str, PlanSession] = {}
    try:
        for name, what, how in names:
            sessions[name] = open(what, how)
        first = sessions["this"]
        if feeds is None:
            feeds = make_samplings(first.inputs, config, first.run).proof[0]
        return bench_sessions(sessions, feeds, budget_s=budget_s)
    finally:
        for session in sessions.values():
            session.close()


def _open_measured(
    source: object, config: AdaptConfig, example_inputs: Sequence[Value] | None
) -> PlanSession:
    from autoglm.runtime.candidate import run_options
    from autoglm.runtime.session import open_parts

    folder = tempfile.TemporaryDirectory(prefix="autoglm-open-", ignore_cleanup_errors=True)
    try:
        place = Path(folder.name) / "bundle"
        bundle = compile(source, place, config, example_inputs=example_inputs).bundle
        return open_parts(
            bundle.plan.partitions,
            bundle.artifacts,
            bundle.folder,
            bundle.inputs,
            bundle.outputs,
            run_options(config),
            on_close=folder.cleanup,
        )
    except BaseException:
        folder.cleanup()
        raise


def _check_engines(config: AdaptConfig) -> list[str]:
    if config.backend != "auto":
        return [config.backend]
    from autoglm.runtime.prepare import installed

    return [n for n in installed() if n not in ("numpy", "reference")] or installed()


def _is_bundle(source: object) -> bool:
    return isinstance(source, str | Path) and (Path(source) / "bundle.json").is_file()


def _golden_runs(loaded: Loaded) -> Callable[[Feeds], object]:
    from autoglm.runtime.golden import Golden

    def run(feeds: Feeds) -> object:
        with Golden(loaded.model) as golden:
            return golden.run(feeds)

    return run


def _no_effect(keys: Sequence[str]) -> ConfigError:
    """What a language model's plan would drop in silence."""
    return ConfigError(
        "{keys} would have no effect on the plan of a language model.",
        hint="Leave it out; what counts is {known}.",
        keys=", ".join(keys),
        known=", ".join(sorted(_LANGUAGE_CONFIG)),
    )


def _refuse_adapting(config: AdaptConfig) -> None:
    """A bundle is adapted already: a key that would change that must not be dropped in silence."""
    if idle := sorted(config.model_fields_set - _RUN_KEYS):
        raise ConfigError(
            "A bundle is compiled already; {keys} would have no effect.",
            hint="Compile the model again with these, or leave them out.",
            keys=", ".join(idle),
        )


def _without_each_pass(
    source: object, config: AdaptConfig
) -> list[tuple[str, object, AdaptConfig]]:
    from autoglm.runtime.prepare import load

    origin = _origin(source)
    changed = [p.name for p in load(origin, config).passes if p.changes]
    return [
        (
            f"without {name}",
            origin,
            config.model_copy(update={"passes": {**config.passes, name: False}}),
        )
        for name in changed
    ]


def _origin(source: object) -> object:
    """The model that a bundle was made from: other engines need it, the artifacts are for one
    each.
    """
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
        raise write_error(parent, error) from error
    return parent
