"""Refuse what the chip would refuse, then write the model with the chip's rounding in it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm.backends.emulated.engine import create
from autoglm.backends.emulated.profile import Profile, profile, version
from autoglm.catalog.precision import require_precision
from autoglm.catalog.roofline import chip_machine, node_seconds
from autoglm.catalog.work import value_bytes, work_of
from autoglm.errors import CompileError, ConfigError
from autoglm.spec import Artifact, CompileOptions, NodeFacts, TensorInfo, ValueFacts

if TYPE_CHECKING:
    import onnx_ir as ir

_ENTRY = "model.onnx"
_SIZE = {"fp16": 0.5, "bf16": 0.5, "int8": 0.25}  # of a float32 weight
_DEFAULT_ALIGNMENT = CompileOptions().memory_alignment


def compile_model(model: ir.Model, options: CompileOptions, out: Path) -> Artifact:
    """Compile into `out`; CompileError names the first node that the chip would refuse."""
    from autoglm.rewrite.facts import node_facts
    from autoglm.rewrite.save import input_infos, output_infos, save_onnx, weight_bytes
    from autoglm.rewrite.shapes import infer_shapes

    chip = profile(options.arch)
    settings(options)
    alignment = _alignment(chip, options)
    require_precision(chip.chip.name, chip.table.precisions, options)
    facts = node_facts(model)
    inputs, outputs = input_infos(model), output_infos(model)
    _require_support(chip, options.precision, facts, (*inputs, *outputs))
    _require_memory(chip, facts, _SIZE.get(options.precision, 1.0), weight_bytes(model))
    estimate = estimate_of(chip, facts, options.precision)
    rounded = infer_shapes(model.clone())
    _round(rounded, options)
    path = save_onnx(rounded, out / _ENTRY, alignment=alignment)
    create(path, threads=options.threads)
    return Artifact(
        backend="emulated",
        kind="emulated-onnx",
        entry=_ENTRY,
        toolkit=f"emulated {chip.chip.name} on onnxruntime {version()}",
        inputs=inputs,
        outputs=outputs,
        precision=options.precision,
        meta={
            "remark": chip.remark(options.precision),
            "chip": chip.chip.name,
            "estimated_s": estimate.seconds,
            "uncertainty": estimate.uncertainty,
            "link_gbps": estimate.link_gbps,
            "threads": options.threads,
            "settings": dict(options.settings),
        },
    )


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the chip would take for one call, without what crosses its link."""

    seconds: float
    uncertainty: float
    link_gbps: float


def estimate_of(chip: Profile, facts: list[NodeFacts], precision: str) -> Estimate:
    """By the planner's own roofline; open dimensions count as 1."""
    machine = chip_machine(chip.chip, precision)
    nodes = sum(
        node_seconds(
            work_of(f, _dims), machine, precision=precision, speed=chip.table.speed, op=f.op
        )
        for f in facts
    )
    return Estimate(machine.dispatch("emulated") + nodes, machine.uncertainty, machine.link_gbps)


def settings(options: CompileOptions) -> float:
    """The pace that the settings ask for; ConfigError for any other key."""
    from autoglm.backends.emulated.session import pace_of

    return pace_of(options.settings)


def _dims(value: ValueFacts) -> tuple[int, ...]:
    return tuple(d if isinstance(d, int) else 1 for d in value.shape or ())


def _round(model: ir.Model, options: CompileOptions) -> None:
    if options.precision == "int8":
        from autoglm.backends.emulated.quantize import quantize

        quantize(model, options)
    elif options.precision != "fp32":
        from autoglm.backends.emulated.rounding import round_to

        round_to(model, options.precision, options.keep_high)


def _alignment(chip: Profile, options: CompileOptions) -> int:
    need, found = chip.table.alignment, options.memory_alignment
    if found % need and found != _DEFAULT_ALIGNMENT:
        raise ConfigError(
            "{chip} needs addresses aligned to {need} bytes; found memory_alignment {found}.",
            hint="Leave memory_alignment out, or give a multiple.",
            chip=chip.chip.name,
            need=need,
            found=found,
        )
    return max(need, found)


def _require_support(
    chip: Profile, precision: str, facts: list[NodeFacts], edges: tuple[TensorInfo, ...]
) -> None:
    from autoglm.tensor.feeds import is_plain

    table = chip.table.at(precision)
    for node in facts:
        verdict = table.support(node)
        if not verdict.ok:
            raise CompileError(
                "{chip} takes no node {node!r} ({op}): {cause}.",
                chip=chip.chip.name,
                node=node.name,
                op=node.op,
                cause=verdict.reason,
            )
    odd = next((i for i in edges if not is_plain(i)), None)
    if odd is not None:
        raise CompileError(
            "The emulation exchanges plain number tensors; {name!r} is a {kind} of {dtype}.",
            name=odd.name,
            kind=odd.kind,
            dtype=odd.dtype or "unknown",
        )


def _require_memory(chip: Profile, facts: list[NodeFacts], scale: float, weights: int) -> None:
    limit = chip.table.memory_bytes
    largest = max((_held(f) for f in facts), default=0)
    need = math.ceil(scale * (weights + largest))
    if limit is not None and need > limit:
        raise CompileError(
            "{chip} has {limit} bytes of memory; weights and the largest node need {need}.",
            chip=chip.chip.name,
            limit=limit,
            need=need,
        )


def _held(node: NodeFacts) -> int:
    values = (*(v for v in node.inputs if v is not None and not v.constant), *node.outputs)
    return sum(value_bytes(v.dtype, _dims(v)) for v in values)
