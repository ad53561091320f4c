"""Placement, partition and cost: a graph and capability tables in, a Plan out; pure."""

from __future__ import annotations

from autoglm.plan.budget import Budget, fallback_time_pct, over_budget
from autoglm.plan.cost import Machine
from autoglm.plan.explain import diff, from_dict, lacks, placement, to_dict, why
from autoglm.plan.graph import Graph, Node, Tensor, Wiring, graph_of, make_graph
from autoglm.plan.options import CPU_ENGINES
from autoglm.plan.place import make_plan

__all__ = [
    "CPU_ENGINES",
    "Budget",
    "Graph",
    "Machine",
    "Node",
    "Tensor",
    "Wiring",
    "diff",
    "fallback_time_pct",
    "from_dict",
    "graph_of",
    "lacks",
    "make_graph",
    "make_plan",
    "over_budget",
    "placement",
    "to_dict",
    "why",
]
