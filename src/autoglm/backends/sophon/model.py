"""A partition as TPU-MLIR takes it: fixed shapes, an opset that it knows, plain names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm.backends.sophon.lower import lower
from autoglm.errors import CompileError

if TYPE_CHECKING:
    import onnx_ir as ir

# TPU-MLIR 1.30.2 pins onnx 1.14 (opset 19), and its patterns know most operators up to opset 17.
OPSETS, IR_VERSION = (17, 19), 8
# Revised in another way than by new attributes or inputs: an older opset would say something else.
_CHANGED = frozenset({"GroupNormalization", "GridSample"})


@dataclass(frozen=True, slots=True)
class Names:
    """What edges and layers are called inside."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    # what TPU-MLIR calls a layer -> the source nodes it is made of
    layers: Mapping[str, frozenset[str]] = field(default_factory=dict)


def write_model(model: ir.Model, path: Path) -> Names:
    """Write a copy of the model; CompileError where TPU-MLIR could not read it."""
    from autoglm.rewrite.save import save_onnx

    refuse_open(model)
    copy = model.clone()
    stamp(copy)
    names = rename_edges(copy)
    save_onnx(copy, path)
    return replace(names, layers=_layers(copy))


def _layers(model: ir.Model) -> dict[str, frozenset[str]]:
    from autoglm.rewrite.facts import sources

    return {
        f"{value.name}_{node.op_type}": frozenset({node.name or "", *sources(node)})
        for node in model.graph.all_nodes()
        for value in node.outputs
    }


def refuse_open(model: ir.Model) -> None:
    """BModels have fixed shapes."""
    from autoglm.rewrite.save import input_infos

    for info in input_infos(model):
        if info.kind != "tensor":
            raise CompileError(
                "TPU-MLIR takes tensors only; {name!r} is a {kind}.", name=info.name, kind=info.kind
            )
        if info.shape is None or not all(isinstance(d, int) for d in info.shape):
            shown = "unknown" if info.shape is None else "x".join(map(str, info.shape))
            raise CompileError(
                "TPU-MLIR compiles fixed shapes only; {name!r} is {shape}.",
                hint="Fix it: --input-shape {name}=…",
                name=info.name,
                shape=shown,
            )


def stamp(model: ir.Model) -> None:
    """Declare the first opset of `OPSETS` in which every node means the same."""
    for node in list(model.graph.all_nodes()):
        if node.domain in ("", "ai.onnx"):
            lower(node)
    model.ir_version = IR_VERSION
    opset = model.opset_imports.get("", OPSETS[0])
    if opset <= OPSETS[0]:
        return
    strangers: list[ir.Node] = []
    for target in OPSETS:
        strangers = [n for n in model.graph.all_nodes() if not _fits(n, opset, target)]
        if not strangers:
            model.opset_imports[""] = target
            return
    raise CompileError(
        "TPU-MLIR reads ONNX up to opset {newest}; {op} is used as of opset {opset}.",
        newest=OPSETS[-1],
        op=strangers[0].op_type,
        opset=opset,
    )


def _fits(node: ir.Node, opset: int, target: int) -> bool:
    """Whether the operator of the older opset takes this node as it is."""
    import onnx

    if node.domain not in ("", "ai.onnx"):
        return True
    try:
        new = onnx.defs.get_schema(node.op_type, opset)
        old = onnx.defs.get_schema(node.op_type, target)
    except onnx.defs.SchemaError:
        return False
    if old.since_version == new.since_version:
        return True
    known = set(node.attributes) <= set(old.attributes)
    return known and len(node.inputs) <= old.max_input and node.op_type not in _CHANGED


def rename_edges(model: ir.Model) -> Names:
    """Inputs in0, in1, …; outputs out0, out1, …: TPU-MLIR adds to output names, and its tables are
    split at blanks.
    """
    inputs = [v for v in model.graph.inputs if v.name not in model.graph.initializers]
    given = {id(v) for v in model.graph.inputs}
    outputs = list(model.graph.outputs)
    for index, value in enumerate(outputs):
        if id(value) in given or value.producer() is None:
            raise CompileError(
                "TPU-MLIR takes no graph whose output {name!r} is computed by no node.",
                name=value.name or "",
            )
        if any(value is earlier for earlier in outputs[:index]):
            raise CompileError(
                "TPU-MLIR takes no graph that gives its output {name!r} twice.",
                name=value.name or "",
            )
    edges = {f"in{i}": v for i, v in enumerate(inputs)}
    edges |= {f"out{i}": v for i, v in enumerate(outputs)}
    _make_room(model, set(edges))
    for name, value in edges.items():
        value.name = name
    return Names(
        tuple(v.name or "" for v in inputs),
        tuple(v.name or "" for v in outputs),
    )


def _make_room(model: ir.Model, wanted: set[str]) -> None:
    """Give whatever holds one of these names another."""
    values = [
        value
        for graph in model.graphs()
        for value in (
            *graph.inputs,
            *graph.initializers.values(),
            *(v for node in graph for v in node.outputs),
        )
    ]
    taken = wanted | {v.name or "" for v in values}
    for value in values:
        name = value.name or ""
        if name in wanted:
            while name in taken:
                name += "_"
            taken.add(name)
            value.name = name
