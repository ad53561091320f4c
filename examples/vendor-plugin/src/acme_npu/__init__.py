"""The acme NPU as an out-of-tree backend: a table of what it takes, a compiler, a session.

There is no such chip. The "device" is NumPy, so that the whole way from the table to the numbers can be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoglm.errors import CompileError, InputError
from autoglm.spec import (
    Artifact,
    Capabilities,
    CompileOptions,
    Constraint,
    Device,
    Evidence,
    Feeds,
    NodeFacts,
    OpRule,
    RunOptions,
    Support,
    TensorInfo,
    Value,
    no,
    yes,
)

if TYPE_CHECKING:
    import onnx_ir as ir

VERSION = "0.1.0"
FLOATS = frozenset({"float32", "float16"})


def check_conv(node: NodeFacts) -> Support:
    """Two spatial axes at most, one group, explicit pads, no dilation."""
    rank = node.inputs[0].rank if node.inputs[0] is not None else None
    if rank is None or rank > 4:
        return no(Constraint.RANK, f"Conv takes at most 2 spatial axes, found input rank {rank}")
    if rank < 4:
        return no(Constraint.RANK, f"Conv takes 2 spatial axes, found {rank - 2}")
    if node.attributes.get("group", 1) != 1:
        return no(Constraint.ATTRIBUTE, f"Conv takes group=1, found {node.attributes['group']}")
    if node.attributes.get("auto_pad", "NOTSET") != "NOTSET":
        return no(
            Constraint.ATTRIBUTE, f"Conv takes explicit pads, found {node.attributes['auto_pad']}"
        )
    if any(d != 1 for d in node.attributes.get("dilations", ())):
        return no(
            Constraint.ATTRIBUTE, f"Conv takes no dilation, found {node.attributes['dilations']}"
        )
    return yes(Evidence.DOCUMENT)


def _rule(since: int, when: Callable[[NodeFacts], Support] | None = None) -> OpRule:
    return OpRule(FLOATS, (since, 30), when, Evidence.DOCUMENT)


TABLE: Mapping[str, OpRule] = {
    "Add": _rule(14),
    "Sub": _rule(14),
    "Mul": _rule(14),
    "MatMul": _rule(13),
    "Relu": _rule(14),
    "Tanh": _rule(13),
    "Conv": _rule(11, check_conv),
}


class Acme:
    """The plug that the entry point names."""

    name = "acme"
    api_version = 1

    def probe(self) -> Sequence[Device]:
        """One card, always there."""
        return [Device("npu", "acme NPU (simulated)", self.name)]

    def version(self) -> str:
        """Of the toolkit."""
        return VERSION

    def capabilities(self, arch: str = "") -> Capabilities:
        """What the data sheet says."""
        return Capabilities(
            self.name, f"acme {VERSION}", TABLE, formats=("onnx",), evidence=Evidence.DOCUMENT
        )

    def compile(self, model: ir.Model, options: CompileOptions, out: Path) -> Artifact:
        """Check every node against the kernels, then write the graph."""
        import onnx_ir as ir

        unknown = sorted({node.op_type for node in model.graph} - set(TABLE))
        if unknown:
            raise CompileError(
                "acme compiles {known}; found {ops}.",
                known=", ".join(TABLE),
                ops=", ".join(unknown),
            )
        ir.save(model, out / "model.onnx")
        inputs, outputs = map(_infos, (model.graph.inputs, model.graph.outputs))
        return Artifact(self.name, "onnx", "model.onnx", f"acme {VERSION}", inputs, outputs)

    def open(self, artifact: Artifact, folder: Path, options: RunOptions) -> AcmeSession:
        """Load the graph that `compile` wrote."""
        import onnx_ir as ir

        return AcmeSession(artifact, ir.load(folder / artifact.entry))


def _infos(values: Sequence[ir.Value]) -> tuple[TensorInfo, ...]:
    from autoglm.rewrite.facts import dims, dtype_name

    return tuple(TensorInfo(str(v.name), dtype_name(v), dims(v)) for v in values)


class AcmeSession:
    """Walks the graph, one kernel per node."""

    def __init__(self, artifact: Artifact, model: ir.Model) -> None:
        from acme_npu.kernels import KERNELS

        self.inputs, self.outputs = artifact.inputs, artifact.outputs
        self._graph, self._kernels = model.graph, KERNELS
        self._weights = {
            n: v.const_value.numpy() for n, v in model.graph.initializers.items() if v.const_value
        }

    def run(self, feeds: Feeds) -> dict[str, Value]:
        """Run once."""
        missing = sorted({i.name for i in self.inputs} - set(feeds))
        if missing:
            raise InputError("Missing inputs: {names}.", names=", ".join(missing))
        values: dict[str, Any] = {**self._weights, **feeds}
        for node in self._graph:
            arguments = [values[str(v.name)] for v in node.inputs if v is not None]
            attributes = {name: a.value for name, a in node.attributes.items()}
            values[str(node.outputs[0].name)] = self._kernels[node.op_type](
                *arguments, **attributes
            )
        return {o.name: values[o.name] for o in self.outputs}

    def close(self) -> None:
        """Nothing to give back."""
