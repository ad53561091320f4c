"""Hand-made chips for the migration tests: a graph, a table, and the plan that follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace

from plan.graphs import MACHINE, table

from autoglm.plan import Graph, make_plan
from autoglm.plan.migrate import Evaluation
from autoglm.plan.migrate_work import Answered
from autoglm.spec import Capabilities, Plan, Support, yes

OPS = ("MatMul", "Erf", "Add", "Softmax")


def planned(graph: Graph, chip: Capabilities, precision: str = "fp32", **more: object) -> Plan:
    """The plan of a graph for a chip beside one CPU engine that takes everything."""
    cpu = table("onnxruntime", *{n.op for n in graph.nodes})
    tables = {chip.backend: chip, cpu.backend: cpu}
    return make_plan(
        graph,
        tables,
        backend=chip.backend,
        precision=precision,
        machine=MACHINE,
        prefer_primary=0.5,
        **more,  # type: ignore[arg-type]
    )


def side(
    graph: Graph,
    chip: Capabilities,
    *,
    asked: str = "fp32",
    precision: str = "",
    rewritten: Mapping[str, str] | None = None,
) -> Evaluation:
    """What the report makes of that chip."""
    return Evaluation(
        target=chip.backend,
        table=chip,
        asked=asked,
        verdicts={n.name: chip.support(n.facts) for n in graph.nodes},
        ops={n.name: n.op for n in graph.nodes},
        rewritten=rewritten or {},
        graph=graph,
        plan=planned(graph, chip, precision or asked),
    )


def replanner(graph: Graph, chip: Capabilities, planned_in: str = "fp32") -> Callable[..., Plan]:
    """Plans the graph again with nodes granted, as the runtime does."""

    def replan(
        *,
        granted: frozenset[str] = frozenset(),
        memory: bool = True,
        precision: str = "",
        pins: Mapping[str, str] | None = None,
    ) -> Plan:
        answers: dict[str, Support] = {n.name: chip.support(n.facts) for n in graph.nodes}
        answers.update(dict.fromkeys(granted, yes()))
        facts = {f.name: getattr(chip, f.name) for f in fields(Capabilities)}
        granting = Answered(**facts, answers=answers)
        if not memory:
            granting = replace(granting, memory_bytes=None)
        if precision:
            granting = replace(granting, precisions={**chip.precisions, precision: yes()})
        return planned(graph, granting, precision or planned_in, pins=pins)

    return replan
