"""Which operators lose most when they are quantised, and so are raised to fp32 first."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autoglm.plan.graph import Graph

_QUANTISED = ("Conv", "ConvTranspose", "MatMul", "Gemm")


def raise_order(graph: Graph) -> list[str]:
    """Names of quantisable nodes, most sensitive first.

    First products of two activations (attention scores: their range follows the input, not the
    weights), then from both ends of the graph inwards: the first layers' errors reach everything,
    the last layers' errors are seen directly.
    """
    nodes = [n for n in graph.nodes if n.facts.op in _QUANTISED]
    dynamic = [
        n.facts.name for n in nodes if not any(v is not None and v.constant for v in n.facts.inputs)
    ]
    weighted = [n.facts.name for n in nodes if n.facts.name not in set(dynamic)]
    ends: list[str] = []
    while weighted:
        ends.append(weighted.pop())
        if weighted:
            ends.append(weighted.pop(0))
    return dynamic + ends
