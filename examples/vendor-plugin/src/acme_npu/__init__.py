"""The acme NPU as an out-of-tree backend: a table of what it takes, a compiler, a session.

There is no such chip: the "device" is NumPy, so that the whole way from table to numbers is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoglm import spec
from autoglm.errors import CompileError
from autoglm.spec import Capabilities, Constraint, Evidence, NodeFacts, OpRule, Support, no, yes

if TYPE_CHECKING:
    import onnx_ir as ir

VERSION = "0.1.0"
FLOATS = frozenset({"float32", "float16"})
# A data sheet's figures price the plan; what it leaves out is taken low, and the plan says so.
RATES = {"fp32": 4.0, "fp16": 8.0}
CHIP = spec.Chip("NPU-1", "acme", "acme", "npu", 8 << 30, 100.0, RATES, link_gbps=8.0)


def check_conv(node: NodeFacts) -> Support:
    """Two spatial axes, one group, explicit pads, no dilation."""
    rank = node.inputs[0].rank if node.inputs[0] is not None else None
    if rank != 4:
        return no(Constraint.RANK, f"Conv takes 2 spatial axes, found input rank {rank}")
    for name, limit in (("group", 1), ("auto_pad", "NOTSET"), ("dilations", (1, 1))):
        found = node.attributes.get(name, limit)
        if found != limit:
            return no(Constraint.ATTRIBUTE, f"Conv takes {name}={limit}, found {found}")
    return yes(Evidence.DOCUMENT)


def rule(since: int, when: Callable[[NodeFacts], Support] | None = None) -> OpRule:
    """float32 and float16, from that version of the operator on."""
    return OpRule(FLOATS, (since, 30), when, Evidence.DOCUMENT)


TABLE: Mapping[str, OpRule] = {
    "Add": rule(14),
    "Mul": rule(14),
    "MatMul": rule(13),
    "Relu": rule(14),
    "Conv": rule(11, check_conv),
}


class Acme:
    """The plug that the entry point names."""

    name = "acme"
    api_version = 1

    def probe(self) -> Sequence[spec.Device]:
        """One card, always there."""
        return [spec.Device("npu", "acme NPU (simulated)", self.name)]

    def version(self) -> str:
        """Of the toolkit."""
        return VERSION

    def capabilities(self, arch: str = "") -> Capabilities:
        """What the data sheet says."""
        limits = {"memory_bytes": CHIP.memory_bytes, "formats": ("onnx",), "chip": CHIP}
        return Capabilities(
            self.name, f"acme {VERSION}", TABLE, evidence=Evidence.DOCUMENT, **limits
        )

    def compile(self, model: ir.Model, options: spec.CompileOptions, out: Path) -> spec.Artifact:
        """Refuse what the table refuses, then write the graph."""
        from autoglm.rewrite.facts import node_facts
        from autoglm.rewrite.save import input_infos, output_infos, save_onnx

        for node in node_facts(model):
            verdict = self.capabilities().support(node)
            if not verdict.ok:
                raise CompileError("{node}: {reason}", node=node.name, reason=verdict.reason)
        save_onnx(model, out / "model.onnx")
        edges = input_infos(model), output_infos(model)
        return spec.Artifact(self.name, "onnx", "model.onnx", f"acme {VERSION}", *edges)

    def open(self, artifact: spec.Artifact, folder: Path, options: spec.RunOptions) -> AcmeSession:
        """Load the graph that `compile` wrote."""
        import onnx_ir as ir

        return AcmeSession(artifact, ir.load(folder / artifact.entry))


class AcmeSession:
    """Walks the graph, one kernel per node."""

    def __init__(self, artifact: spec.Artifact, model: ir.Model) -> None:
        from acme_npu.kernels import KERNELS

        self.inputs, self.outputs = artifact.inputs, artifact.outputs
        self._graph, self._kernels = model.graph, KERNELS
        self._weights = {
            n: v.const_value.numpy() for n, v in model.graph.initializers.items() if v.const_value
        }

    def run(self, feeds: spec.Feeds) -> dict[str, spec.Value]:
        """Run once."""
        from autoglm.tensor.feeds import check_feeds

        values: dict[str, Any] = {**self._weights, **check_feeds(self.inputs, feeds)}
        for node in self._graph:
            arguments = [values[str(v.name)] for v in node.inputs if v is not None]
            attributes = {name: a.value for name, a in node.attributes.items()}
            values[str(node.outputs[0].name)] = self._kernels[node.op_type](
                *arguments, **attributes
            )
        return {o.name: values[o.name] for o in self.outputs}

    def close(self) -> None:
        """Nothing to give back."""
