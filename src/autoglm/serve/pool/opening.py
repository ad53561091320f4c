"""Open and warm up one version: blocking work, for a thread. What fails here serves nobody."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autoglm.bundle.manifest import Bundle, read_bundle
from autoglm.errors import BundleError
from autoglm.serve.core import ModelInfo
from autoglm.serve.pool.engine import Engine, Runs, close_all
from autoglm.serve.pool.repository import EngineSource, Source
from autoglm.serve.rows import rows_are_independent
from autoglm.spec import TensorInfo

_WARM_RUNS = 3
_ONE_THREAD_BELOW_S = 0.0002
_BATCH = "(batch)"  # no axis of a model has this name


@dataclass(frozen=True, slots=True)
class Opened:
    """One version, open and warm."""

    engines: tuple[Engine, ...]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    digest: str
    resident_bytes: int  # how much this process grew; an engine's own process is not in it
    seconds: float


def needed_bytes(source: Source) -> int:
    """Bytes of the artifacts and weights of every engine: what the memory budget counts."""
    return sum(_artifact_bytes(e.folder) for e in source.engines)


def open_version(source: Source, run_timeout_s: float) -> Opened:
    """Verify every file, open every engine, run each until it is warm. Closes what it opened
    where any of it fails. A run that later takes longer than `run_timeout_s` hangs.
    """
    from autoglm.runtime.watchdog import resident_bytes

    started, before = time.monotonic(), resident_bytes()
    bundles = [read_bundle(e.folder, verify="hash") for e in source.engines]
    _require_same(source, bundles)
    info = ModelInfo(source.name, source.version, bundles[0].inputs, bundles[0].outputs, "loading")
    engines: list[Engine] = []
    try:
        for place in source.engines:
            engine = _open(place, source, info, f"{len(engines)}:")
            engine.limit_run(run_timeout_s)
            engines.append(engine)
    except BaseException:
        close_all(engines)
        raise
    return Opened(
        tuple(engines),
        info.inputs,
        info.outputs,
        _digest(bundles),
        max(resident_bytes() - before, 0),
        time.monotonic() - started,
    )


def batched(info: ModelInfo, batch: bool | None) -> ModelInfo:
    """`info` as batching is to see it: where `batch` says so, the first axis of every tensor is the
    batch, whatever it is called. Whether the rows are independent is proved all the same.
    """
    tensors = all(t.kind == "tensor" and t.shape for t in (*info.inputs, *info.outputs))
    if not batch or not tensors or any(isinstance(i.shape[0], int) for i in info.inputs if i.shape):
        return info
    inputs, outputs = (
        tuple(replace(t, shape=(_BATCH, *(t.shape or ())[1:])) for t in side)
        for side in (info.inputs, info.outputs)
    )
    return replace(info, inputs=inputs, outputs=outputs)


def _open(place: EngineSource, source: Source, info: ModelInfo, prefix: str) -> Engine:
    engine = _warm(place, source, info, prefix)
    if place.options.threads or engine.best_row_s > _ONE_THREAD_BELOW_S:
        return engine
    # Between runs so short, an engine's threads spin for longer than they work.
    engine.close()
    one = place.options.model_copy(update={"threads": 1})
    return _warm(replace(place, options=one), source, info, prefix)


def _warm(place: EngineSource, source: Source, info: ModelInfo, prefix: str) -> Engine:
    from autoglm.config import merge
    from autoglm.runtime.samples import make_samplings

    session, names = _session(place)
    try:
        feeds = make_samplings(info.inputs, merge(inputs=source.warmup or None), session.run).proof
        # The first feed is the probe's question as well: the smallest sizes.
        engine = Engine(prefix + "+".join(names), session, feeds[0], restarts=place.options.process)
        for _ in range(_WARM_RUNS):
            for feed in feeds:
                engine.run(feed)
        engine.joins = source.batch is not False and rows_are_independent(
            batched(info, source.batch), session.run, feeds
        )
    except BaseException:
        session.close()
        raise
    engine.row_s = engine.best_row_s  # the first runs are slow, and tell nothing
    return engine


def _session(place: EngineSource) -> tuple[Runs, tuple[str, ...]]:
    options = place.options
    if options.process:
        from autoglm.serve.pool.process import IsolatedSession

        child = IsolatedSession(place.folder, device=options.device, threads=options.threads)
        return child, child.engines
    from autoglm import api

    # Its hashes have just been compared.
    session = api.open(place.folder, verify="size", device=options.device, threads=options.threads)
    return session, session.engines


def _require_same(source: Source, bundles: Sequence[Bundle]) -> None:
    """Engines of one model must take and give the same tensors."""
    first = _interface(bundles[0])
    for place, bundle in zip(source.engines, bundles, strict=True):
        if _interface(bundle) != first:
            raise BundleError(
                "The bundles of {name} take or give different tensors: {one} and {two}.",
                hint="Compile both from the same model.",
                name=source.name,
                one=str(source.engines[0].folder),
                two=str(place.folder),
            )


def _interface(bundle: Bundle) -> tuple[set[tuple[str, str, str]], ...]:
    return tuple(
        {(i.name, i.dtype, i.kind) for i in side} for side in (bundle.inputs, bundle.outputs)
    )


def _digest(bundles: Sequence[Bundle]) -> str:
    """One bundle's own digest; of several, a digest of theirs."""
    digests = sorted({b.manifest.digest for b in bundles})
    return (
        digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    )


def _artifact_bytes(folder: Path) -> int:
    files = read_bundle(folder, verify="none").manifest.files
    return sum(facts.size for name, facts in files.items() if name.startswith("artifacts/"))
