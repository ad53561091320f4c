"""Carry a plan out: one artifact a partition, each compiled once and kept by its content."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm import registry
from autoglm.errors import CompileError
from autoglm.spec import Artifact, Backend, CompileOptions, Feeds, Fit, Partition, Value

if TYPE_CHECKING:
    import hashlib

    import onnx_ir as ir

    from autoglm.config import AdaptConfig
    from autoglm.plan import Machine
    from autoglm.runtime.prepare import Loaded, Planned

# One compile's share of the time that is left; the rest is for finding what it refuses.
_SHARE = 0.75


@dataclass(frozen=True, slots=True)
class Built:
    """Artifacts by partition id, below `folder/artifacts/<id>`."""

    folder: Path
    artifacts: Mapping[str, Artifact]
    cache_hits: int


def build(
    planned: Planned,
    options: CompileOptions,
    folder: Path,
    *,
    answers: Sequence[dict[str, Value]] = (),
    use_cache: bool = True,
) -> Built:
    """Compile every partition into `folder`.

    A partition inside the graph is calibrated on what really reaches it: the fp32 values of the
    boundary tensors for each calibration sample, computed here where `answers` does not have them.
    """
    artifacts: dict[str, Artifact] = {}
    hits = 0
    if options.calibration and len(planned.plan.partitions) > 1:
        answers = _answers(planned, options.calibration, answers)
    for partition in planned.plan.partitions:
        model = part_of(planned, partition)
        place = folder / "artifacts" / partition.id
        place.parent.mkdir(parents=True, exist_ok=True)
        part_options = replace(
            options,
            precision=partition.precision,
            # Keys of one engine mean nothing to another.
            settings=options.settings if partition.backend == planned.plan.backend else {},
            calibration=_calibration(model, options.calibration, answers),
        )
        try:
            artifacts[partition.id], hit = compile_part(
                model, partition.backend, part_options, place, use_cache=use_cache
            )
        except CompileError as error:
            error.facts["partition"] = partition.id
            raise
        hits += hit
    return Built(folder, artifacts, hits)


def plan_and_build(
    loaded: Loaded,
    planned: Planned,
    config: AdaptConfig,
    machine: Machine,
    options: CompileOptions,
    folder: Path,
    *,
    answers: Sequence[dict[str, Value]] = (),
    use_cache: bool = True,
) -> tuple[Planned, Built]:
    """Build; where an engine refuses what its table promised, plan again without it for those
    nodes.

    The engine's own words become the reason of the fallback. Raises the engine's CompileError
    where the policy leaves no other place.
    """
    from autoglm.runtime.prepare import plan_for
    from autoglm.runtime.refused import refused_nodes

    refused: dict[str, dict[str, str]] = {}
    end = time.monotonic() + options.timeout_s
    while True:
        left = max(1.0, end - time.monotonic())
        try:
            limited = replace(options, timeout_s=left * _SHARE)
            return planned, build(planned, limited, folder, answers=answers, use_cache=use_cache)
        except CompileError as error:
            shutil.rmtree(folder / "artifacts", ignore_errors=True)
            at = error.facts.get("partition")
            partition = next((p for p in planned.plan.partitions if p.id == at), None)
            if partition is None:
                raise  # no engine said so
            refusal = refused_nodes(
                planned, partition, options, folder, error, seconds=end - time.monotonic()
            )
            refused.setdefault(partition.backend, {}).update(refusal.reasons)
            again = plan_for(
                loaded,
                planned.plan.backend,
                config,
                machine,
                precision=planned.plan.precision,
                refused=refused,
            )
            if again.plan.fit is Fit.NO or again.plan.partitions == planned.plan.partitions:
                raise refusal.raised(error) from error
            planned = again


def part_of(planned: Planned, partition: Partition) -> ir.Model:
    """The partition as a model of its own."""
    from autoglm.rewrite.extract import extract

    if len(planned.plan.partitions) == 1:
        return planned.model
    return extract(planned.model, partition.nodes)


def compile_part(
    model: ir.Model, backend: str, options: CompileOptions, place: Path, *, use_cache: bool
) -> tuple[Artifact, bool]:
    """Compile into `place`, or copy from the cache what the same compile gave before."""
    from autoglm.bundle import cache
    from autoglm.bundle.manifest import read_artifact, write_artifact

    plug = registry.backend(backend)
    key = ""
    if use_cache:
        from autoglm.rewrite.facts import model_digest

        key = cache.cache_key(
            graph_digest=model_digest(model),
            config={**_identity(options), "local": _local(plug, options)},
            backend=backend,
            toolkit=plug.version(),
            driver=_driver(),
            cpu_features=_cpu(),
        )
        kept = cache.get(key)
        if kept is not None:
            shutil.copytree(kept, place)
            return read_artifact(place), True
    place.mkdir(parents=True)
    artifact = plug.compile(model, options, place)
    write_artifact(place, artifact)
    if use_cache:
        cache.put(key, place)
    return artifact, False


def crossing(planned: Planned) -> list[str]:
    """The tensors at the edges of the plan's partitions that have to be computed."""
    graph = planned.model.graph
    given = {v.name for v in graph.inputs} | set(graph.initializers)
    parts = planned.plan.partitions
    return sorted({t for p in parts for t in (*p.inputs, *p.outputs)} - given)


def _answers(
    planned: Planned, calibration: Sequence[Feeds], known: Sequence[dict[str, Value]]
) -> Sequence[dict[str, Value]]:
    """`known`, computed anew where other tensors cross since the engines refused something."""
    from autoglm.runtime.golden import Golden

    tensors = crossing(planned)
    inner = {t for p in planned.plan.partitions for t in p.inputs} & set(tensors)
    if len(known) == len(calibration) and all(inner <= set(values) for values in known):
        return known
    with Golden(planned.model, tensors) as golden:
        return [golden.run(feed) for feed in calibration]


def _calibration(
    model: ir.Model, samples: Sequence[Feeds], answers: Sequence[Mapping[str, Value]]
) -> list[Feeds]:
    """What each sample gives the inputs of one partition."""
    from autoglm.rewrite.save import input_infos

    needed = [info.name for info in input_infos(model) if info.kind != "optional"]
    found: list[Feeds] = []
    for number, feed in enumerate(samples):
        values = {**(answers[number] if answers else {}), **feed}
        lacking = [name for name in needed if name not in values]
        if lacking:
            raise CompileError(
                "Calibration sample {number} has no value for {lacking}.",
                hint="Every calibration file gives every input of the model.",
                number=number,
                lacking=", ".join(lacking),
            )
        found.append({i.name: values[i.name] for i in input_infos(model) if i.name in values})
    return found


def _identity(options: CompileOptions) -> dict[str, object]:
    """What of the options changes the artifact; calibration data by its content."""
    import hashlib

    digest = hashlib.sha256()
    for feed in options.calibration:
        for name in sorted(feed):
            _update(digest, name, feed[name])
    return {
        "precision": options.precision,
        "device": options.device,
        "arch": options.arch,
        "threads": options.threads,
        "memory_alignment": options.memory_alignment,
        "keep_high": sorted(options.keep_high),
        "beside_int8": options.beside_int8,
        "optimize": options.optimize,
        "settings": dict(sorted(options.settings.items())),
        "files": {key: _content(value) for key, value in sorted(options.settings.items())},
        "calibration": digest.hexdigest() if options.calibration else "",
    }


def _update(digest: hashlib._Hash, name: str, value: Value) -> None:
    import numpy as np

    if isinstance(value, list):
        for index, item in enumerate(value):
            _update(digest, f"{name}[{index}]", item)
        return
    array = np.asarray(value)
    # The bytes of an object array are addresses.
    data = repr(array.tolist()).encode() if array.dtype == object else array.tobytes()
    digest.update(repr((name, str(array.dtype), array.shape, len(data))).encode())
    digest.update(data)


def _content(value: str) -> str:
    """The digest of the file that a setting names; "" where it names none."""
    import hashlib

    if not os.path.isfile(value):
        return ""
    with open(value, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _local(plug: Backend, options: CompileOptions) -> dict[str, str]:
    identity = getattr(plug, "compile_identity", None)
    return dict(identity(options)) if identity else {}


def _driver() -> str:
    # CPU engines have no driver; the kernel's release stands for it.
    import platform

    return platform.release()


def _cpu() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as stream:
        return next(
            (
                line.split(":", 1)[1].strip()
                for line in stream
                if line.startswith(("flags", "Features"))
            ),
            "",
        )
